/** Cut off at every point: the next run completes or reports, and nothing is ever done twice. */
import { type ChildProcess, spawn } from "node:child_process"
import * as Path from "node:path"
import { assert, layer } from "@effect/vitest"
import { Effect, Either, Fiber, Redacted, Schedule } from "effect"
import { Migrations } from "effect-pg-resilience"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import { advisoryLock } from "../client/support.js"
import { root } from "../support/root.js"
import * as TestPg from "../support/TestPg.js"
import { applied, clientWith, fresh, once, record, step, traced, traces } from "./migrationsSupport.js"
import { loader as gated } from "./programs/migrating.js"

const loader = record({ "1_one": step("one"), "2_two": step("two", false) })
const both = (name: string) => [`${name} a`, `${name} b`]
const all = ["1_one", "2_two", ...["one", "two"].flatMap(both)]

/** Statements of a run that nobody cuts, from the settings of its session to its last COMMIT: more than that. */
const fewest = 30

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Migrations that are cut off", (it) => {
  for (const retry of ["the next run", "the same run"] as const) {
    it.scoped(
      `${retry === "the next run" ? "after every statement" : "before statements"}, ${retry} completes or reports, and nothing is done twice`,
      () =>
        Effect.gen(function* () {
          const { client, config, on, url } = yield* fresh()
          const control = (text: string) => client.sql.unsafe(text)
          const found = Effect.map(
            client.sql<{ what: string }>`SELECT what FROM trace
            UNION ALL SELECT migration_id || '_' || name FROM effect_sql_migrations ORDER BY what`,
            (rows) => rows.map(({ what }) => what)
          )
          const proxy = yield* FaultProxy.make({ upstream: config })
          const through = yield* clientWith(proxy.url(url))
          let cut = 0
          let unfinished = 0
          const round = (n: number, when: "before" | "after") =>
            Effect.gen(function* () {
              let seen = 0
              const rule = yield* proxy.cut({
                // From the moment on when the session that migrates is set up.
                on: ({ text }) => text !== "" && (seen > 0 || text.includes("set_config")) && ++seen === n,
                when
              })
              const schedule = retry === "the next run" ? once : Schedule.recurs(3)
              const first = yield* Effect.either(through.on(Migrations.up({ loader, retry: schedule })))
              const happened = (yield* rule.count) === 1
              yield* rule.cancel
              if (!happened) assert(Either.isRight(first))
              // A COMMIT whose answer was lost is found out by the same run.
              if (retry === "the same run" && Either.isLeft(first)) {
                assert.strictEqual(first.left._tag, "MigrationUnfinished", first.left.message)
              }
              let next = yield* Effect.either(on(Migrations.up({ loader, retry: once })))
              if (Either.isLeft(next)) {
                unfinished++
                assert(next.left instanceof Migrations.MigrationUnfinished, next.left.message)
                const there = (yield* found).filter((what) => what.startsWith("two"))
                assert.deepStrictEqual(there, both("two").slice(0, there.length))
                if (there.length === 1) yield* control("DELETE FROM trace WHERE what LIKE 'two%'")
                yield* on(Migrations.resolve({ loader }, 2, there.length === 2 ? "applied" : "notApplied"))
                next = yield* Effect.either(on(Migrations.up({ loader })))
              }
              assert(Either.isRight(next))
              assert.deepStrictEqual(yield* found, all, `${when} ${n}`)
              yield* control("TRUNCATE trace, effect_sql_migrations, effect_sql_migrations_state")
              if (happened) cut++
              return happened
            })
          // What the server has done is the same before a statement as after the one before it: only who goes on knows more.
          const [when, stride] = retry === "the next run" ? (["after", 2] as const) : (["before", 5] as const)
          let n = 1
          while (yield* round(n, when)) n += stride
          assert.isAbove(n, fewest)
          assert.isAbove(unfinished, 0)
          yield* Effect.logInfo(`${cut} cuts, ${unfinished} of them reported as unfinished`)
        })
    )
  }

  it.scoped("by a crash of the server go on when it is back", () =>
    Effect.gen(function* () {
      const { on, url } = yield* fresh()
      const server = yield* EmbeddedPostgres.EmbeddedPostgres
      let runs = 0
      const crashing = Effect.gen(function* () {
        yield* traced("one a")
        if (++runs === 1) yield* Effect.zipRight(server.crash, server.start)
        yield* traced("one b")
      })
      const retry = Schedule.intersect(Schedule.recurs(100), Schedule.spaced("50 millis"))
      yield* on(Migrations.up({ loader: record({ "1_one": crashing, "2_two": step("two", false) }), retry }))
      assert.strictEqual(runs, 2)
      assert.deepStrictEqual(yield* traces(url), ["one", "two"].flatMap(both))
      assert.deepStrictEqual(yield* applied(url), ["1_one", "2_two"])
    })
  )

  /** The session that waits at a gate. */
  const atGate = (url: Redacted.Redacted, gate: number) =>
    Effect.map(
      TestPg.control<{ pid: number }>(
        `SELECT pid FROM pg_locks JOIN pg_database d ON d.oid = database
  WHERE locktype = 'advisory' AND NOT granted AND objid = ${gate} AND datname = current_database()`,
        [],
        url
      ),
      ([row]) => row?.pid
    )

  /** A program that migrates, when it waits at that gate. */
  const waiting = (url: Redacted.Redacted, gate: number) =>
    Effect.gen(function* () {
      const { release } = yield* advisoryLock(gate, url)
      const child = yield* Effect.acquireRelease(
        Effect.sync(() =>
          spawn(process.execPath, ["--import", "tsx", Path.join(root, "test/operations/programs/migrating.ts")], {
            cwd: root,
            env: { ...process.env, MIGRATING_URL: Redacted.value(url) },
            stdio: "ignore"
          })
        ),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )
      const session = yield* TestPg.eventually(atGate(url, gate), (pid) => pid !== undefined)
      return { child, release, session }
    })

  const ended = (child: ChildProcess, signal: NodeJS.Signals) =>
    Effect.async<number | NodeJS.Signals | null>((resume) => {
      child.once("exit", (code, signal) => resume(Effect.succeed(code ?? signal)))
      child.kill(signal)
    })

  const inTransaction = Effect.gen(function* () {
    const { on, url } = yield* fresh()
    const { child, release, session } = yield* waiting(url, 1)
    assert.strictEqual(yield* ended(child, "SIGKILL"), "SIGKILL")
    // The gate is still shut: the session that waited for it is that of a program that is gone.
    const next = yield* Effect.fork(on(Migrations.up({ loader: gated })))
    yield* TestPg.eventually(atGate(url, 1), (pid) => pid !== undefined && pid !== session)
    yield* release
    assert.lengthOf((yield* Fiber.join(next)).done, 2)
    assert.deepStrictEqual(yield* traces(url), [...both("one"), ...both("two")])
  })

  const outside = Effect.gen(function* () {
    const { on, url } = yield* fresh()
    const { child, release } = yield* waiting(url, 2)
    assert.strictEqual(yield* ended(child, "SIGKILL"), "SIGKILL")
    const error = yield* Effect.flip(on(Migrations.up({ loader: gated })))
    assert.strictEqual(error._tag, "MigrationUnfinished")
    assert.deepStrictEqual(yield* traces(url), [...both("one"), "two a"])
    assert.deepStrictEqual(yield* applied(url), ["1_one"])
    yield* release
  })

  it.scoped("by kill -9 are done by the next program, or reported, and nobody waits for a ghost", () =>
    Effect.all([inTransaction, outside], { concurrency: 2 })
  )
})
