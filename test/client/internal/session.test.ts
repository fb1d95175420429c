import { assert, layer } from "@effect/vitest"
import { Effect, Redacted } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import { Request } from "../../../src/client/internal/request.js"
import { open, query } from "../../../src/client/internal/session.js"
import * as TestPg from "../../support/TestPg.js"

const session = Effect.acquireRelease(
  Effect.flatMap(EmbeddedPostgres.EmbeddedPostgres, ({ url }) => open({ connectionString: Redacted.value(url) })),
  (session) => Effect.sync(() => session.destroy(new Error("The test is over")))
)

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Session", (it) => {
  // Else a pool that gets the session back in this state cleans it for ever, each time refused before it returns.
  it.scoped("is lost as soon as it refuses a statement because its socket can not be written to", () =>
    Effect.gen(function* () {
      const broken = yield* session
      yield* query(broken, "BEGIN")
      const told: Array<unknown> = []
      broken.onLost = (cause) => told.push(cause)
      broken.socket.end()
      assert.isUndefined(broken.lost)
      const { answered, error, written } = yield* Effect.async<Parameters<Parameters<typeof broken.submit>[1]>[0]>(
        (resume) => {
          broken.submit(new Request("ROLLBACK"), (reply) => resume(Effect.succeed(reply)))
        }
      )
      assert.instanceOf(error, Error)
      assert.deepStrictEqual({ answered, written }, { answered: false, written: false })
      assert.strictEqual(broken.lost, error)
      assert.deepStrictEqual(told, [error])
    })
  )
})
