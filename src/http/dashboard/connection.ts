/**
 * The stream of events, held open for as long as the page is. `EventSource` gives up at the first answer that is not a
 * stream, and never notices a server that has gone silent; so its own reconnecting is not relied on.
 */
import * as backoff from "./backoff.js"
import type { Message } from "./state.js"

export type Connection =
  | { readonly _tag: "Connecting" }
  | { readonly _tag: "Live" }
  /** `since`: milliseconds since the epoch, by this machine's clock. */
  | { readonly _tag: "Lost"; readonly since: number }

const names: ReadonlyArray<Message["_tag"]> = ["Hello", "Tick", "Report", "Event", "Notice"]

export const open = (
  url: URL,
  on: { readonly message: (message: Message) => void; readonly connection: (connection: Connection) => void }
): void => {
  let source: EventSource | undefined
  let failed = 0
  let heard = performance.now()
  let lostSince: number | undefined

  const lose = () => {
    source?.close()
    source = undefined
    lostSince ??= Date.now()
    on.connection({ _tag: "Lost", since: lostSince })
    setTimeout(connect, backoff.delay(failed, Math.random()))
    failed += 1
  }

  const connect = () => {
    heard = performance.now()
    const stream = new EventSource(url)
    source = stream
    stream.addEventListener("error", () => {
      if (source === stream) lose()
    })
    for (const name of names) {
      stream.addEventListener(name, ({ data }: MessageEvent<string>) => {
        heard = performance.now()
        const message: Message = JSON.parse(data)
        on.message(message)
        if (message._tag !== "Hello") return
        failed = 0
        lostSince = undefined
        on.connection({ _tag: "Live" })
      })
    }
  }

  const watch = () => {
    if (source !== undefined && performance.now() - heard > backoff.limits.silence) lose()
  }

  on.connection({ _tag: "Connecting" })
  connect()
  setInterval(watch, 1_000)
}
