/**
 * Every message of every kind of work, lost in every way; what was reported, against what the table holds:
 * acknowledged is stored once, `NotApplied` is absent, and `OutcomeUnknownError` is for COMMIT and autocommit writes alone.
 */
import { Cause, Effect, Exit, Option } from "effect"
import { Operation, type PgError, ResilientPg, RetryPolicy } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../../support/TestPg.js"
import * as Remains from "../remains.js"
import * as Fault from "./fault.js"
import * as Work from "./work.js"

export interface Case {
  readonly work: Work.Work
  readonly step: Work.Step
  readonly fault: Fault.Fault
}

export const casesOf = (work: Work.Work): ReadonlyArray<Case> =>
  work.steps.flatMap((step) =>
    Fault.faults.flatMap((fault) => (fault.perMessage || step.first ? [{ work, step, fault }] : []))
  )

const nameOf = ({ fault, step, work }: Case): string => `${work.name}, ${step.name}: ${fault.name}`

const quick = RetryPolicy.backoff({ retries: 5, first: "5 millis", factor: 2, cap: "50 millis" })

/** Milliseconds for what only a deadline ends, doubled where it came too soon. */
const silence = 250
/** For all others, who reach it only if they hang. */
const patience = 30_000

/** How the work ended, in the words of `Work.End`. */
const endOf = (exit: Exit.Exit<unknown, PgError.PgError | Work.Refused>): string =>
  Exit.match(exit, {
    onSuccess: () => "success",
    onFailure: (cause) =>
      Option.match(Cause.failureOption(cause), {
        onNone: () => `defect: ${Cause.pretty(cause)}`,
        onSome: (error) => {
          switch (error._tag) {
            case "Refused":
              return "refused"
            case "OutcomeUnknownError":
              return "unknown"
            case "ConnectionError":
            case "ServerUnavailableError":
              return error.outcome === "NotApplied" ? "lost" : "open"
            case "QueryTimeoutError":
              return error.outcome === "NotApplied" ? "timeout" : "open"
            default:
              return error._tag
          }
        }
      })
  })

/** Where nothing is heard, the deadline takes the place of whatever would have been learned from an answer. */
const expected = ({ fault, step }: Case): Work.End =>
  fault.silent ? (step.silent ?? (step.end === "lost" || step.end === "success" ? "timeout" : step.end)) : step.end

/** A wait for the ROLLBACK of a whole transaction ends by itself. */
const endsByDeadline = (theCase: Case): boolean => {
  const end = expected(theCase)
  return theCase.fault.silent && end !== "refused"
}

const judge = (theCase: Case, end: string, stored: ReadonlyMap<number, number>): ReadonlyArray<string> => {
  const wanted = Object.entries(theCase.work.stored)
  const whole = wanted.length === stored.size && wanted.every(([part, n]) => stored.get(Number(part)) === n)
  const possible = end === "success" ? whole : stored.size === 0 || (whole && (end === "unknown" || end === "open"))
  return [
    ...(end === expected(theCase) ? [] : [`ended with "${end}" instead of "${expected(theCase)}"`]),
    ...(possible ? [] : [`"${end}" was reported, and ${JSON.stringify([...stored])} is stored`])
  ]
}

/** One case, on a client and a database that have served others before; how it ended, in the words of `Work.End`. */
const one = ({ fault, step, work }: Case, id: string, database: string, deadline: number) =>
  Effect.gen(function* () {
    const proxy = yield* FaultProxy.FaultProxy
    // A connection that is known to work, so that the fault meets the work and not a check before it.
    yield* ResilientPg.ready()
    const count = yield* fault.arm(step.match(), database)
    const end = endOf(yield* Effect.exit(Operation.named("case", { timeout: deadline })(work.run(id))))
    // What was sent in the very moment of the deadline is still on its way.
    const times = yield* end === "timeout" ? count : TestPg.eventually(count, (times) => times > 0)
    yield* proxy.heal
    yield* TestPg.eventually(ResilientPg.pool, (pool) => pool.idle === pool.total && pool.connecting === 0)
    return { end, times }
  }).pipe(Effect.scoped)

const inTime = (theCase: Case, id: string, database: string, deadline: number): ReturnType<typeof one> =>
  Effect.flatMap(one(theCase, id, database, deadline), (result) =>
    result.end === "timeout" && result.times === 0 && deadline < patience
      ? inTime(theCase, id, database, deadline * 2)
      : Effect.succeed(result)
  )

/** All of one work's cases, one after the other, each on what the one before has left. Violations in words. */
const run = (cases: ReadonlyArray<Case>, onCase: () => void) =>
  Effect.gen(function* () {
    const { config } = yield* EmbeddedPostgres.EmbeddedPostgres
    const database = yield* TestPg.database
    yield* TestPg.control(Work.table, [], database.url)
    yield* TestPg.control(
      "INSERT INTO steps SELECT id::text, 0, 0 FROM generate_series(0, $1::int - 1) id",
      [cases.length],
      database.url
    )
    return yield* Effect.gen(function* () {
      const proxy = yield* FaultProxy.FaultProxy
      const layer = ResilientPg.layer({
        url: proxy.url(database.url),
        maxConnections: 2,
        idleTimeout: "infinity",
        retry: RetryPolicy.make(RetryPolicy.whileUnavailable(quick)),
        // Faults without end are no reason here to leave the server alone.
        breaker: { failureThreshold: "infinity" }
      })
      const ends = yield* Effect.forEach(cases, (theCase, i) =>
        Effect.tap(inTime(theCase, String(i), database.name, endsByDeadline(theCase) ? silence : patience), () =>
          Effect.sync(onCase)
        )
      ).pipe(
        Effect.flatMap((ends) => Effect.map(Remains.whole(database.name), (violations) => ({ ends, violations }))),
        Effect.provide(layer)
      )
      const stored = Array.from(cases, () => new Map<number, number>())
      for (const { id, n, part } of yield* TestPg.control<{ id: string; part: number; n: number }>(
        "SELECT id, part, sum(n)::int AS n FROM steps GROUP BY id, part HAVING sum(n) > 0",
        [],
        database.url
      )) {
        stored[Number(id)]?.set(part, n)
      }
      return [
        ...ends.violations,
        ...(yield* Remains.nothing(database.name)),
        ...cases.flatMap((theCase, i) => {
          const { end, times } = ends.ends[i]!
          const found = judge(theCase, end, stored[i]!)
          const all = times === 1 ? found : [`the fault happened ${times} times`, ...found]
          return all.map((violation) => `${nameOf(theCase)}: ${violation}`)
        })
      ]
    }).pipe(Effect.provide(FaultProxy.layer({ upstream: config })))
  }).pipe(Effect.scoped)

/** Every case, each kind of work with a database and a network of its own. Violations in words. */
export const ways = Fault.faults.length

export const all = (onCase: () => void = () => {}) =>
  Effect.map(
    Effect.forEach(Work.works, (work) => run(casesOf(work), onCase), { concurrency: "unbounded" }),
    (violations) => violations.flat()
  )
