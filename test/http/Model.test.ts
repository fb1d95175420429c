import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import type * as Pool from "../../src/client/Pool.js"
import type * as Alerts from "../../src/health/Alerts.js"
import type * as HealthMonitor from "../../src/health/HealthMonitor.js"
import * as Model from "../../src/http/Model.js"
import type * as CircuitBreaker from "../../src/policy/CircuitBreaker.js"

/** What the program has fits what is said of it: judged by the compiler. */
type Fits<Said, Has extends Said> = Has
type Checked = [
  Fits<typeof Model.Report.Type, HealthMonitor.Report>,
  Fits<typeof Model.Event.Type, HealthMonitor.Event>,
  Fits<typeof Model.Notice.Type, Alerts.Notice>,
  Fits<typeof Model.PoolSnapshot.Type, Pool.Snapshot>,
  Fits<typeof Model.BreakerSnapshot.Type, CircuitBreaker.Snapshot>
]

describe("Model", () => {
  it("writes an infinite value of an alert as null, and reads it back", () => {
    const alert: Checked[2]["alert"] = {
      id: "pool-exhaustion-1",
      rule: "pool-exhaustion",
      severity: "info",
      title: "The pool will be exhausted in minutes",
      value: Number.POSITIVE_INFINITY,
      threshold: 300_000,
      raisedAt: 1
    }
    const text = Schema.encodeSync(Schema.parseJson(Model.Alert))(alert)
    assert.include(text, '"value":null')
    assert.deepStrictEqual(Schema.decodeUnknownSync(Schema.parseJson(Model.Alert))(text), alert)
  })
})
