/** A primary that crashes under load, and the standby promoted in its place: nothing acknowledged is gone. */
import { assert, layer } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, LogLevel } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../../support/TestPg.js"
import * as Seeds from "../seeds.js"
import * as Checker from "./checker.js"
import * as Hows from "./hows.js"
import * as Plan from "./plan.js"
import * as Standby from "./standby.js"
import * as Tables from "./tables.js"
import * as Workloads from "./workloads.js"

layer(Layer.merge(Standby.layer(), Logger.minimumLogLevel(LogLevel.None)), {
  excludeTestServices: true,
  timeout: "60 seconds"
})("A standby promoted in the place of its primary", (it) => {
  it.effect("has all that was acknowledged, once, and nobody is told that it is not known", () =>
    Effect.gen(function* () {
      const seed = yield* Seeds.seed
      const { failOver, network, primary, standby } = yield* Standby.Pair
      const shape = { ...Plan.defaults, seed }
      const how = Hows.exactlyOnce("ledger", "serializable")
      const name = primary.config.database
      yield* Effect.provideService(
        Tables.create({ name, url: primary.url }, shape),
        EmbeddedPostgres.EmbeddedPostgres,
        primary
      )
      const book = Workloads.emptyBook()
      const acknowledged = () => book.transactions.filter(({ told }) => told === "ok").length
      let going = true
      const workload = { shape, kinds: Plan.kinds, how, going: () => going }
      const reach = (count: number) =>
        TestPg.eventually(Effect.sync(acknowledged), (n) => n >= count, { message: "the workload does not go on" })
      const before = yield* Effect.gen(function* () {
        if (how.prepare) yield* how.prepare
        const clients = yield* Effect.fork(Workloads.run(workload, book))
        yield* reach(150)
        yield* failOver
        const before = acknowledged()
        yield* reach(before + 100)
        going = false
        yield* Fiber.join(clients)
        return before
      }).pipe(Effect.provide(how.client(network.url(primary.url))))
      const final = yield* Effect.provideService(
        Tables.read({ name, url: standby.url }),
        EmbeddedPostgres.EmbeddedPostgres,
        standby
      )
      const report = Checker.check(Workloads.history(workload, book), final)
      console.log(`${before} acknowledged until the promotion; ${Checker.figures(report)}`)
      assert.deepStrictEqual([...Checker.summary(report), ...book.defects], [], `replay with CHAOS_SEED=${seed}`)
      assert.strictEqual(report.told.unknown, 0)
      assert.strictEqual(yield* primary.state, "Stopped")
    })
  )
})
