/**
 * A terminal that is taken over for a while: the alternate screen, no cursor, keys as they are pressed. Whatever way it ends
 * (a key, Ctrl-C, SIGTERM, an error, even `process.exit`), the terminal is as it was before. Elsewhere: a line a view.
 */
import process from "node:process"
import * as Console from "effect/Console"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import { render, type View } from "../../internal/watch/line.js"
import * as style from "./style.js"

const enter = "\u001b[?1049h\u001b[?25l"
const leave = "\u001b[?25h\u001b[?1049l"
/** To the corner; each line clears what is behind it, and the last one what is below. */
const home = "\u001b[H"
const clearLine = "\u001b[K"
const clearBelow = "\u001b[J"

const taken = Effect.acquireRelease(
  Effect.sync(() => {
    const restore = () => void process.stdout.write(leave)
    process.once("exit", restore)
    process.stdout.write(enter)
    return restore
  }),
  (restore) =>
    Effect.sync(() => {
      process.off("exit", restore)
      restore()
    })
)

/** `quit` ends as wanted, Ctrl-C as interrupted: in raw mode it is a key like others. */
const keys = (quit: Deferred.Deferred<void>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const onData = (data: Buffer) => {
        const pressed = data.toString("latin1")
        if (pressed.includes("\u0003") || pressed.includes("\u0004")) Deferred.unsafeDone(quit, Effect.interrupt)
        else if (/q/i.test(pressed)) Deferred.unsafeDone(quit, Effect.void)
      }
      const { stdin } = process
      if (stdin.isTTY !== true) return () => {}
      stdin.setRawMode(true)
      stdin.on("data", onData)
      return () => {
        stdin.off("data", onData)
        stdin.setRawMode(false)
        stdin.pause()
      }
    }),
    (restore) => Effect.sync(restore)
  )

const draw = (view: View, on: style.Style): void => {
  // A terminal that does not know its size says 0.
  const columns = process.stdout.columns || 80
  const rows = process.stdout.rows || 24
  const lines = view.lines(columns).slice(0, Math.max(1, rows - 1))
  process.stdout.write(home + lines.map((line) => `${render(line, on, columns)}${clearLine}\r\n`).join("") + clearBelow)
}

const onTerminal = <E, R>(views: Stream.Stream<View, E, R>) =>
  Effect.gen(function* () {
    const quit = yield* Deferred.make<void>()
    yield* taken
    yield* keys(quit)
    const on = style.ofProcess()
    let latest: View | undefined
    const redraw = () => {
      if (latest !== undefined) draw(latest, on)
    }
    yield* Effect.acquireRelease(
      Effect.sync(() => void process.stdout.on("resize", redraw)),
      () => Effect.sync(() => void process.stdout.off("resize", redraw))
    )
    const drawing = Stream.runForEach(views, (view) =>
      Effect.sync(() => {
        latest = view
        redraw()
      })
    )
    yield* Effect.raceFirst(drawing, Deferred.await(quit))
  }).pipe(Effect.scoped)

/** Shows one view after the other, until they end or somebody quits. */
export const show = <E, R>(views: Stream.Stream<View, E, R>): Effect.Effect<void, E, R> =>
  Effect.suspend(() =>
    process.stdout.isTTY === true && process.env["TERM"] !== "dumb"
      ? onTerminal(views)
      : Stream.runForEach(views, ({ line }) => Console.log(line))
  )
