/** The dashboard in a real Chromium, when the way to its server is lost and found. */
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as chromium from "../support/chromium.js"
import * as TestPg from "../support/TestPg.js"
import { does, host, pathOf, serve, shows, world } from "./dashboard.js"

layer(Layer.merge(TestPg.layer, chromium.layer), { excludeTestServices: true, timeout: "60 seconds" })(
  `the dashboard's connection in Chromium${chromium.word}`,
  (it) => {
    it.scoped.skipIf(chromium.path === undefined)(
      "notices a server that has gone silent, and one that gives no stream, and comes back from both",
      () =>
        Effect.gen(function* () {
          const { port, watched } = yield* world()
          yield* serve(watched, port, yield* Effect.scope)
          const line = yield* FaultProxy.make({ upstream: { host, port } })
          const { complaints, page } = yield* chromium.page()
          yield* does(() => page.goto(pathOf(line.port)))
          yield* shows(page, "#connection", "Live")

          yield* line.blackHole({ existing: true, new: true })
          yield* shows(page, "#lost", /Last data at/)
          yield* line.heal
          yield* line.reset
          yield* shows(page, "#connection", "Live")

          const refuse = does(() => page.route("**/events", (route) => route.fulfill({ status: 503, body: "{}" })))
          yield* refuse
          yield* line.reset
          yield* shows(page, "#connection", "Connection lost")
          yield* TestPg.eventually(
            Effect.sync(() => complaints.filter((text) => text.includes("503")).length),
            (count) => count >= 2
          )
          yield* does(() => page.unroute("**/events"))
          yield* shows(page, "#connection", "Live")
        })
    )
  }
)
