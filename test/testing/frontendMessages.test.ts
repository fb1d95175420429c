import { Buffer } from "node:buffer"
import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as Backend from "../../src/testing/internal/backendMessages.js"
import * as Frontend from "../../src/testing/internal/frontendMessages.js"
import * as Wire from "../support/wire.js"

const decode = (chunks: ReadonlyArray<Buffer>) => {
  let decoder = Frontend.initial
  const messages: Array<Frontend.FrontendMessage> = []
  for (const chunk of chunks) {
    const [next, state] = Frontend.push(decoder, chunk)
    messages.push(...next)
    decoder = state
  }
  return { messages, decoder }
}
const seen = (chunks: ReadonlyArray<Buffer>) => decode(chunks).messages.map(({ kind, text }) => [kind, text])
const everyByte = (bytes: Buffer) => Array.from(bytes, (byte) => Buffer.from([byte]))

/** Cuts bytes at the places that the numbers choose; some chunks are empty. */
const cutAt = (bytes: Buffer, places: ReadonlyArray<number>) => {
  const offsets = places.map((place) => place % (bytes.length + 1)).sort((a, b) => a - b)
  return [0, ...offsets].map((from, index) => bytes.subarray(from, offsets[index] ?? bytes.length))
}

const text = fc.string({ unit: "grapheme", maxLength: 40 }).map((text) => text.replaceAll("\0", ""))
const message = fc.oneof(
  text.map((sql) => ({ kind: "Query", bytes: Wire.query(sql) })),
  fc.tuple(text, text).map(([name, sql]) => ({ kind: "Parse", bytes: Wire.parse(sql, name) })),
  text.map((name) => ({ kind: "Bind", bytes: Wire.bind(name) })),
  fc.uint8Array({ maxLength: 300 }).map((data) => ({ kind: "CopyData", bytes: Wire.message("d", Buffer.from(data)) })),
  fc.constantFrom(
    { kind: "Sync", bytes: Wire.sync },
    { kind: "Execute", bytes: Wire.execute },
    { kind: "Flush", bytes: Wire.message("H") },
    { kind: "Unknown", bytes: Wire.message("!") },
    { kind: "Terminate", bytes: Wire.message("X") }
  )
)
const session = fc
  .record({
    requests: fc.array(fc.constantFrom("SSLRequest" as const, "GSSENCRequest" as const), { maxLength: 2 }),
    messages: fc.array(message)
  })
  .map(({ messages, requests }) => [
    ...requests.map((kind) => ({ kind, bytes: Wire.request(kind) })),
    { kind: "StartupMessage", bytes: Wire.startup({ user: "someone" }) },
    ...messages
  ])

describe("frontend messages", () => {
  it("are the same however the bytes are cut", () => {
    fc.assert(
      fc.property(session, fc.array(fc.nat()), (session, places) => {
        const bytes = Buffer.concat(session.map(({ bytes }) => bytes))
        const whole = decode([bytes])
        const cut = decode(cutAt(bytes, places))
        assert.deepStrictEqual(
          whole.messages.map(({ kind }) => kind as string),
          session.map(({ kind }) => kind)
        )
        assert.deepStrictEqual(cut.messages, whole.messages)
        assert.deepStrictEqual(decode(everyByte(bytes)).messages, whole.messages)
      })
    )
  })

  it("never throws, loses or changes a byte, whatever comes", () => {
    fc.assert(
      fc.property(fc.boolean(), fc.array(fc.uint8Array({ maxLength: 40 })), (started, random) => {
        const chunks = [
          ...(started ? [Wire.startup({ user: "someone" })] : []),
          ...random.map((data) => Buffer.from(data))
        ]
        const { decoder, messages } = decode(chunks)
        const out = Buffer.concat([...messages.map(({ bytes }) => bytes), ...decoder.parts])
        assert.strictEqual(out.toString("hex"), Buffer.concat(chunks).toString("hex"))
      })
    )
  })

  it("give the text of a command once: with its Parse, or with the Bind of a statement parsed before", () => {
    const stream = [Wire.startup({}), Wire.parse("SELECT 1", "s"), Wire.bind("s"), Wire.execute, Wire.sync]
    const again = [Wire.bind("s"), Wire.execute, Wire.sync, Wire.query("COMMIT")]
    assert.deepStrictEqual(seen([...stream, ...again]), [
      ["StartupMessage", ""],
      ["Parse", "SELECT 1"],
      ["Bind", ""],
      ["Execute", ""],
      ["Sync", ""],
      ["Bind", "SELECT 1"],
      ["Execute", ""],
      ["Sync", ""],
      ["Query", "COMMIT"]
    ])
  })

  it("know a cancel request", () => {
    assert.deepStrictEqual(seen(everyByte(Wire.cancel(4711, -1))), [["CancelRequest", ""]])
  })

  it("are opaque when encrypted or of another protocol", () => {
    const hello = Buffer.from("1603010200010001fc0303", "hex")
    assert.deepStrictEqual(seen([Wire.request("SSLRequest"), hello]), [
      ["SSLRequest", ""],
      ["Opaque", ""]
    ])
    assert.deepStrictEqual(
      seen([Buffer.from("G"), Buffer.from("ET / HTTP/1.1\r\n")]).map(([kind]) => kind),
      ["Opaque", "Opaque"]
    )
  })
})

describe("backend messages", () => {
  it("are the same however the bytes are cut", () => {
    const frame = fc
      .tuple(fc.constantFrom("Z", "D", "C", "E", "R"), fc.uint8Array({ maxLength: 60 }))
      .map(([type, data]) => Wire.message(type, Buffer.from(data)))
    fc.assert(
      fc.property(fc.array(frame), fc.array(fc.nat()), (frames, places) => {
        let decoder = Backend.initial
        const messages: Array<Backend.BackendMessage> = []
        for (const chunk of cutAt(Buffer.concat(frames), places)) {
          const [next, state] = Backend.push(decoder, chunk)
          messages.push(...next)
          decoder = state
        }
        assert.deepStrictEqual(
          messages.map(({ bytes, type }) => [type, bytes.toString("hex")]),
          frames.map((frame) => [String.fromCharCode(frame[0]!), frame.toString("hex")])
        )
        assert.strictEqual(decoder.size, 0)
      })
    )
  })
})
