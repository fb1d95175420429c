/** Fast lanes: which statements share connections, as the wire shows, and that nobody is worse off for it. */
import { assert, layer } from "@effect/vitest"
import { Array as Arr, Effect, Exit, Fiber, Ref, Stream, TestClock, TestContext } from "effect"
import { Operation } from "effect-pg-resilience"
import * as TestPg from "../support/TestPg.js"
import { all, burst, laning, lockedRow, reads, settled, shares, waitsFor, writes } from "./laning.js"
import { clientOf, failure, hold, waitingForLock } from "./support.js"

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Lanes", (it) => {
  it.scoped("carry statements that are known to be short, each sent before those ahead of it are answered", () =>
    Effect.gen(function* () {
      const client = yield* laning()
      const { read, sessions, tap, write } = client
      yield* shares(tap, reads, read)
      yield* shares(tap, writes, (n) => write(n, n))
      const rows = yield* all(200, read)
      assert.deepStrictEqual(
        Arr.flatten(rows),
        Arr.makeBy(200, (i) => ({ id: i + 1, n: i + 1 }))
      )
      assert.isAbove((yield* tap.shared(reads)).length, 100)
      assert.isAtMost((yield* sessions).length, 4)
      yield* settled(client)
    })
  )

  it.scoped("are none with lanes: false", () =>
    Effect.gen(function* () {
      const { read, tap, write } = yield* laning({ lanes: false })
      for (let n = 0; n < 10; n++)
        yield* Effect.all([all(burst, read), all(burst, (id) => write(id, n))], { concurrency: 2 })
      assert.isEmpty(yield* tap.shared())
      assert.isAtLeast((yield* tap.sent(reads)).length, 10 * burst)
    })
  )

  it.scoped("carry nothing of a text before it has run eight times on connections of its own", () =>
    Effect.gen(function* () {
      const { read, sql, tap } = yield* laning()
      yield* shares(tap, reads, read)
      for (let text = 0; text < 10; text++) {
        const unknown = (n: number) => sql.unsafe(`SELECT id, n + ${text} AS m FROM t WHERE id = ${"$1"}`, [n])
        // Not more than seven are answered before the last of the eight is sent.
        yield* Effect.all([all(8, unknown), all(burst, read)], { concurrency: 2 })
      }
      assert.isEmpty(yield* tap.shared(/AS m FROM t/))
      assert.lengthOf(yield* tap.sent(/AS m FROM t/), 80)
    })
  )

  it.scoped("carry nothing that is slow at the server, however often it comes", () =>
    Effect.gen(function* () {
      const { read, sql, tap } = yield* laning()
      yield* shares(tap, reads, read)
      // Each takes some milliseconds of the server's time, and calls nothing that is not stable.
      const slow = (n: number) =>
        sql`SELECT count(*)::int AS slow FROM generate_series(1, ${40_000 + n}::int) AS s WHERE s % 7 = 3`
      yield* Effect.forEach(Arr.range(1, 12), slow)
      yield* tap.clear
      yield* Effect.all([all(20, slow), all(burst, read)], { concurrency: 2 })
      assert.isEmpty(yield* tap.shared(/AS slow/))
    })
  )

  const others: ReadonlyArray<readonly [what: string, text: string]> = [
    ["SELECTs that call volatile functions", "SELECT random() AS other"],
    ["SELECTs that call functions that nobody knows", "SELECT mine(1) AS other"],
    [
      "SELECTs that call volatile functions in a common table expression",
      "WITH w AS (SELECT random()) SELECT 1 AS other FROM w"
    ],
    [
      "writes in a common table expression",
      "WITH w AS (UPDATE t SET n = n WHERE id = 1 RETURNING 1) SELECT 1 AS other FROM w"
    ],
    ["SELECT FOR UPDATE", "SELECT id AS other FROM t WHERE id = 1 FOR UPDATE"],
    ["SELECT FOR KEY SHARE", "SELECT id AS other FROM t WHERE id = 1 FOR KEY SHARE"],
    ["SELECT INTO", "SELECT 1 AS other INTO TEMP TABLE made_here; DROP TABLE made_here"],
    ["advisory locks", "SELECT pg_advisory_xact_lock(id) AS other FROM t WHERE id < 5"],
    ["several commands", "SELECT 1 AS other; SELECT 2"],
    ["SET", "SET application_name = 'other'"],
    ["SHOW", "SHOW /* other */ work_mem"],
    ["EXPLAIN", "EXPLAIN SELECT 1 AS other"],
    ["DO", "DO 'BEGIN PERFORM 1; /* other */ END'"],
    ["CALL", "CALL other()"],
    ["LISTEN", "LISTEN other"],
    ["NOTIFY", "NOTIFY other"],
    ["DDL", "CREATE TABLE IF NOT EXISTS other (a int)"],
    ["COMMENT", "COMMENT ON TABLE t IS 'other'"],
    ["LOCK, refused", "LOCK TABLE t /* other */"],
    ["TABLE", "TABLE other_view"],
    ["nothing", "/* other */"]
  ]
  it.scoped(`carry no ${others.map(([what]) => what).join(", no ")}, prepared or not`, () =>
    Effect.gen(function* () {
      const { read, sql, tap, url, write } = yield* laning()
      yield* TestPg.control(
        `CREATE FUNCTION mine(int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT $1';
         CREATE PROCEDURE other() LANGUAGE sql AS 'SELECT 1';
         CREATE VIEW other_view AS SELECT 1`,
        [],
        url
      )
      yield* shares(tap, reads, read)
      yield* shares(tap, writes, (n) => write(n, n))
      for (const [, text] of others) {
        const other = Effect.exit(sql.unsafe(text))
        yield* Effect.replicateEffect(other, 10)
        yield* tap.clear
        yield* Effect.all([all(burst, read), all(20, () => other), all(burst, (n) => write(n, n))], { concurrency: 3 })
        assert.isEmpty(yield* tap.shared(/other/), text)
        assert.lengthOf(yield* tap.sent(/other/), 20, text)
        assert.isEmpty(
          Arr.filter(yield* tap.sent(), ({ ahead }) => ahead.some((text) => text.includes("other"))),
          text
        )
      }
    })
  )

  it.scoped("carry nothing of transactions, streams, reserved connections, and what is asked for unprepared", () =>
    Effect.gen(function* () {
      const { read, sql, tap } = yield* laning()
      yield* shares(tap, reads, read)
      // Texts that share connections when they are executed by themselves.
      const text = (what: string) =>
        sql<{ id: number }>`SELECT id, ${1}::int AS one FROM t WHERE id = ${7} /* ${sql.literal(what)} */`
      const uses: Record<string, Effect.Effect<unknown, unknown>> = {
        transaction: sql.withTransaction(text("transaction")),
        nested: sql.withTransaction(sql.withTransaction(text("nested"))),
        stream: Stream.runDrain(text("stream").stream),
        reserved: Effect.scoped(
          Effect.flatMap(sql.reserve, (connection) => {
            const [sql, params] = text("reserved").compile()
            return connection.execute(sql, params, undefined)
          })
        ),
        unprepared: text("unprepared").unprepared
      }
      for (const what of Object.keys(uses)) yield* shares(tap, new RegExp(what), () => text(what))
      yield* Effect.all(
        Object.values(uses).map((use) => all(20, () => Effect.zipLeft(use, read(1)))),
        { concurrency: "unbounded" }
      )
      const carried = Object.keys(uses).join("|")
      assert.isEmpty(yield* tap.shared(new RegExp(carried)))
      assert.isEmpty(yield* tap.shared(/^(BEGIN|COMMIT|SAVEPOINT|RELEASE)/))
      assert.isEmpty(
        Arr.filter(yield* tap.sent(), ({ ahead }) => ahead.some((text) => new RegExp(`${carried}|^BEGIN`).test(text)))
      )
      assert.isAtLeast((yield* tap.sent(new RegExp(carried))).length, 100)
    })
  )

  for (const options of [{}, { autoRetryReads: false }]) {
    it.scoped(`never carry reads and writes together, with ${JSON.stringify(options)}`, () =>
      Effect.gen(function* () {
        const { read, sql, tap, write } = yield* laning({ ...options, maxConnections: 2 })
        yield* shares(tap, reads, read)
        yield* shares(tap, writes, (n) => write(n, n))
        const marked = (readOnly: boolean) => (n: number) =>
          sql`INSERT INTO t VALUES (${n}, ${n}) ON CONFLICT (id) DO UPDATE SET n = ${n} /* write */`.pipe(
            Operation.named("marked", { readOnly }),
            Effect.orDie
          )
        const valued = (n: number) => sql`VALUES (${n}::int) /* read */`
        const readIn = (readOnly: boolean) => (n: number) =>
          Effect.orDie(Operation.named("marked", { readOnly })(read(n)))
        const round = Effect.all(
          [
            all(burst, read),
            all(burst, (n) => write(n, n)),
            all(burst, marked(true)),
            all(burst, marked(false)),
            all(burst, readIn(false)),
            all(burst, valued)
          ],
          { concurrency: "unbounded" }
        )
        for (let n = 0; n < 10; n++) yield* round
        const isRead = (text: string) => reads.test(text) || text.includes("read")
        const mixed = Arr.filter(yield* tap.sent(), ({ ahead, text }) =>
          ahead.some((other) => isRead(other) !== isRead(text))
        )
        assert.isEmpty(mixed)
        assert.isNotEmpty(yield* tap.shared(reads))
        assert.isNotEmpty(yield* tap.shared(writes))
      })
    )
  }

  for (const maxConnections of [2, 4]) {
    it.scoped(`put nobody behind a write that waits for a lock, with ${maxConnections} connections`, () =>
      Effect.gen(function* () {
        const client = yield* laning({ maxConnections })
        const { read, tap, url, write } = client
        yield* shares(tap, reads, read)
        yield* shares(tap, writes, (n) => write(n, n))
        yield* settled(client)
        const row = yield* lockedRow(url, 1)
        const waiter = yield* Effect.fork(write(1, 0))
        yield* waitsFor("UPDATE t SET n")
        // Those that come now get their answers while it waits, from the first one on.
        for (let n = 0; n < 5; n++) {
          yield* Effect.all([all(burst, read), all(burst, (id) => write(id + 100, n))], { concurrency: 2 })
        }
        assert.isNull(waiter.unsafePoll())
        assert.strictEqual(yield* waitingForLock("UPDATE t SET n"), 1)
        yield* row.release
        yield* Fiber.join(waiter)
        yield* settled(client)
      })
    )
  }

  it.scoped("answer a read while a write that came before it waits for a row", () =>
    Effect.gen(function* () {
      const client = yield* laning({ maxConnections: 2 })
      const { read, tap, url, write } = client
      yield* shares(tap, reads, read)
      yield* shares(tap, writes, (n) => write(n, n))
      yield* settled(client)
      const row = yield* lockedRow(url, 1)
      // In the same turn: it is not known yet that the write will wait.
      const waiter = yield* Effect.fork(write(1, 0))
      assert.deepStrictEqual(yield* read(1), [{ id: 1, n: 1 }])
      assert.isNull(waiter.unsafePoll())
      yield* row.release
      yield* Fiber.join(waiter)
    })
  )

  it.scoped("of reads put nobody behind one that waits for a table", () =>
    Effect.gen(function* () {
      const client = yield* laning({ maxConnections: 2 })
      const { read, sql, tap, url } = client
      yield* TestPg.control("CREATE TABLE u AS SELECT 1 AS a", [], url)
      const other = sql<{ a: number }>`SELECT a FROM u`
      yield* shares(tap, reads, read)
      yield* shares(tap, /FROM u/, () => other)
      yield* settled(client)
      const admin = yield* clientOf({ url, maxConnections: 1 })
      const { connection, release } = yield* hold(admin.sql)
      yield* connection.execute("BEGIN", [], undefined)
      yield* connection.execute("LOCK TABLE u", [], undefined)
      const waiter = yield* Effect.fork(other)
      yield* waitsFor("SELECT a FROM u")
      for (let n = 0; n < 5; n++) yield* all(burst, read)
      assert.isNull(waiter.unsafePoll())
      yield* connection.execute("ROLLBACK", [], undefined)
      yield* release
      assert.deepStrictEqual(yield* Fiber.join(waiter), [{ a: 1 }])
    })
  )

  it.scoped("count each statement as a use of the connection", () =>
    Effect.gen(function* () {
      const client = yield* laning({ maxConnections: 3, maxUses: 50 })
      const { read, tap } = client
      yield* shares(tap, reads, read)
      for (let n = 0; n < 30; n++) yield* all(30, read)
      const sent = yield* tap.sent(reads)
      const uses = Arr.map(
        Object.values(Arr.groupBy(sent, ({ connection }) => String(connection))),
        ({ length }) => length
      )
      assert.isAtMost(Math.max(...uses), 50)
      assert.strictEqual(
        uses.reduce((sum, n) => sum + n, 0),
        900
      )
      assert.isNotEmpty(yield* tap.shared(reads))
      // All but those that are in use now have been used to the end.
      assert.isAtMost(uses.length, 900 / 50 + 2 * 3)
      yield* settled(client)
    })
  )

  it.scoped("end when their connection has lived for as long as it may, however much there is to do", () =>
    Effect.gen(function* () {
      const client = yield* laning({ maxConnections: 1, connectionTTL: "1 second" })
      const { read, tap } = client
      yield* shares(tap, reads, read)
      const load = yield* Effect.fork(all(8, (n) => Effect.forever(read(n))))
      const seen = yield* TestPg.eventually(
        Effect.map(tap.sent(reads), (sent) => Arr.dedupe(sent.map(({ connection }) => connection))),
        ({ length }) => length >= 3
      )
      assert.isAtLeast(seen.length, 3)
      yield* Fiber.interrupt(load)
      yield* settled(client)
    })
  )

  it.scoped("end when another connection is lost, until theirs has answered again", () =>
    Effect.gen(function* () {
      const client = yield* laning({ maxConnections: 2 })
      const { pool, read, sessions, tap, url, write } = client
      yield* shares(tap, reads, read)
      yield* shares(tap, writes, (n) => write(n, n))
      yield* settled(client)
      const { generation } = yield* pool
      const held = yield* hold(client.sql)
      const [{ pid }] = (yield* held.connection.execute("SELECT pg_backend_pid() AS pid", [], undefined)) as [
        { pid: number }
      ]
      const row = yield* lockedRow(url, 1)
      const waiter = yield* Effect.fork(write(1, 0))
      yield* waitsFor("UPDATE t SET n")
      const { connection: suspect } = (yield* tap.sent(writes)).at(-1)!
      yield* TestPg.control("SELECT pg_terminate_backend($1)", [pid])
      yield* TestPg.eventually(pool, (now) => now.generation > generation)
      yield* held.release
      yield* tap.clear
      // Served by a new connection: the lane has not answered since.
      yield* all(burst, (n) => write(n + 100, n))
      assert.lengthOf(yield* tap.sent(writes), burst)
      assert.isFalse((yield* tap.sent(writes)).some(({ connection }) => connection === suspect))
      assert.isNull(waiter.unsafePoll())
      yield* row.release
      yield* Fiber.join(waiter)
      assert.isAtMost((yield* sessions).length, 2)
    })
  )

  it.scoped("give way to a transaction that waits, under an endless stream of reads on one connection", () =>
    Effect.gen(function* () {
      const client = yield* laning({ maxConnections: 1 })
      const { read, sql, tap } = client
      yield* shares(tap, reads, read)
      const load = yield* Effect.fork(all(10, (n) => Effect.forever(read(n))))
      for (let n = 0; n < 20; n++) {
        const [row] = yield* sql.withTransaction(
          Effect.zipRight(sql`UPDATE t SET n = ${n} WHERE id = 500`, sql<{ n: number }>`SELECT n FROM t WHERE id = 500`)
        )
        assert.deepStrictEqual(row, { n })
      }
      assert.isNotEmpty(yield* tap.shared(reads))
      assert.isEmpty(yield* tap.shared(/^(BEGIN|COMMIT|UPDATE)/))
      yield* Fiber.interrupt(load)
      yield* settled(client)
    })
  )

  it.scoped("let nobody pass who came earlier, whatever the others want", () =>
    Effect.gen(function* () {
      const client = yield* laning({ maxConnections: 1 })
      const { pool, read, sql, tap, write } = client
      yield* shares(tap, reads, read)
      yield* shares(tap, writes, (n) => write(n, n))
      yield* settled(client)
      const held = yield* hold(sql)
      const served = yield* Ref.make<ReadonlyArray<number>>([])
      const kinds = [
        (n: number) => read(n),
        (n: number) => write(n, n),
        () => sql.withTransaction(sql`SELECT 1`),
        (n: number) => read(n),
        (n: number) => read(n),
        () => sql`SELECT pg_backend_pid()`,
        (n: number) => write(n, n),
        (n: number) => write(n, n)
      ]
      const fibers = yield* Effect.forEach(Arr.range(1, 40), (n) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.fork(
            Effect.zipRight(kinds[n % kinds.length]!(n), Ref.update(served, Arr.append(n)))
          )
          yield* TestPg.eventually(pool, ({ waiting }) => waiting === n)
          return fiber
        })
      )
      yield* held.release
      yield* Fiber.joinAll(fibers)
      assert.deepStrictEqual(yield* served, Arr.range(1, 40))
      assert.isNotEmpty(yield* tap.shared())
    })
  )

  it.scoped("keep to acquireTimeout for those who wait for a place, to the millisecond, with the figures", () =>
    Effect.gen(function* () {
      const client = yield* laning({ maxConnections: 1, acquireTimeout: "30 seconds" })
      const { pool, read, sql, tap } = client
      yield* shares(tap, reads, read)
      yield* settled(client)
      const held = yield* hold(sql)
      const error = yield* Effect.gen(function* () {
        const waiter = yield* Effect.fork(failure(read(1)))
        yield* TestPg.eventually(pool, ({ waiting }) => waiting === 1)
        yield* TestClock.adjust("29999 millis")
        assert.isNull(waiter.unsafePoll())
        yield* TestClock.adjust("1 millis")
        return yield* Fiber.join(waiter)
      }).pipe(Effect.provide(TestContext.TestContext))
      assert.strictEqual(error._tag, "PoolTimeoutError")
      assert.match(error.message, /^No connection came free within 30000 ms: 1 of 1 connections in use, 0 waiting/)
      yield* held.release
      assert.lengthOf(yield* read(1), 1)
    })
  )

  it.scoped("keep to acquireTimeout while the only lane is held up", () =>
    Effect.gen(function* () {
      const client = yield* laning({ maxConnections: 1, acquireTimeout: "300 millis" })
      const { tap, url, write } = client
      yield* shares(tap, writes, (n) => write(n, n))
      yield* settled(client)
      const row = yield* lockedRow(url, 1)
      const waiter = yield* Effect.fork(write(1, 0))
      yield* waitsFor("UPDATE t SET n")
      const errors = yield* all(5, (n) => failure(write(n + 100, n)))
      assert.deepStrictEqual(
        Arr.map(errors, ({ _tag }) => _tag),
        Arr.replicate("PoolTimeoutError", 5)
      )
      yield* row.release
      yield* Fiber.join(waiter)
      yield* all(burst, (n) => write(n, n))
    })
  )

  it.scoped("keep to maxWaiting: who finds a place does not wait, and beyond it all are refused at once", () =>
    Effect.gen(function* () {
      const client = yield* laning({ maxConnections: 1, maxWaiting: 3 })
      const { pool, read, sql, tap } = client
      yield* TestPg.eventually(
        // No more at once than may wait and find a place.
        Effect.zipRight(
          Effect.forEach(Arr.range(1, 10), () => all(3, read)),
          tap.shared(reads)
        ),
        ({ length }) => length > 0
      )
      yield* settled(client)
      const held = yield* hold(sql)
      const waiting = yield* Effect.fork(all(3, read))
      yield* TestPg.eventually(pool, ({ waiting }) => waiting === 3)
      const error = yield* failure(read(1))
      assert.match(error.message, /^The queue for a connection is full: 1 of 1 connections in use, 3 waiting/)
      yield* held.release
      assert.lengthOf(yield* Fiber.join(waiting), 3)
    })
  )

  it.scoped("leave no session and no socket when the layer closes under load", () =>
    Effect.gen(function* () {
      const client = yield* laning({ closeGrace: "200 millis" })
      const { close, read, sessions, tap, url, write } = client
      yield* shares(tap, reads, read)
      yield* shares(tap, writes, (n) => write(n, n))
      const row = yield* lockedRow(url, 1)
      const answered = yield* Ref.make(0)
      const outcome = (effect: Effect.Effect<unknown, unknown>) =>
        Effect.exit(
          Effect.zipLeft(
            effect,
            Ref.update(answered, (n) => n + 1)
          )
        )
      const load = yield* Effect.fork(
        Effect.all(
          [
            all(20, (n) => outcome(Effect.forever(read(n)))),
            all(20, (n) => outcome(Effect.forever(write(n + 100, n)))),
            all(5, () => outcome(write(1, 0)))
          ],
          { concurrency: 3 }
        )
      )
      yield* waitsFor("UPDATE t SET n")
      yield* close
      const exits = Arr.flatten(yield* Fiber.join(load))
      assert.lengthOf(exits, 45)
      assert.isTrue(exits.every(Exit.isFailure))
      yield* TestPg.eventually(sessions, ({ length }) => length === 0)
      yield* TestPg.eventually(tap.sockets, (sockets) => sockets === 0)
      assert.strictEqual(yield* Ref.get(answered), 0)
      yield* row.release
    })
  )
})
