/** What decides about backups, without a server. */
import { assert, describe, it } from "@effect/vitest"
import { Either, FastCheck as fc, Option, Redacted } from "effect"
import * as archive from "../../src/operations/internal/backup/archive.js"
import * as content from "../../src/operations/internal/backup/content.js"
import * as lock from "../../src/operations/internal/backup/lock.js"
import { nameOf } from "../../src/operations/internal/backup/manifest.js"
import * as options from "../../src/operations/internal/backup/options.js"
import * as progress from "../../src/operations/internal/backup/progress.js"
import * as recovery from "../../src/operations/internal/backup/recovery.js"
import * as retention from "../../src/operations/internal/backup/retention.js"
import * as target from "../../src/operations/internal/backup/target.js"
import * as tools from "../../src/operations/internal/backup/tools.js"
import * as wal from "../../src/operations/internal/backup/wal.js"

const none = { keepLast: 0, keepDaily: 0, keepWeekly: 0, keepMonthly: 0 }

describe("retention", () => {
  const candidates = fc.uniqueArray(
    fc.record({
      name: fc.uuid(),
      subject: fc.constantFrom("shop", "crm"),
      at: fc.integer({ min: Date.UTC(2025, 0, 1), max: Date.UTC(2026, 11, 31) }),
      good: fc.boolean(),
      inUse: fc.boolean()
    }),
    { selector: ({ name }) => name, maxLength: 40 }
  )
  const rule = fc.integer({ min: 0, max: 5 })
  const rules = fc.record({ keepLast: rule, keepDaily: rule, keepWeekly: rule, keepMonthly: rule })

  it("never removes the newest good backup of a database, nor one in use, whatever the rules are", () =>
    fc.assert(
      fc.property(candidates, rules, (all, rules) => {
        const decisions = retention.decide(all, rules)
        assert.sameMembers(
          decisions.map(({ name }) => name),
          all.map(({ name }) => name)
        )
        const kept = new Set(decisions.filter(({ keep }) => keep).map(({ name }) => name))
        for (const subject of ["shop", "crm"]) {
          const good = all.filter((_) => _.subject === subject && _.good)
          const newest = Math.max(...good.map(({ at }) => at))
          if (good.length > 0) assert.isTrue(good.some(({ at, name }) => at === newest && kept.has(name)))
          // and when there is no good one, none of the bad ones, which are then all there is
          else for (const { name, subject: of } of all) if (of === subject) assert.isTrue(kept.has(name))
        }
        for (const { inUse, name } of all) if (inUse) assert.isTrue(kept.has(name))
      })
    ))

  it("keeps no more than the rules say, and with more generous ones no less", () =>
    fc.assert(
      fc.property(candidates, rules, (all, rules) => {
        const unused = all.map((one) => ({ ...one, good: true, inUse: false }))
        const kept = (with_: retention.Retention) =>
          retention.decide(unused, with_).flatMap(({ keep, name }) => (keep ? [name] : []))
        const subjects = new Set(all.map(({ subject }) => subject)).size
        const most = rules.keepLast + rules.keepDaily + rules.keepWeekly + rules.keepMonthly
        assert.isAtMost(kept(rules).length, subjects * Math.max(1, most))
        assert.includeMembers(kept({ ...rules, keepDaily: rules.keepDaily + 1 }), kept(rules))
      })
    ))

  it("keeps the newest of each day, week and month, and says why", () => {
    const at = (iso: string, more: Partial<retention.Candidate> = {}) => ({
      ...{ name: iso, subject: "shop", at: Date.parse(`${iso}Z`), good: true, inUse: false },
      ...more
    })
    const all = [
      at("2026-11-30T02:00"),
      at("2026-11-30T01:00"),
      at("2026-11-29T02:00"),
      at("2026-11-29T03:00", { good: false }),
      at("2026-11-28T02:00"),
      at("2026-10-31T02:00"),
      at("2025-12-31T02:00")
    ]
    const reasons = (rules: Partial<retention.Retention>) =>
      Object.fromEntries(
        retention
          .decide(all, { ...none, ...rules })
          .flatMap(({ name, reasons }) => (reasons.length > 0 ? [[name, reasons.join()]] : []))
      )
    assert.deepEqual(reasons({ keepDaily: 2 }), {
      "2026-11-30T02:00": "daily 2026-11-30,newest",
      "2026-11-29T02:00": "daily 2026-11-29"
    })
    // 30 November 2026 is a Monday
    assert.deepEqual(reasons({ keepWeekly: 2 }), {
      "2026-11-30T02:00": "weekly 2026-W49,newest",
      "2026-11-29T02:00": "weekly 2026-W48"
    })
    assert.deepEqual(reasons({ keepMonthly: 9 }), {
      "2026-11-30T02:00": "monthly 2026-11,newest",
      "2026-10-31T02:00": "monthly 2026-10",
      "2025-12-31T02:00": "monthly 2025-12"
    })
    assert.deepEqual(Object.keys(reasons({ keepLast: 2 })), ["2026-11-30T02:00", "2026-11-30T01:00"])
    // by ISO 8601 the 31st of December 2025, a Wednesday, lies in the first week of 2026
    const [old] = retention.decide([at("2025-12-31T02:00")], { ...none, keepWeekly: 1 })
    assert.deepEqual(old!.reasons, ["weekly 2026-W01", "newest"])
    assert.strictEqual(new Date(Date.parse("2026-11-30T00:00Z")).getUTCDay(), 1)
  })
})

describe("a write-ahead log", () => {
  it("has its positions in files, whose names count on without a gap", () =>
    fc.assert(
      fc.property(
        fc.bigInt({ min: 0n, max: 1n << 63n }),
        fc.constantFrom(1, 16, 64, 1024),
        fc.integer({ min: 1, max: 1000 }),
        (position, megabytes, timeline) => {
          const bytes = megabytes * 1024 * 1024
          const segment = wal.segmentOf(position, bytes)
          const file = wal.fileName(timeline, segment, bytes)
          assert.deepEqual(Option.getOrThrow(wal.parse(file, bytes)), { timeline, segment })
          assert.isTrue(wal.fileName(timeline, segment + 1n, bytes) > file)
        }
      )
    ))

  it("is named as the server names it", () => {
    const at = (lsn: string) => wal.segmentOf(Option.getOrThrow(wal.position(lsn)), wal.segmentBytes)
    assert.strictEqual(wal.fileName(1, at("0/2000100"), wal.segmentBytes), "000000010000000000000002")
    assert.strictEqual(wal.fileName(2, at("16/FFFFFFFF"), wal.segmentBytes), "0000000200000016000000FF")
    for (const wrong of ["", "2", "0/G", "0/123456789", "0/1 "])
      assert.isTrue(Option.isNone(wal.position(wrong)), wrong)
  })

  it("shows the first hole before a segment that is there, or that is asked for", () => {
    const names = (...segments: ReadonlyArray<number>) =>
      segments.map((n) => wal.fileName(1, BigInt(n), wal.segmentBytes))
    const gap = (files: ReadonlyArray<string>, upTo?: bigint) =>
      wal.gap(files, { timeline: 1, from: 4n, upTo, bytes: wal.segmentBytes })
    assert.isUndefined(gap([]))
    assert.isUndefined(gap(names(1, 5, 6)))
    assert.isUndefined(gap([...names(5), wal.fileName(2, 6n, wal.segmentBytes), "00000002.history"]))
    assert.strictEqual(gap(names(5, 7)), names(6)[0])
    assert.strictEqual(gap(names(6)), names(5)[0])
    assert.isUndefined(gap(names(5, 7), 5n))
    assert.strictEqual(gap(names(5), 8n), names(6)[0])
    // what only a crash leaves there is no segment
    assert.strictEqual(gap([...names(5), `${names(6)[0]}.partial`], 6n), names(6)[0])
  })

  it("may lose what comes before the oldest base backup, but no history", () => {
    const old = "000000010000000000000003"
    const files = [
      "00000002.history",
      old,
      `${old}.00000028.backup`,
      "000000010000000000000004",
      "000000020000000000000003",
      "notes.txt"
    ]
    assert.deepEqual(wal.unneeded(files, 4n, wal.segmentBytes), [
      old,
      `${old}.00000028.backup`,
      "000000020000000000000003"
    ])
  })

  it("is archived by a command whose words no name of a directory can change", () => {
    const command = archive.command("/an 'odd' 100% archive/")
    assert.include(command, `'/an '\\''odd'\\'' 100%% archive/%f'`)
    assert.notMatch(command.replaceAll("%%", ""), /%[^pf]/)
    assert.strictEqual(archive.restoreCommand([]), "false")
    assert.strictEqual(
      archive.restoreCommand(["/a", "/b"]),
      `{ test -f '/a/%f' && cp '/a/%f' '%p'; } || { test -f '/b/%f' && cp '/b/%f' '%p'; }`
    )
  })
})

describe("a recovery", () => {
  it("is told its target in words that the server reads", () => {
    const told = (target: recovery.Target) => Object.fromEntries(recovery.settings(target, "latest"))
    assert.strictEqual(told({ time: "2026-11-30T22:10:45.196Z" })["recovery_target_time"], "2026-11-30 22:10:45.196+00")
    assert.strictEqual(told({ time: "2026-11-30 22:10:45+01:30" })["recovery_target_time"], "2026-11-30 22:10:45+01:30")
    // what was written later is not wanted, not even the record that begins there
    assert.strictEqual(told({ lsn: "0/3000060" })["recovery_target_inclusive"], "off")
    assert.deepEqual(told("latest"), { recovery_target_action: "promote", recovery_target_timeline: "latest" })
  })

  it("takes times with an offset, as without one they depend on where they are read", () => {
    const time = (text: string) =>
      Option.map(options.time(text), (date) => date.toISOString()).pipe(Option.getOrUndefined)
    assert.strictEqual(time("2026-11-30 14:29:59+01"), "2026-11-30T13:29:59.000Z")
    assert.strictEqual(time("2026-11-30T14:29:59.123456Z"), "2026-11-30T14:29:59.123Z")
    assert.strictEqual(time("2026-11-30 14:29 -0330"), "2026-11-30T17:59:00.000Z")
    for (const wrong of ["", "yesterday", "2026-11-30 14:29:59", "2026-13-30 14:29:59Z", "30.11.2026 14:29Z"]) {
      assert.isUndefined(time(wrong), wrong)
    }
  })

  it("is understood by what the server logs", () => {
    const heard = (...lines: ReadonlyArray<string>) => lines.reduce(recovery.hear, recovery.nothingSaid)
    const good = heard(
      'LOG:  restored log file "00000002.history" from archive',
      'LOG:  restored log file "000000010000000000000003" from archive',
      "LOG:  consistent recovery state reached at 0/2000100",
      "FATAL:  the database system is not yet accepting connections",
      "LOG:  recovery stopping before commit of transaction 735, time 2026-11-30 22:10:45.196+00",
      "LOG:  last completed transaction was at log time 2026-11-30 22:10:44.1+00"
    )
    assert.deepEqual(good, {
      segment: "000000010000000000000003",
      lastTransaction: "2026-11-30 22:10:44.1+00",
      stopping: "before commit of transaction 735, time 2026-11-30 22:10:45.196+00",
      consistent: true,
      fatal: undefined
    })
    const ending = (line: string) => recovery.ending(heard(line))
    assert.strictEqual(ending("FATAL:  requested recovery stop point is before consistent recovery point"), "tooEarly")
    assert.strictEqual(ending("FATAL:  recovery ended before configured recovery target was reached"), "walMissing")
    assert.strictEqual(ending("PANIC:  could not locate a valid checkpoint record"), "failed")
    assert.strictEqual(ending("LOG:  database system is shut down"), "failed")
  })
})

describe("a database's URL", () => {
  const parsed = (url: string, environment = {}) => {
    const found = Either.getOrThrow(target.parse(Redacted.make(url), environment))
    return { ...found, environment: Redacted.value(found.environment) }
  }

  it("goes to PostgreSQL's programs by the environment, TLS included, and nothing of the caller's leads them elsewhere", () => {
    const { environment } = parsed(
      "postgresql://us%20er:p%40ss@db.example.com:6432/shop?sslmode=no-verify&options=-c%20work_mem%3D7MB",
      {
        PATH: "/bin",
        PGHOSTADDR: "10.0.0.1",
        PGSERVICE: "other",
        PGPASSFILE: "/home/me/.pgpass"
      }
    )
    assert.deepEqual(environment, {
      PATH: "/bin",
      PGPASSFILE: "/home/me/.pgpass",
      LC_ALL: "C",
      PGHOST: "db.example.com",
      PGPORT: "6432",
      PGUSER: "us er",
      PGDATABASE: "shop",
      PGAPPNAME: "effect-pg-resilience/backup",
      PGCONNECT_TIMEOUT: "10",
      PGPASSWORD: "p@ss",
      PGSSLMODE: "require",
      PGOPTIONS: "-c work_mem=7MB"
    })
    assert.isUndefined(parsed("postgresql://u@h/d").environment["PGPASSWORD"])
  })

  it("names other databases of the same server", () => {
    const other = (url: string) => {
      const on = target.on(Either.getOrThrow(target.parse(Redacted.make(url), {})), `a "b"/c`)
      return {
        ...parsed(Redacted.value(on.url)),
        password: Redacted.value(on.environment)["PGPASSWORD"],
        database: [on.database, Redacted.value(on.environment)["PGDATABASE"]].join()
      }
    }
    const { database, host, password, username } = other("postgresql://us%20er:p%40ss@[::1]:6432/shop")
    assert.deepEqual(
      { database, host, password, username },
      { database: `a "b"/c,a "b"/c`, host: "::1", password: "p@ss", username: "us er" }
    )
    assert.strictEqual(other("postgresql://u:p@%2Frun%2Fpg/shop").host, "/run/pg")
  })

  it("is refused without a word of it", () => {
    const error = Either.getOrThrow(Either.flip(target.parse(Redacted.make("http://me:s3cret@host/db"), {})))
    assert.strictEqual(error._tag, "InvalidOptionsError")
    assert.notInclude(error.message, "s3cret")
  })
})

describe("what tools say", () => {
  it("is their version", () => {
    assert.strictEqual(tools.majorOf("pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), 15)
    assert.strictEqual(tools.majorOf("pg_dump (PostgreSQL) 19beta2"), 19)
    assert.strictEqual(tools.majorOf("pg_dump (PostgreSQL) 20devel"), 20)
    assert.isUndefined(tools.majorOf("busybox"))
  })

  it("is where they are", () => {
    assert.strictEqual(progress.tableOf('pg_dump: dumping contents of table "public.a"'), "public.a")
    assert.strictEqual(progress.tableOf('pg_restore: processing data for table "public.a"'), "public.a")
    assert.isUndefined(progress.tableOf("pg_dump: reading policies"))
    assert.deepEqual(progress.copiedOf("  6619/22942 kB (28%), 0/1 tablespace (/d/base/5/1255          )"), {
      done: 6619 * 1024,
      total: 22942 * 1024
    })
    assert.strictEqual(
      progress.describe({ step: "copy", message: "", done: 1.5 * 2 ** 30, total: 20 * 2 ** 30, unit: "bytes" }),
      "copy: 1.5 GB of 20 GB"
    )
  })

  it("is quoted without the statements, which hold what was in the tables", () => {
    const lines = [
      "pg_restore: while PROCESSING TOC:",
      'pg_restore: error: could not execute query: ERROR:  role "a" does not exist',
      "Command was: COPY",
      "4711"
    ]
    assert.strictEqual(tools.complaints(lines), lines[1])
  })
})

describe("locks", () => {
  it("are alive while their process is, not one that has its number now; elsewhere while they are touched", () => {
    const owner = { pid: 1, began: "1234", host: "here" }
    const now = 10 ** 9
    const alive = (owner_: typeof owner | undefined, running: string | undefined, age: number) =>
      lock.isAlive(owner_, "here", running, now - age, now)
    assert.isTrue(alive(owner, "1234", 10 ** 8))
    assert.isFalse(alive(owner, "9999", 0))
    assert.isFalse(alive(owner, undefined, 0))
    const elsewhere = { ...owner, host: "there" }
    assert.isTrue(alive(elsewhere, undefined, lock.heartbeat.dead - 1))
    assert.isFalse(alive(elsewhere, "1234", lock.heartbeat.dead))
    assert.isTrue(alive(undefined, undefined, 0))
    assert.strictEqual(lock.beganOf("7 (a) b) S 1 7 7 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 4711 9"), "4711")
  })
})

describe("comparing", () => {
  const table = { schema: "public", name: "a", rows: "2", checksum: "17" }
  const sequence = { schema: "public", name: "s", value: "5", increment: "1" }
  const objects = { constraints: 1, indexes: 1, triggers: 0, functions: 0, views: 0 }
  const saved = { tables: [table], sequences: [sequence], largeObjects: "0", objects, unvalidated: ["public.a.old"] }

  it("finds all that differs, and nothing else", () => {
    assert.deepEqual(content.compare(saved, saved, []), [])
    const ahead = { ...saved, sequences: [{ ...sequence, value: "9" }], unvalidated: [] }
    assert.deepEqual(content.compare(saved, ahead, []), [])
    const other = {
      tables: [
        { ...table, rows: "1" },
        { ...table, name: "b" }
      ],
      sequences: [{ ...sequence, value: "4" }],
      largeObjects: "1",
      objects: { ...objects, indexes: 0 },
      unvalidated: ["public.a.old", "public.a.new"]
    }
    assert.deepEqual(content.compare(saved, other, ["public.i"]), [
      "table public.a has 1 rows instead of 2",
      "table public.b was not in the backup",
      "sequence public.s is at 4, behind 5",
      "there are 1 large objects instead of 0",
      "there are 0 indexes instead of 1",
      "constraint public.a.new is not validated",
      "index public.i is not valid"
    ])
    const empty = { ...saved, tables: [], sequences: [] }
    assert.deepEqual(content.compare(saved, empty, []), ["table public.a is missing", "sequence public.s is missing"])
    assert.deepEqual(content.compare(saved, { ...saved, tables: [{ ...table, checksum: "18" }] }, []), [
      "table public.a has other content: checksum 18 instead of 17"
    ])
    const down = { ...sequence, increment: "-1", value: "-5" }
    const behind = content.compare(
      { ...saved, sequences: [down] },
      { ...saved, sequences: [{ ...down, value: "-4" }] },
      []
    )
    assert.deepEqual(behind, ["sequence public.s is at -4, behind -5"])
  })
})

describe("a backup's name", () => {
  it("sorts by time, and is one on every file system", () => {
    assert.strictEqual(nameOf("shop", new Date("2026-11-30T21:40:01.123Z")), "shop-20261130T214001.123Z")
    assert.strictEqual(nameOf("../a b/ü", new Date(0)), "___a_b__-19700101T000000.000Z")
  })
})
