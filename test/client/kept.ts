/** A table that tests write to, and what is stored in it as somebody else sees it, past the client and any proxy. */
import { Array as Arr, Effect } from "effect"
import { type ResilientPg, Transaction } from "effect-pg-resilience"
import * as TestPg from "../support/TestPg.js"
import { clientOf, proxied } from "./support.js"

/** An empty table `kept` in a database of its own, and the numbers in it. */
const table = Effect.gen(function* () {
  const { url } = yield* TestPg.database
  yield* TestPg.control("CREATE TABLE kept (n int PRIMARY KEY, value int NOT NULL DEFAULT 0)", [], url)
  const kept = Effect.map(
    TestPg.control<{ n: number }>("SELECT n FROM kept ORDER BY n", [], url),
    Arr.map(({ n }) => n)
  )
  return { kept, url }
})

const clientOn = (options: ResilientPg.Options) =>
  Effect.map(clientOf(options), (client) => ({
    ...client,
    insert: (n: number) => client.sql`INSERT INTO kept (n) VALUES (${n})`,
    run: <A, E, R>(effect: Effect.Effect<A, E, R>, options?: Transaction.Options) =>
      Effect.provide(Transaction.run(effect, options), client.context)
  }))

/** The table and a client on it. */
export const keeping = (options: ResilientPg.Options = {}) =>
  Effect.gen(function* () {
    const { kept, url } = yield* table
    return { ...(yield* clientOn({ url, ...options })), kept, url }
  })

/** The table and a client that gets to it through a proxy. `url` leads past that. */
export const keepingThroughProxy = (options: ResilientPg.Options = {}) =>
  Effect.gen(function* () {
    const { kept, url } = yield* table
    const { proxy } = yield* proxied
    return { ...(yield* clientOn({ url: proxy.url(url), ...options })), kept, proxy, url }
  })

/** A deferred trigger that keeps the COMMIT of an insert at work on the server while somebody has this advisory lock. */
export const commitWaitsFor = (key: number) => `
  CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pg_advisory_xact_lock(${key}); RETURN NULL; END';
  CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON kept DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION wait()`
