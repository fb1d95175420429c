/** The doctor on a primary and its standby. */
import { assert, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Doctor from "../../src/operations/Doctor.js"
import * as ResilientPg from "../../src/ResilientPg.js"
import * as Standby from "../chaos/history/standby.js"
import { eventually } from "../support/TestPg.js"

const examine = (server: { readonly url: ResilientPg.Options["url"] }, thresholds: Partial<Doctor.Thresholds> = {}) =>
  Effect.map(
    Effect.provide(Doctor.examine({ thresholds }), ResilientPg.layer({ url: server.url, maxConnections: 1 })),
    (report) => (check: string) =>
      report.findings
        .filter((finding) => finding.check === check)
        .map(({ found, severity, title }) => ({ found, severity, title }))
  )

it.scopedLive("tells a standby from its primary, and one that is behind from one that keeps up", () =>
  Effect.gen(function* () {
    const { primary, standby } = yield* Standby.make({ settings: { fsync: false } })
    assert.deepInclude((yield* examine(primary))("replicas"), {
      severity: "ok",
      title: "The standbys keep up",
      found: "1 standby connected."
    })
    assert.deepStrictEqual(
      (yield* examine(standby))("standby").map(({ severity, title }) => [severity, title]),
      [["info", "This is a standby"]]
    )

    yield* standby.query("SELECT pg_wal_replay_pause()")
    yield* primary.query("CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 1000)")
    const behind = { lagBytes: { warning: 1, critical: Number.POSITIVE_INFINITY } }
    const paused = (yield* examine(standby, behind))("standby")
    assert.strictEqual(paused[0]?.title, "The standby's replay is paused")
    yield* eventually(
      Effect.map(examine(primary, behind), (of) => of("replicas")[0]),
      (finding) => finding?.severity === "warning" && finding.found.startsWith("standby (streaming) has ")
    )

    yield* standby.query("SELECT pg_wal_replay_resume()")
    yield* primary.stop()
    yield* eventually(
      Effect.map(examine(standby), (of) => of("standby")[0]?.title),
      (title) => title === "The standby receives nothing"
    )
  })
)
