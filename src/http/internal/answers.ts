/** What the endpoints answer, beside what Model.ts says. Failures are errors of their own, with the status that they have. */
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as Schema from "effect/Schema"
import * as Model from "../Model.js"

const Limit = Model.OrInfinity.annotations({ description: "Milliseconds; null for no limit" })

export const Live = Schema.Struct({ status: Schema.Literal("live") }).annotations({ identifier: "Live" })

const judgement = {
  status: Model.Status,
  score: Schema.Int.annotations({ description: "From 0 to 100" }),
  at: Model.Moment,
  reasons: Schema.Array(Schema.String).annotations({ description: "What cost points, the dearest first" })
}

export const Health = Schema.Struct(judgement).annotations({ identifier: "Health" })

export class Unhealthy extends Schema.TaggedError<Unhealthy>()(
  "Unhealthy",
  judgement,
  HttpApiSchema.annotations({ status: 503, description: "The database is unhealthy, or does not answer" })
) {}

export const Ready = Schema.Struct({ status: Schema.Literal("ready"), at: Model.Moment }).annotations({
  identifier: "Ready"
})

export class NotReady extends Schema.TaggedError<NotReady>()(
  "NotReady",
  {
    at: Model.Moment,
    reason: Schema.String.annotations({ description: "A tag of PgError, or NoAnswer" })
  },
  HttpApiSchema.annotations({ status: 503, description: "The last health check failed, or none has ended yet" })
) {}

export const Budget = Schema.Struct({
  inFlight: Model.Count.annotations({ description: "Operations under way, those that wait included" }),
  retrying: Model.Count,
  allowed: Model.OrInfinity.annotations({ description: "Retries that may be under way at once; null for any number" })
}).annotations({ identifier: "Budget", description: "The retry budget" })

export const Metrics = Schema.Struct({
  at: Model.Moment,
  name: Schema.String.annotations({ description: "The pool's name in the metrics" }),
  pool: Model.PoolSnapshot,
  breaker: Model.BreakerSnapshot,
  budget: Budget,
  subscribers: Model.Count.annotations({ description: "Streams of events that are open" }),
  window: Schema.optional(Model.Window).annotations({ description: "That of the latest health check" }),
  windowEndedAt: Schema.optional(Model.Moment)
}).annotations({ identifier: "Metrics" })

export const Standing = Schema.Struct({
  report: Schema.optional(Model.Report).annotations({ description: "The latest; missing until a check has ended" }),
  alerts: Schema.Array(Model.Alert)
}).annotations({ identifier: "Standing", description: "The latest health check, and the alerts that stand" })

export const Summary = Schema.Struct({
  at: Model.Moment,
  name: Schema.String.annotations({ description: "The pool's name in the metrics" }),
  report: Schema.optional(Model.Report),
  alerts: Schema.Array(Model.Alert),
  events: Schema.Array(Model.Event).annotations({ description: "The latest, oldest first, at most twenty" }),
  checks: Schema.Struct({
    count: Model.Count,
    failed: Model.Count,
    since: Schema.optional(Model.Moment),
    lowestScore: Schema.optional(Schema.Int)
  }).annotations({ description: "The health checks that are remembered" })
}).annotations({ identifier: "Summary" })
export type Summary = typeof Summary.Type

export class NotAcceptable extends Schema.TaggedError<NotAcceptable>()(
  "NotAcceptable",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 406, description: "Neither text/plain nor application/json is accepted" })
) {}

/** What the server says of its own limits. */
export const Server = Schema.Struct({
  maxConnections: Model.Count,
  reserved: Model.Count.annotations({ description: "Kept by the server for superusers and for roles with privileges" })
}).annotations({ identifier: "Server" })

export const PoolConfig = Schema.Struct({
  name: Schema.String.annotations({ description: "The pool's name in the metrics" }),
  current: Schema.Struct({
    minConnections: Model.Count,
    maxConnections: Model.Count,
    maxWaiting: Model.OrInfinity,
    maxUses: Model.OrInfinity,
    acquireTimeout: Limit,
    connectTimeout: Limit,
    idleTimeout: Limit,
    connectionTTL: Limit,
    checkAfterIdle: Limit,
    closeGrace: Limit,
    leakThreshold: Limit
  }).annotations({ description: "Times in milliseconds; null for no limit" }),
  platform: Schema.String,
  environment: Schema.String,
  server: Schema.optional(Server).annotations({ description: "Missing where the server could not be asked" }),
  recommended: Schema.Struct({
    minConnections: Model.Count,
    maxConnections: Model.Count,
    limitedBy: Schema.Literal("demand", "server", "cores"),
    reasons: Schema.Array(Schema.String),
    warnings: Schema.Array(Schema.String)
  }),
  differences: Schema.Array(
    Schema.Struct({
      option: Schema.String,
      current: Model.OrInfinity,
      recommended: Model.OrInfinity,
      why: Schema.String
    })
  )
}).annotations({ identifier: "PoolConfig" })
export type PoolConfig = typeof PoolConfig.Type

export const Connection = Schema.Struct({
  at: Model.Moment,
  latencyMs: Model.Millis.annotations({ description: "One round trip, in milliseconds" }),
  version: Schema.String,
  tls: Schema.Boolean.annotations({
    description: "Between the server and whoever connects to it: a pooler, if there is one"
  }),
  inRecovery: Schema.Boolean.annotations({ description: "A standby, or a server that replays its log" }),
  readOnly: Schema.Boolean,
  connections: Model.Count.annotations({ description: "To all databases of the server" }),
  maxConnections: Model.Count,
  reserved: Model.Count
}).annotations({ identifier: "Connection" })
export type Connection = typeof Connection.Type

export class ConnectionFailed extends Schema.TaggedError<ConnectionFailed>()(
  "ConnectionFailed",
  { at: Model.Moment, error: Model.Tag, message: Schema.String, afterMs: Model.Millis },
  HttpApiSchema.annotations({ status: 503, description: "The database did not answer" })
) {}

export class TooManySubscribers extends Schema.TaggedError<TooManySubscribers>()(
  "TooManySubscribers",
  { retryAfter: Schema.Int.annotations({ description: "Seconds" }) },
  HttpApiSchema.annotations({ status: 503, description: "As many streams are open as there may be" })
) {}
