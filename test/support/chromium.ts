/** Chromium, for tests of pages; where there is none, they are skipped. */
import { existsSync } from "node:fs"
import { Context, Effect, Layer, Scope } from "effect"
import { type Browser, type BrowserContextOptions, chromium, type Page } from "playwright-core"

/** `CHROMIUM_PATH`, or where systems put it; undefined where there is none. */
export const path = [
  process.env["CHROMIUM_PATH"],
  "/usr/bin/chromium",
  "/usr/bin/chromium-browser",
  "/usr/bin/google-chrome",
  "/usr/bin/google-chrome-stable",
  "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
].find((path) => path !== undefined && existsSync(path))

/** For the name of a suite that needs it. */
export const word = path === undefined ? " (skipped: no Chromium found; CHROMIUM_PATH may name one)" : ""

/** A page waits for so long until what is awaited is there: the bound is a hang's. Milliseconds. */
const patience = 45_000

/** A browser that asks nothing of anybody by itself, until the scope closes. */
const launch = Effect.acquireRelease(
  Effect.promise(() =>
    chromium.launch({
      executablePath: path!,
      // Ends with the tests, not with a signal that is theirs to handle.
      handleSIGINT: false,
      handleSIGTERM: false,
      handleSIGHUP: false,
      args: [
        ...["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"],
        ...["--disable-background-networking", "--disable-component-update"]
      ]
    })
  ),
  (browser) => Effect.promise(() => browser.close())
)

/** The browser of a file's tests, started by the first of them that is not skipped. */
export class Chromium extends Context.Tag("test/Chromium")<Chromium, Effect.Effect<Browser>>() {}

export const layer = Layer.scoped(
  Chromium,
  Effect.flatMap(Effect.scope, (scope) => Effect.cached(Scope.extend(launch, scope)))
)

export interface Watched {
  readonly page: Page
  /** What the page asked for. */
  readonly requests: ReadonlyArray<string>
  /** Errors and warnings in its console, and what it threw. */
  readonly complaints: ReadonlyArray<string>
}

/** A page that shares nothing with others, watched from the start, until the scope closes. */
export const page = (options: BrowserContextOptions = {}) =>
  Effect.gen(function* () {
    const browser = yield* Effect.flatten(Chromium)
    const page = yield* Effect.acquireRelease(
      Effect.promise(() => browser.newPage(options)),
      (page) => Effect.promise(() => page.close())
    )
    page.setDefaultTimeout(patience)
    const requests: Array<string> = []
    const complaints: Array<string> = []
    page.on("request", (request) => requests.push(request.url()))
    page.on("pageerror", (error) => complaints.push(error.message))
    page.on("console", (message) => {
      if (["error", "warning"].includes(message.type())) complaints.push(message.text())
    })
    return { page, requests, complaints } satisfies Watched
  })
