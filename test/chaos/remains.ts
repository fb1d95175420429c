/** What must be whole when nothing is at work any more, and gone when the layer is: counted on both sides of the wire. */
import { Cause, Effect } from "effect"
import { ResilientPg } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"

/** Polls; a violation in words if it never comes to pass. */
const must = <A, E, R>(what: string, self: Effect.Effect<A, E, R>, predicate: (value: A) => boolean) =>
  TestPg.eventually(self, predicate, { message: what }).pipe(
    Effect.as([]),
    Effect.catchAllCause((cause) => Effect.succeed([(Cause.squash(cause) as Error).message]))
  )

/** A count that must come down to zero. */
export const settled = <A, E, R>(what: string, self: Effect.Effect<A, E, R>, count: (value: A) => number) =>
  must(`${what} did not all come back`, self, (value) => count(value) === 0)

const backends = (database: string) =>
  Effect.flatMap(EmbeddedPostgres.EmbeddedPostgres, (server) =>
    Effect.map(server.backends, (all) => all.filter((backend) => backend.database === database))
  )

/** Every connection idle, in no transaction, and known to the pool, the proxy and the server alike. */
export const whole = (database: string) =>
  must(
    "the pool is not whole",
    Effect.all({
      pool: ResilientPg.pool,
      server: backends(database),
      sockets: Effect.map(
        Effect.flatMap(FaultProxy.FaultProxy, ({ stats }) => stats),
        ({ open }) => open
      )
    }),
    ({ pool, server, sockets }) =>
      pool.idle + pool.used === pool.total &&
      pool.used + pool.quarantined + pool.connecting + pool.waiting + pool.closing === 0 &&
      pool.total <= pool.max &&
      server.length === pool.total &&
      server.every(({ state }) => state === "idle") &&
      sockets === pool.total
  )

/** Neither socket nor server session. */
export const nothing = (database: string) =>
  must(
    "connections stayed",
    Effect.all({
      server: backends(database),
      sockets: Effect.map(
        Effect.flatMap(FaultProxy.FaultProxy, ({ stats }) => stats),
        ({ open }) => open
      )
    }),
    ({ server, sockets }) => server.length + sockets === 0
  )
