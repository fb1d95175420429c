/**
 * What a client sends to PostgreSQL, cut into messages: a pure decoder over any chunking of the bytes.
 *
 * First come packets without a type byte (StartupMessage, requests for encryption, CancelRequest), then typed messages.
 * Whatever is not this protocol, encrypted sessions above all, passes as `Opaque`. Nothing is lost or changed: the `bytes`
 * of all messages, put together, are the bytes that came.
 *
 * Source: PostgreSQL manual, "Frontend/Backend Protocol", "Message Formats".
 */
import { Buffer } from "node:buffer"

const typed = {
  B: "Bind",
  C: "Close",
  d: "CopyData",
  c: "CopyDone",
  f: "CopyFail",
  D: "Describe",
  E: "Execute",
  H: "Flush",
  F: "FunctionCall",
  P: "Parse",
  p: "Password",
  Q: "Query",
  S: "Sync",
  X: "Terminate"
} as const

/** Request codes in the place of a protocol version. */
const requests = new Map([
  [80877102, "CancelRequest"],
  [80877103, "SSLRequest"],
  [80877104, "GSSENCRequest"]
] as const)

export type Kind =
  | (typeof typed)[keyof typeof typed]
  | "CancelRequest"
  | "SSLRequest"
  | "GSSENCRequest"
  | "StartupMessage"
  /** A type byte that the manual does not list. */
  | "Unknown"
  /** Bytes that cannot be read: encrypted, or another protocol. */
  | "Opaque"

/** One message of the client. */
export interface FrontendMessage {
  readonly kind: Kind
  /**
   * SQL of a Query or a Parse; of a Bind when its statement was parsed by an earlier command, so that each execution of a
   * statement has exactly one message with its text. Empty otherwise.
   */
  readonly text: string
  readonly bytes: Buffer
}

/** Everything to remember between two chunks. */
export interface Decoder {
  readonly phase: "startup" | "typed" | "opaque"
  /** Bytes of a message whose end has not come. */
  readonly parts: ReadonlyArray<Buffer>
  readonly size: number
  /** No message can be complete with fewer bytes. */
  readonly need: number
  /** SQL of the prepared statements by name; the unnamed one is "". */
  readonly statements: ReadonlyMap<string, string>
  /** Names parsed since the last Sync. */
  readonly fresh: ReadonlySet<string>
}

const startupHeader = 8
const typedHeader = 5
/** The server refuses longer startup packets. Source: `MAX_STARTUP_PACKET_LENGTH`. */
const maxStartup = 10_000

export const initial: Decoder = {
  phase: "startup",
  parts: [],
  size: 0,
  need: 1,
  statements: new Map(),
  fresh: new Set()
}

/** The text up to the zero byte, and the offset behind it. */
const cString = (bytes: Buffer, offset: number): readonly [string, number] => {
  const zero = bytes.indexOf(0, offset)
  const end = zero === -1 ? bytes.length : zero
  return [bytes.toString("utf8", offset, end), end + 1]
}

type Names = Pick<Decoder, "statements" | "fresh">

/** The text of a typed message, and the statements known after it. */
const read = (kind: Kind, bytes: Buffer, names: Names): readonly [string, Names] => {
  switch (kind) {
    case "Query":
      return [cString(bytes, typedHeader)[0], names]
    case "Parse": {
      const [name, next] = cString(bytes, typedHeader)
      const [text] = cString(bytes, next)
      return [text, { statements: new Map(names.statements).set(name, text), fresh: new Set(names.fresh).add(name) }]
    }
    case "Bind": {
      const [, next] = cString(bytes, typedHeader)
      const [name] = cString(bytes, next)
      return [names.fresh.has(name) ? "" : (names.statements.get(name) ?? ""), names]
    }
    case "Sync":
      return ["", { ...names, fresh: new Set() }]
    default:
      return ["", names]
  }
}

/** The first message in the bytes, or how many bytes it takes to say more. */
const first = (decoder: Decoder, bytes: Buffer): readonly [FrontendMessage, Decoder] | number => {
  const opaque = () =>
    [
      { kind: "Opaque", text: "", bytes },
      { ...decoder, phase: "opaque" }
    ] as const
  if (decoder.phase === "opaque") return opaque()
  if (decoder.phase === "startup") {
    if (bytes[0] !== 0) return opaque() // a TLS record, or a length beyond any startup packet
    if (bytes.length < startupHeader) return startupHeader
    const length = bytes.readUInt32BE(0)
    const code = bytes.readUInt32BE(4)
    const kind = requests.get(code as never) ?? (code >>> 16 === 3 ? "StartupMessage" : undefined)
    if (kind === undefined || length < startupHeader || length > maxStartup) return opaque()
    if (bytes.length < length) return length
    const phase = kind === "StartupMessage" ? "typed" : "startup"
    return [
      { kind, text: "", bytes: bytes.subarray(0, length) },
      { ...decoder, phase }
    ]
  }
  if (bytes.length < typedHeader) return typedHeader
  const length = bytes.readUInt32BE(1) + 1
  if (length < typedHeader) return opaque()
  if (bytes.length < length) return length
  const kind: Kind = typed[String.fromCharCode(bytes[0]!) as keyof typeof typed] ?? "Unknown"
  const message = bytes.subarray(0, length)
  const [text, names] = read(kind, message, decoder)
  return [
    { kind, text, bytes: message },
    { ...decoder, ...names }
  ]
}

/** The messages that the chunk completes, and the decoder to go on with. */
export const push = (decoder: Decoder, chunk: Buffer): readonly [ReadonlyArray<FrontendMessage>, Decoder] => {
  const size = decoder.size + chunk.length
  const parts = [...decoder.parts, chunk]
  if (size < decoder.need) return [[], { ...decoder, parts, size }]
  const messages: Array<FrontendMessage> = []
  let state: Decoder = { ...decoder, parts: [], size: 0, need: 1 }
  let rest = parts.length === 1 ? chunk : Buffer.concat(parts)
  while (rest.length > 0) {
    const next = first(state, rest)
    if (typeof next === "number") return [messages, { ...state, parts: [rest], size: rest.length, need: next }]
    messages.push(next[0])
    state = next[1]
    rest = rest.subarray(next[0].bytes.length)
  }
  return [messages, state]
}
