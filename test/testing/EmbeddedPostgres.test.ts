import { assert, layer } from "@effect/vitest"
import { Effect } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("EmbeddedPostgres", (it) => {
  it.scoped("keeps committed rows through a crash and a restart", () =>
    Effect.gen(function* () {
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      const { url } = yield* TestPg.database
      yield* TestPg.control("CREATE TABLE kept AS SELECT generate_series(1, 1000) AS n", [], url)
      const before = yield* server.pid
      yield* server.crash
      assert.strictEqual(yield* server.state, "Stopped")
      yield* server.start
      assert.notStrictEqual(yield* server.pid, before)
      assert.include(yield* server.log, "database system was not properly shut down")
      assert.deepStrictEqual(yield* TestPg.control("SELECT count(*)::int AS n FROM kept", [], url), [{ n: 1000 }])
    })
  )
})
