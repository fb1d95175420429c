/** What the doctor makes of facts: the edges that no test wants to wait for on a real server. */
import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { fold, table } from "../../src/operations/cli/internal/style.js"
import * as Doctor from "../../src/operations/Doctor.js"
import { size, span } from "../../src/operations/internal/doctor/check.js"
import { type Change, examined, type Settings, settingsWith, worth } from "./doctorFacts.js"

const gibibyte = 2 ** 30
const set = (settings: Settings): Change => ({ subjects: { settings: settingsWith(settings) } })
const advice = (change: Change, check: string) =>
  examined(change)
    .findings.filter((finding) => finding.check === check)
    .map((finding) => finding.advice)

const session = {
  pid: 11,
  database: "app",
  role: "shop",
  application: "worker",
  state: "active",
  transaction_seconds: 0,
  state_seconds: 0,
  lock_seconds: null as number | null,
  blocked_by: []
}

describe("the doctor's judgement", () => {
  it("is that all is in order where it is, with every check made and nothing to do", () => {
    const report = examined()
    assert.deepStrictEqual(worth(), [])
    assert.strictEqual(report.worst, "ok")
    assert.deepStrictEqual(report.notChecked, [])
    assert.sameMembers([...new Set(report.findings.map(({ check }) => check))], [...Doctor.checks])
    for (const { advice } of report.findings) assert.strictEqual(advice, "")
  })

  it.each<[string, Settings, string]>([
    ["fsync", { fsync: "off" }, "critical fsync"],
    ["full_page_writes", { full_page_writes: "off" }, "critical full-page-writes"],
    ["synchronous_commit", { synchronous_commit: "off" }, "warning synchronous-commit"],
    ["autovacuum", { autovacuum: "off" }, "critical autovacuum"],
    ["track_counts", { track_counts: "off" }, "critical autovacuum"],
    [
      "idle_in_transaction_session_timeout",
      { idle_in_transaction_session_timeout: "0" },
      "warning idle-in-transaction-timeout"
    ],
    ["statement_timeout", { statement_timeout: "0" }, "info timeouts"],
    ["lock_timeout", { lock_timeout: "0" }, "info timeouts"],
    ["default_transaction_read_only", { default_transaction_read_only: "on" }, "warning read-only"],
    ["tcp_keepalives_idle", { tcp_keepalives_idle: "301" }, "info tcp-keepalives"],
    ["wal_level", { wal_level: "minimal", archive_mode: "off" }, "warning wal"],
    ["archive_mode", { archive_mode: "off" }, "info wal"],
    ["data_checksums", { data_checksums: "off" }, "info checksums"],
    ["password_encryption", { password_encryption: "md5" }, "warning password-encryption"],
    ["log_lock_waits", { log_lock_waits: "off" }, "info log-lock-waits"],
    ["track_io_timing", { track_io_timing: "off" }, "info track-io-timing"],
    ["superuser_reserved_connections", { superuser_reserved_connections: "0" }, "warning reserved"]
  ])("notices %s", (name, settings, expected) => {
    assert.deepStrictEqual(worth(set(settings)), [expected])
    const [what] = advice(set(settings), expected.split(" ")[1]!)
    if (!["data_checksums", "archive_mode"].includes(name)) assert.include(what, name)
  })

  it("says where a setting comes from, because ALTER SYSTEM does not change one that is nearer", () => {
    const from = (source: string) =>
      advice(
        {
          subjects: {
            settings: new Map([
              ...settingsWith(),
              ["synchronous_commit", { name: "synchronous_commit", setting: "off", source }]
            ])
          }
        },
        "synchronous-commit"
      )[0]
    assert.include(from("configuration file"), "ALTER SYSTEM SET synchronous_commit = on")
    assert.include(from("user"), "ALTER ROLE … RESET synchronous_commit")
    assert.include(from("database"), "ALTER DATABASE … RESET synchronous_commit")
    assert.include(from("client"), "take synchronous_commit out of its parameters")
  })

  it("does not pass over a setting that it cannot see", () => {
    const settings = new Map(settingsWith())
    settings.delete("fsync")
    assert.deepStrictEqual(examined({ subjects: { settings } }).notChecked, [
      { check: "fsync", why: "this server does not show fsync" }
    ])
  })

  it("makes no check of what is not known, and says why", () => {
    const { findings, notChecked } = examined({ unknown: { sessions: "no right", settings: "no idea" } })
    const unmade = notChecked.map(({ check }) => check)
    assert.includeMembers(unmade, ["blocked", "idle-in-transaction", "fsync", "pool", "idle-sessions"])
    assert.deepInclude(notChecked, { check: "blocked", why: "no right" })
    for (const { check } of findings) assert.notInclude(unmade, check)
  })

  it("knows until when a version is maintained", () => {
    const of = (version_number: number) => worth({ server: { version_number } })
    assert.deepStrictEqual(of(180_000), [])
    assert.deepStrictEqual(of(140_000), ["info version"]) // until November
    assert.deepStrictEqual(of(130_000), ["warning version"])
    assert.deepStrictEqual(of(90_600), ["warning version"])
    assert.deepStrictEqual(of(990_000), []) // of the future nothing is known
  })

  it("minds an unencrypted way by what is on it", () => {
    const to = (address: string | null) => worth({ introduction: { tls: null, address } })
    assert.deepStrictEqual(to("203.0.113.5"), ["warning tls"])
    for (const address of ["10.1.2.3", "172.16.0.1", "192.168.1.1", "fd12::1"])
      assert.deepStrictEqual(to(address), ["info tls"], address)
    for (const address of [null, "127.0.0.1", "::1", "::ffff:127.0.0.1"]) assert.deepStrictEqual(to(address), [])
    assert.deepStrictEqual(to("172.32.0.1"), ["warning tls"])
  })

  it("minds encodings, distances and poolers", () => {
    assert.deepStrictEqual(worth({ server: { server_encoding: "SQL_ASCII" } }), ["warning encoding"])
    assert.deepStrictEqual(worth({ server: { server_encoding: "LATIN1" } }), ["info encoding"])
    assert.deepStrictEqual(worth({ server: { client_encoding: "LATIN1" } }), ["warning encoding"])
    assert.deepStrictEqual(worth({ introduction: { roundTripMs: 99 } }), [])
    assert.deepStrictEqual(worth({ introduction: { roundTripMs: 100 } }), ["warning connectivity"])
    assert.deepStrictEqual(worth({ introduction: { roundTripMs: 1_000 } }), ["critical connectivity"])
    assert.deepStrictEqual(worth({ introduction: { connectMs: 1_000 } }), ["warning connectivity"])
    assert.deepStrictEqual(worth({ introduction: { pooler: true } }), ["info pooler"])
  })

  it("compares the pools of all instances with what the server, the role and the database allow", () => {
    const pools = (maxConnections: number, instances: number, limits = {}) =>
      worth({
        program: { maxConnections, instances },
        subjects: {
          connections: { sessions: 1, role_limit: -1, database_limit: -1, ...limits }
        }
      })
    // 97 are there for ordinary roles; each instance has two beside its pool.
    assert.deepStrictEqual(pools(46, 1), [])
    assert.deepStrictEqual(pools(47, 1), ["info pool"]) // twice that is more than there is
    assert.deepStrictEqual(pools(76, 1), ["warning pool"])
    assert.deepStrictEqual(pools(95, 1), ["critical pool"])
    assert.deepStrictEqual(pools(10, 9), ["critical pool"])
    assert.deepStrictEqual(pools(10, 1, { role_limit: 12 }), ["critical pool"])
    assert.deepStrictEqual(pools(10, 1, { database_limit: 0 }), ["critical pool"])
    const [what] = advice({ program: { maxConnections: 50, instances: 4 } }, "pool")
    assert.include(what, "`maxConnections` (DB_POOL_MAX) to 10")
    assert.include(what, "97 connections for 4 instances")
  })

  it("minds how many connections are taken", () => {
    const taken = (sessions: number) =>
      worth({
        subjects: {
          connections: { sessions, role_limit: -1, database_limit: -1 }
        }
      })
    assert.deepStrictEqual(taken(77), [])
    assert.deepStrictEqual(taken(78), ["warning connections"])
    assert.deepStrictEqual(taken(93), ["critical connections"])
  })

  it("minds a standby that is behind, paused, or receives nothing, and says what role the server has", () => {
    const standby = (state: Partial<(typeof steady)["standby"]>) =>
      worth({ server: { standby: true }, subjects: { standby: { ...steady.standby, ...state } } })
    const steady = { standby: { receiving: true, paused: false, lag_bytes: 0, lag_seconds: 0 } }
    assert.deepStrictEqual(standby({}), ["info standby"])
    assert.deepStrictEqual(standby({ lag_seconds: 30 }), ["warning standby", "info standby"])
    assert.deepStrictEqual(standby({ lag_bytes: gibibyte }), ["critical standby", "info standby"])
    assert.deepStrictEqual(standby({ paused: true }), ["warning standby", "info standby"])
    assert.deepStrictEqual(standby({ receiving: false }), ["warning standby", "info standby"])
  })

  it("minds standbys that follow from afar, and those that commits wait for in vain", () => {
    const replica = { name: "two", state: "streaming", synchronous: "async", lag_bytes: 0, lag_seconds: 0 }
    assert.deepStrictEqual(worth({ subjects: { replicas: [replica] } }), [])
    assert.deepStrictEqual(worth({ subjects: { replicas: [{ ...replica, lag_bytes: 2 ** 26 }] } }), [
      "warning replicas"
    ])
    const settings = settingsWith({ synchronous_standby_names: "FIRST 1 (two)" })
    assert.deepStrictEqual(worth({ subjects: { settings, replicas: [replica] } }), ["critical replicas"])
    assert.deepStrictEqual(worth({ subjects: { settings, replicas: [{ ...replica, synchronous: "sync" }] } }), [])
  })

  it("minds slots: without a consumer, far behind, and lost", () => {
    const slot = { name: "s", command: "'s'", type: "logical", active: true, wal_status: "reserved", kept_bytes: 0 }
    const slots = (changed: Partial<typeof slot>) => worth({ subjects: { slots: [{ ...slot, ...changed }] } })
    assert.deepStrictEqual(slots({}), [])
    assert.deepStrictEqual(slots({ active: false }), ["warning replication-slots"])
    assert.deepStrictEqual(slots({ active: false, kept_bytes: 10 * gibibyte }), ["critical replication-slots"])
    assert.deepStrictEqual(slots({ kept_bytes: gibibyte }), ["warning replication-slots"])
    assert.deepStrictEqual(slots({ wal_status: "lost" }), ["critical replication-slots"])
    assert.include(
      advice({ subjects: { slots: [{ ...slot, active: false }] } }, "replication-slots")[0],
      "SELECT pg_drop_replication_slot('s')"
    )
  })

  it("finds who is at the head of a queue for a lock, and who waits in a circle is not followed for ever", () => {
    const waiting = (pid: number, blocked_by: ReadonlyArray<number>) => ({
      ...session,
      pid,
      state_seconds: 900,
      lock_seconds: 20,
      blocked_by
    })
    const head = { ...session, pid: 1, state: "idle in transaction", state_seconds: 5 }
    const sessions = [head, waiting(2, [1]), waiting(3, [2])]
    const found = examined({ subjects: { sessions } }).findings.filter(({ check }) => check === "blocked")
    assert.lengthOf(found, 2)
    for (const { advice, found: what } of found) {
      assert.include(what, "pid 1 (")
      assert.include(advice, "SELECT pg_terminate_backend(1)")
    }
    assert.deepStrictEqual(worth({ subjects: { sessions: [waiting(4, [5]), waiting(5, [4])] } }), [
      "warning blocked",
      "warning blocked"
    ])
    assert.include(advice({ subjects: { sessions: [waiting(6, [0])] } }, "blocked")[0], "COMMIT PREPARED")
  })

  it("tells ten of a kind, and the rest as a number", () => {
    const sessions = Array.from({ length: 25 }, (_, pid) => ({ ...session, pid, transaction_seconds: 400 }))
    const found = examined({ subjects: { sessions } }).findings.filter(({ check }) => check === "long-transactions")
    assert.lengthOf(found, 11)
    assert.include(found.at(-1)!.found, "15 more")
  })

  it("minds transaction ids, damaged pages, deadlocks and spills", () => {
    assert.deepStrictEqual(worth({ subjects: { ages: [{ database: "a", transactions: 5e8, multixacts: 0 }] } }), [
      "warning wraparound"
    ])
    assert.deepStrictEqual(worth({ subjects: { ages: [{ database: "a", transactions: 0, multixacts: 1.5e9 }] } }), [
      "critical wraparound"
    ])
    const statistics = {
      deadlocks: 0,
      temporary_files: 0,
      temporary_bytes: 0,
      since_seconds: null,
      checksum_failures: null,
      bytes: 1
    }
    assert.deepStrictEqual(worth({ subjects: { statistics: { ...statistics, checksum_failures: 1 } } }), [
      "critical checksums"
    ])
    assert.deepStrictEqual(worth({ subjects: { statistics: { ...statistics, deadlocks: 3 } } }), ["info usage"])
    assert.deepStrictEqual(worth({ subjects: { statistics: { ...statistics, temporary_bytes: 10 * gibibyte } } }), [
      "info usage"
    ])
  })

  it("tells an index that a failed rebuild left behind from one that may be rebuilt", () => {
    const index = { index: "public.orders_at", table: "public.orders", unique: false, partitioned: false, busy: false }
    const of = (changed: Partial<typeof index>) =>
      advice({ subjects: { indexes: [{ ...index, ...changed }] } }, "invalid-indexes")[0]
    assert.include(of({}), "REINDEX INDEX CONCURRENTLY public.orders_at")
    assert.include(of({ unique: true }), "Remove what is there twice")
    assert.match(
      of({ index: "public.orders_at_ccnew" })!,
      /left it behind: DROP INDEX CONCURRENTLY public\.orders_at_ccnew/
    )
    assert.match(of({ index: 'public."Orders_ccold1"' })!, /left it behind/)
    assert.include(of({ partitioned: true }), "ATTACH PARTITION")
    assert.deepStrictEqual(worth({ subjects: { indexes: [{ ...index, busy: true }] } }), ["info invalid-indexes"])
  })

  it("is data that survives JSON, and its lines stay lines whatever names the database has", () => {
    const report = examined({
      subjects: { sessions: [{ ...session, application: "a\u001b[2Jb\nc", transaction_seconds: 4_000 }] }
    })
    const again = Schema.decodeUnknownSync(Doctor.Report)(JSON.parse(JSON.stringify(report)))
    assert.deepStrictEqual(again, report)
    assert.strictEqual(report.worst, "critical")
    for (const { found } of report.findings) assert.notMatch(found, /\p{C}/u)
  })
})

describe("words and figures", () => {
  it("are as people say them", () => {
    assert.deepStrictEqual([0, 1_023, 1_024, 1_536, 2 ** 24, 3.2 * gibibyte].map(size), [
      "0 bytes",
      "1023 bytes",
      "1 KiB",
      "1.5 KiB",
      "16 MiB",
      "3.2 GiB"
    ])
    assert.deepStrictEqual([0.25, 1, 90, 600, 7_200, 260_000].map(span), [
      "250 ms",
      "1 second",
      "90 seconds",
      "10 minutes",
      "2 hours",
      "3 days"
    ])
  })

  it("fit the terminal", () => {
    assert.deepStrictEqual(fold("one two three four", 11, "  "), ["  one two", "  three", "  four"])
    assert.deepStrictEqual(fold("unbreakable", 4), ["unbreakable"])
    assert.deepStrictEqual(
      table([
        ["name", "ms"],
        ["a", "5"],
        ["longer", "12"]
      ]),
      ["name    ms", "a        5", "longer  12"]
    )
  })
})
