/** What the dashboards on a terminal make of what they are told. */
import { assert, describe, it } from "@effect/vitest"
import * as style from "../../src/operations/cli/internal/style.js"
import * as Database from "../../src/operations/internal/watch/database.js"
import * as Line from "../../src/operations/internal/watch/line.js"
import * as Service from "../../src/operations/internal/watch/service.js"

const row: Database.Row = {
  version: "18.1",
  database: "shop",
  all: true,
  standby: false,
  sessions: 12,
  max: 97,
  states: { idle: 8, active: 3, "idle in transaction": 1 },
  waiting: 0,
  longest: 42,
  commits: 1_000,
  rollbacks: 10,
  hits: 900,
  reads: 100,
  deadlocks: 0,
  replicas: 1,
  lag_bytes: 2_048
}
const seen = (at: number, changed: Partial<Database.Row> = {}): Database.Sample => ({
  _tag: "Seen",
  at,
  row: { ...row, ...changed }
})
const plain = (view: Line.View, width = 80) =>
  view.lines(width).map((line) => Line.render(line, style.make(false, width), width))

describe("a database on the terminal", () => {
  it("has rates from the second sample on, over the time between the two", () => {
    const first = Database.next(undefined, seen(1_000))
    assert.include(first, { commitsPerSecond: 0, hitShare: undefined })
    const second = Database.next(first, seen(3_000, { commits: 1_500, rollbacks: 12, hits: 990, reads: 110 }))
    assert.include(second, { commitsPerSecond: 250, rollbacksPerSecond: 1, hitShare: 0.9 })
    const text = plain(Database.view(second, "app@db:5432/shop")).join("\n")
    assert.include(text, "12 of 97, 12 %")
    assert.include(text, "active 3, idle in transaction 1, idle 8")
    assert.include(text, "250 committed/s, 1 rolled back/s")
    assert.include(text, "90.0 % of blocks read")
    assert.include(text, "42 seconds")
    assert.include(text, "1 connected, 2 KiB behind")
  })

  it("knows nothing of a time in which counters were reset, or the server was away", () => {
    const before = Database.next(undefined, seen(1_000))
    assert.include(Database.next(before, seen(2_000, { commits: 3, hits: 0 })), {
      commitsPerSecond: 0,
      hitShare: undefined
    })
    const lost = Database.next(before, { _tag: "Lost", at: 2_000, why: "nobody listens there" })
    assert.include(plain(Database.view(lost, "x")).join("\n"), "nobody listens there")
    assert.include(Database.next(lost, seen(9_000, { commits: 9_999 })), { commitsPerSecond: 0 })
  })

  it("does not show what the role may not see as if it were none", () => {
    const text = plain(Database.view(Database.next(undefined, seen(0, { all: false, longest: null })), "x")).join("\n")
    assert.include(text, "by state: only with pg_monitor")
    assert.match(text, /Longest +only with pg_monitor/)
  })

  it("fits any terminal", () => {
    const view = Database.view(Database.next(undefined, seen(0)), "app@a-rather-long-name.example.com:5432/shop")
    for (const width of [1, 20, 40, 200])
      for (const line of plain(view, width)) assert.isAtMost(Array.from(line).length, width)
  })
})

describe("a program on the terminal", () => {
  const pool = {
    max: 10,
    min: 0,
    total: 6,
    idle: 2,
    used: 4,
    quarantined: 0,
    leaked: 0,
    connecting: 0,
    waiting: 3,
    generation: 0,
    closing: 0
  }
  const breaker = {
    state: "Open" as const,
    since: 0,
    reason: "",
    generation: 1,
    failures: 0,
    successes: 0,
    probing: 0,
    waiting: 0,
    trips: 1,
    cause: []
  }
  const tick = {
    at: 1_000,
    pool,
    breaker,
    inFlight: 7,
    seconds: 1,
    operations: 120,
    perSecond: 120,
    errors: { ConnectionError: 2 },
    retries: 1,
    timeouts: 0,
    p50Ms: 1,
    p95Ms: 3,
    p99Ms: 9,
    waitMs: 0.5
  }
  const hello = {
    _tag: "Hello" as const,
    at: 1_000,
    pool: "shop",
    monitoring: true,
    tick,
    reports: [],
    events: [],
    alerts: []
  }
  const alert = {
    id: "1",
    rule: "breaker",
    severity: "critical" as const,
    title: "Circuit open",
    value: 1,
    threshold: 1,
    raisedAt: 500
  }

  it("shows what it has been told by now", () => {
    const state = [
      hello,
      { _tag: "Tick" as const, tick: { ...tick, at: 2_000 } },
      { _tag: "Notice" as const, notice: { _tag: "Raised" as const, at: 500, alert } },
      { _tag: "Event" as const, event: { _tag: "ProbeFailed" as const, at: 700, error: "gone\u001b[2J" } }
    ].reduce<Service.State>(Service.next, Service.initial)
    const text = plain(Service.view(state, "http://shop:9464")).join("\n")
    assert.include(text, "4 of 10 in use, 40 %")
    assert.include(text, "3 waiting")
    assert.match(text, /Breaker +Open/)
    assert.include(text, "120/s, 7 in flight, 2 errors")
    assert.include(text, "critical: Circuit open, since 00:00:00")
    assert.include(text, "00:00:00  health check failed: gone")
    assert.notInclude(text, "\u001b")
    const resolved = Service.next(state, { _tag: "Notice", notice: { _tag: "Resolved", at: 900, alert } })
    assert.match(plain(Service.view(resolved, "x")).join("\n"), /Alerts +none/)
  })

  it("says when it is lost, and forgets that when it is heard again", () => {
    const lost = Service.next(Service.next(Service.initial, hello), { _tag: "Lost", at: 3_000, why: "refused" })
    assert.include(Service.view(lost, "x").line, "no answer: refused")
    assert.isUndefined(Service.next(lost, hello).lost)
  })
})

describe("a line", () => {
  it("is cut to the width whatever is coloured in it", () => {
    const on = style.make(true, 80)
    assert.strictEqual(Line.render(["ab", ["red", "cdef"], "gh"], on, 4), "ab\u001b[31mcd\u001b[39m")
    assert.strictEqual(Line.render([["red", "ab"]], on, 0), "")
  })

  it("draws shares and series", () => {
    assert.strictEqual(Line.bar(0.5, 4), "██░░")
    assert.strictEqual(Line.bar(7, 4), "████")
    assert.strictEqual(Line.spark([0, 1, 8], 3), "▁▂█")
    assert.strictEqual(Line.spark([5, 0, 0], 2), "▁▁")
  })
})
