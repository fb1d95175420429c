/** What is written for a statement, read back by a decoder of its own, and by the server. */
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect, FastCheck as fc } from "effect"
import { serialize } from "../../../src/client/internal/request.js"
import * as wire from "../../../src/client/internal/wire.js"
import * as Frontend from "../../../src/testing/internal/frontendMessages.js"
import * as TestPg from "../../support/TestPg.js"
import * as Bytes from "../../support/wire.js"
import { clientOf, failure } from "../support.js"

/** Reads fields of a message one after the other. */
class Reader {
  private at = 5
  constructor(private readonly bytes: Buffer) {}
  take = (length: number) => {
    const start = this.at
    this.at += length
    return this.bytes.subarray(start, this.at)
  }
  byte = () => String.fromCharCode(this.take(1)[0]!)
  int16 = () => this.take(2).readUInt16BE()
  int32 = () => this.take(4).readInt32BE()
  text = () => {
    const text = this.take(this.bytes.indexOf(0, this.at) - this.at).toString()
    this.at++
    return text
  }
  list = <A>(read: () => A): ReadonlyArray<A> => Array.from({ length: this.int16() }, read)
  get rest() {
    return this.bytes.length - this.at
  }
}

/** The message as the manual's chapter on formats reads it. */
const read = ({ bytes, kind }: Frontend.FrontendMessage): ReadonlyArray<unknown> => {
  const from = new Reader(bytes)
  const fields = {
    Parse: () => [from.text(), from.text(), from.list(from.int32)],
    Bind: () => [
      from.text(),
      from.text(),
      from.list(from.int16),
      from.list(() => {
        const length = from.int32()
        return length === -1 ? null : from.take(length)
      }),
      from.list(from.int16)
    ],
    Describe: () => [from.byte(), from.text()],
    Close: () => [from.byte(), from.text()],
    Execute: () => [from.text(), from.int32()],
    Sync: () => []
  }[kind as "Sync"]()
  assert.strictEqual(from.rest, 0, kind)
  return [kind, ...fields]
}

const decoded = (bytes: Buffer) => {
  const [, started] = Frontend.push(Frontend.initial, Bytes.startup({ user: "u" }))
  const [messages] = Frontend.push(started, bytes)
  assert.strictEqual(
    messages.reduce((sum, { bytes }) => sum + bytes.length, 0),
    bytes.length
  )
  return messages.map(read)
}

const text = fc.string({ unit: "binary", maxLength: 40 }).filter((text) => !text.includes("\0"))
const value = fc.oneof(
  fc.constant(null),
  fc.string({ unit: "binary" }),
  fc.string({ unit: fc.integer({ min: 0, max: 0xffff }).map((unit) => String.fromCharCode(unit)) }),
  fc.uint8Array().map((bytes) => Buffer.from(bytes))
)
const name = fc.string({ unit: "grapheme-ascii", maxLength: 70 })

describe("wire", () => {
  it("holds exactly what it was given, message by message", () => {
    fc.assert(
      fc.property(
        fc.record({
          close: fc.array(name, { maxLength: 5 }),
          text: fc.option(text, { nil: undefined }),
          name,
          values: fc.array(value, { maxLength: 30 }),
          portal: name,
          describe: fc.boolean(),
          rows: fc.nat({ max: 2 ** 31 - 1 })
        }),
        (message) => {
          const { close, describe, name, portal, rows, text, values } = message
          assert.deepStrictEqual(decoded(wire.encode(message)), [
            ...close.map((name) => ["Close", "S", name]),
            ...(text === undefined ? [] : [["Parse", name, text, []]]),
            [
              "Bind",
              portal,
              name,
              values.map((value) => (value instanceof Buffer ? 1 : 0)),
              values.map((value) => (typeof value === "string" ? Buffer.from(value) : value)),
              [0]
            ],
            ...(describe ? [["Describe", "P", portal]] : []),
            ["Execute", portal, rows],
            ["Sync"]
          ])
        }
      ),
      { numRuns: 500 }
    )
  })

  it("fetches from a portal, and closes it", () => {
    assert.deepStrictEqual(decoded(wire.encodeFetch("p", 128)), [["Execute", "p", 128], ["Sync"]])
    assert.deepStrictEqual(decoded(wire.encodeClose("p")), [["Close", "P", "p"], ["Sync"]])
  })
})

describe("serialize", () => {
  it("makes text, bytes or null of everything, as pg does", () => {
    const date = new Date(Date.UTC(2026, 0, 2, 3, 4, 5, 6))
    const [at, ...rest] = serialize([
      date,
      null,
      undefined,
      "é€😀",
      "",
      0,
      -1.5,
      10n ** 30n,
      true,
      Buffer.from([0, 255]),
      new Uint8Array([1, 2]),
      [1, null, ['a"b\\', "{}"]],
      { a: [1, { b: null }] },
      { toPostgres: () => [1, 2] },
      { toJSON: () => undefined }
    ])
    assert.strictEqual(new Date(at as string).getTime(), date.getTime())
    assert.deepStrictEqual(rest, [
      null,
      null,
      "é€😀",
      "",
      "0",
      "-1.5",
      "1000000000000000000000000000000",
      "true",
      Buffer.from([0, 255]),
      Buffer.from([1, 2]),
      '{"1",NULL,{"a\\"b\\\\","{}"}}',
      '{"a":[1,{"b":null}]}',
      '{"1","2"}',
      null
    ])
  })

  it("refuses what can not be sent", () => {
    const circular: { self?: unknown } = {}
    circular.self = circular
    const odd = Object.assign(() => {}, { toString: () => 5 })
    for (const value of [circular, odd]) assert.throws(() => serialize([value]))
    assert.throws(() => serialize(Array(65_536).fill(1)), "65535 parameters")
    assert.lengthOf(serialize(Array(65_535).fill(1)), 65_535)
    const long = "x".repeat(2 ** 28)
    assert.throws(() => serialize([long, long, long, long]), "1 GiB")
    assert.lengthOf(serialize([long, long]), 2)
  })
})

layer(TestPg.layer, { excludeTestServices: true, timeout: "60 seconds" })("Values on a server", (it) => {
  /** What the server takes for text: no zero, and whole characters. */
  const stored = fc.string({ unit: "grapheme" }).filter((text) => !text.includes("\0"))
  const date = fc.date({ min: new Date("0001-01-03"), max: new Date("9999-12-30"), noInvalidDate: true })

  it.scoped("arrive unchanged, unprepared, on the way to a name, and under it", () =>
    Effect.gen(function* () {
      const { sql } = yield* clientOf({ maxConnections: 1 })
      const row = fc.record({
        t: fc.option(stored),
        b: fc.option(fc.uint8Array().map((bytes) => Buffer.from(bytes))),
        i: fc.option(fc.integer()),
        f: fc.option(fc.double({ noNaN: true })),
        o: fc.option(fc.boolean()),
        d: fc.option(date),
        a: fc.option(fc.array(fc.option(stored))),
        j: fc.option(fc.jsonValue().filter((value) => value !== null && !JSON.stringify(value).includes("\\u0000")))
      })
      const samples = fc.sample(row, { numRuns: 200, seed: 20 })
      for (const sample of samples) {
        const { a, b, d, f, i, j, o, t } = sample
        const [returned] = yield* sql`SELECT ${t}::text AS t, ${b}::bytea AS b, ${i}::int AS i,
          ${f}::float8 AS f, ${o}::bool AS o, ${d}::timestamptz AS d, ${a as never}::text[] AS a,
          ${j === null ? null : JSON.stringify(j)}::json AS j`
        assert.deepStrictEqual(
          returned as unknown,
          // Minus zero is not told apart by text.
          { t, b, i, f: f === 0 ? 0 : f, o, d, a, j: j === null ? null : JSON.parse(JSON.stringify(j)) }
        )
      }
      assert.deepStrictEqual(
        yield* sql`SELECT count(*)::int AS n FROM pg_prepared_statements WHERE statement LIKE 'SELECT $1::text%'`,
        [{ n: 1 }]
      )
    })
  )

  it.scoped("may be as many as the protocol counts; one more is a typed error, and nothing is sent", () =>
    Effect.gen(function* () {
      const { pool, sql } = yield* clientOf({ maxConnections: 1 })
      const sum = (count: number) => {
        const places = Array.from({ length: count }, (_, i) => `$${i + 1}::int`)
        return sql.unsafe<{ n: number }>(`SELECT cardinality(ARRAY[${places.join(",")}]) AS n`, Array(count).fill(1))
      }
      for (let i = 0; i < 3; i++) assert.deepStrictEqual(yield* sum(65_535), [{ n: 65_535 }])
      const { total } = yield* pool
      const error = yield* failure(sum(65_536))
      assert.deepStrictEqual([error._tag, error.outcome, error.phase], ["UnknownError", "NotApplied", "Execute"])
      const inside = yield* failure(sql.withTransaction(sum(65_536)))
      assert.strictEqual(inside._tag, "UnknownError")
      assert.deepStrictEqual(yield* sql`SELECT 1 AS one`, [{ one: 1 }])
      assert.strictEqual((yield* pool).total, total)
    })
  )

  it.scoped("of many kilobytes, in Unicode, come back whole under a name", () =>
    Effect.gen(function* () {
      const { sql } = yield* clientOf({ maxConnections: 1 })
      const long = "é€😀".repeat(100_000)
      const bytes = Buffer.alloc(3_000_000, 171)
      for (let i = 0; i < 3; i++) {
        assert.deepStrictEqual(yield* sql`SELECT ${long}::text AS t, ${bytes}::bytea AS b, ${""}::text AS e`, [
          { t: long, b: bytes, e: "" }
        ])
      }
    })
  )
})
