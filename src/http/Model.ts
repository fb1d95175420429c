/**
 * What the health API says, as schemas: for its handlers, its OpenAPI document, its clients and the dashboard. Moments are
 * milliseconds since the epoch, shares from 0 to 1. Of what the program's own types call `undefined`, JSON says nothing.
 */
import * as Schema from "effect/Schema"

export const Count = Schema.NonNegativeInt
export const Millis = Schema.Number.annotations({ description: "Milliseconds" })
export const Moment = Schema.Number.annotations({ description: "Milliseconds since the epoch" })
const Share = Schema.Number.annotations({ description: "A share, from 0 to 1" })
/** JSON has no infinity, and writes null. */
export const OrInfinity = Schema.transform(Schema.NullOr(Schema.JsonNumber), Schema.Number, {
  strict: true,
  decode: (value) => value ?? Number.POSITIVE_INFINITY,
  encode: (value) => (Number.isFinite(value) ? value : null)
})

export const Status = Schema.Literal("healthy", "degraded", "unhealthy")
export const Severity = Schema.Literal("info", "warning", "critical")
export const BreakerState = Schema.Literal("Closed", "Open", "HalfOpen", "ForcedOpen", "ForcedClosed")
/** A tag of `PgError`. */
export const Tag = Schema.String.annotations({ description: "A tag of PgError, such as ConnectionError" })

export const PoolSnapshot = Schema.Struct({
  max: Count,
  min: Count,
  total: Count.annotations({ description: "Idle, used, quarantined and those being checked" }),
  idle: Count,
  used: Count,
  quarantined: Count.annotations({ description: "A cancelled statement is being settled, or a check is under way" }),
  leaked: Count.annotations({ description: "Held for too long by now" }),
  connecting: Count,
  waiting: Count.annotations({ description: "Fibers that wait for a connection" }),
  generation: Count,
  closing: Count
}).annotations({ identifier: "Pool" })

export const BreakerSnapshot = Schema.Struct({
  state: BreakerState,
  since: Moment,
  reason: Schema.String,
  generation: Count,
  failures: Count.annotations({ description: "Counted failures in the window of a closed circuit" }),
  successes: Count,
  probing: Count,
  waiting: Count,
  openedAt: Schema.optional(
    Moment.annotations({ description: "Since when calls are refused, failed probes included" })
  ),
  nextProbeAt: Schema.optional(Moment),
  trips: Count.annotations({ description: "How often it has opened by itself" }),
  cause: Schema.Array(Tag).annotations({ description: "The tags that opened an open circuit" })
}).annotations({ identifier: "Breaker" })

export const SlowOperation = Schema.Struct({
  operation: Schema.String.annotations({ description: "The name given by Operation.named, or else the SQL command" }),
  count: Count.annotations({ description: "Attempts that took over a second" }),
  averageMs: Millis.annotations({ description: "Of all its attempts in the window, in milliseconds" })
}).annotations({ identifier: "SlowOperation" })

export const Window = Schema.Struct({
  seconds: Schema.Number,
  operations: Count,
  perSecond: Schema.Number,
  errorRate: Share,
  errors: Schema.Record({ key: Schema.String, value: Count }).annotations({ description: "Failed attempts, by tag" }),
  averageQueryMs: Millis,
  p50Ms: Millis,
  p95Ms: Millis,
  p99Ms: Millis,
  slowQueries: Count,
  slowShare: Share,
  slowest: Schema.Array(SlowOperation).annotations({ description: "At most ten, those with most slow attempts first" }),
  waitMs: Millis.annotations({ description: "Average wait for a connection, in milliseconds" }),
  timeouts: Count,
  timeoutsPerMinute: Schema.Number,
  retries: Count,
  retryShare: Share,
  leaks: Count,
  openedPerMinute: Schema.Number
}).annotations({ identifier: "Window", description: "What happened in the window that ends with the check" })

export const Signals = Schema.Struct({
  probeOk: Schema.Boolean,
  pingMs: Schema.optional(Millis),
  queryMs: Schema.optional(Millis),
  total: Count,
  active: Count,
  idle: Count,
  waiting: Count,
  utilization: Share,
  waitMs: Millis,
  breaker: BreakerState,
  errorRate: Share,
  averageQueryMs: Millis,
  slowQueries: Count,
  slowShare: Share,
  timeoutsPerMinute: Schema.Number,
  retryShare: Share,
  leaks: Count
}).annotations({ identifier: "Signals", description: "What the score is made of" })

export const Deduction = Schema.Struct({
  signal: Schema.keyof(Signals),
  points: Schema.Int,
  why: Schema.String
}).annotations({ identifier: "Deduction", description: "What one signal cost" })

export const Probe = Schema.Union(
  Schema.Struct({ ok: Schema.Literal(true), pingMs: Millis, queryMs: Schema.optional(Millis) }),
  Schema.Struct({ ok: Schema.Literal(false), error: Schema.String, tag: Schema.optional(Tag), afterMs: Millis })
).annotations({ identifier: "Probe", description: "How the check's question was answered" })

export const Report = Schema.Struct({
  at: Moment,
  status: Status,
  score: Schema.Int,
  deductions: Schema.Array(Deduction),
  signals: Signals,
  probe: Probe,
  window: Window,
  pool: PoolSnapshot,
  breaker: BreakerSnapshot,
  breakerChanges: Count,
  trends: Schema.Struct({
    poolExhaustedIn: Schema.optional(Schema.Number.annotations({ description: "Seconds, if it goes on like this" })),
    pingDrift: Schema.optional(
      Schema.Number.annotations({ description: "How many times its earlier value the round trip is now" })
    ),
    storm: Schema.Boolean
  })
}).annotations({ identifier: "Report", description: "What one health check has found" })

export const Event = Schema.Union(
  Schema.TaggedStruct("StatusChange", {
    at: Moment,
    from: Status,
    to: Status,
    score: Schema.Int,
    why: Schema.Array(Schema.String)
  }),
  Schema.TaggedStruct("BreakerChange", {
    at: Moment,
    from: BreakerState,
    to: BreakerState,
    reason: Schema.String,
    cause: Schema.Array(Tag)
  }),
  Schema.TaggedStruct("ProbeFailed", { at: Moment, error: Schema.String }),
  Schema.TaggedStruct("ProbeRecovered", { at: Moment, downMs: Millis })
).annotations({ identifier: "Event" })

export const Alert = Schema.Struct({
  id: Schema.String,
  rule: Schema.String,
  severity: Severity,
  title: Schema.String,
  value: OrInfinity,
  threshold: Schema.Number,
  raisedAt: Moment
}).annotations({ identifier: "Alert" })

export const Notice = Schema.Union(
  Schema.TaggedStruct("Raised", { at: Moment, alert: Alert }),
  Schema.TaggedStruct("Resolved", { at: Moment, alert: Alert })
).annotations({ identifier: "Notice" })

/** This moment, and what happened since the tick before. */
export const Tick = Schema.Struct({
  at: Moment,
  pool: PoolSnapshot,
  breaker: BreakerSnapshot,
  inFlight: Count.annotations({ description: "Operations under way, those that wait included" }),
  seconds: Schema.Number.annotations({ description: "Since the tick before: what the other figures are taken over" }),
  operations: Count,
  perSecond: Schema.Number,
  errors: Schema.Record({ key: Schema.String, value: Count }),
  retries: Count,
  timeouts: Count,
  p50Ms: Millis,
  p95Ms: Millis,
  p99Ms: Millis,
  waitMs: Millis
}).annotations({ identifier: "Tick" })

/**
 * One message of the stream of events: `event` is its tag, `data` its JSON. `Hello` comes first, at every connection: all
 * that a newcomer has to know. Then a `Tick` a second, and whatever happens.
 */
export const Message = Schema.Union(
  Schema.TaggedStruct("Hello", {
    at: Moment,
    pool: Schema.String.annotations({ description: "The pool's name in the metrics" }),
    monitoring: Schema.Boolean.annotations({ description: "Whether checks are made at an interval" }),
    intervalMs: Schema.optional(Millis.annotations({ description: "Between two checks, in milliseconds" })),
    tick: Tick,
    reports: Schema.Array(Report).annotations({ description: "The latest reports, oldest first, at most 120" }),
    events: Schema.Array(Event).annotations({ description: "The latest events, oldest first, at most 100" }),
    alerts: Schema.Array(Alert).annotations({ description: "Those that stand" })
  }),
  Schema.TaggedStruct("Tick", { tick: Tick }),
  Schema.TaggedStruct("Report", { report: Report }),
  Schema.TaggedStruct("Event", { event: Event }),
  Schema.TaggedStruct("Notice", { notice: Notice })
).annotations({ identifier: "Message" })

export type Tick = typeof Tick.Type
export type Message = typeof Message.Type
