/**
 * What PostgreSQL sends to a client once the session is set up, cut into messages: a type byte, a length, the rest. A pure
 * decoder over any chunking of the bytes.
 */
import { Buffer } from "node:buffer"

export interface BackendMessage {
  /** The type byte as a character; `Z` is ReadyForQuery. Empty when the bytes are not of this protocol. */
  readonly type: string
  readonly bytes: Buffer
}

export interface Decoder {
  readonly parts: ReadonlyArray<Buffer>
  readonly size: number
  /** No message can be complete with fewer bytes. */
  readonly need: number
}

const header = 5

export const initial: Decoder = { parts: [], size: 0, need: header }

/** The messages that the chunk completes, and the decoder to go on with. */
export const push = (decoder: Decoder, chunk: Buffer): readonly [ReadonlyArray<BackendMessage>, Decoder] => {
  const size = decoder.size + chunk.length
  const parts = [...decoder.parts, chunk]
  if (size < decoder.need) return [[], { ...decoder, parts, size }]
  const messages: Array<BackendMessage> = []
  let rest = parts.length === 1 ? chunk : Buffer.concat(parts)
  while (rest.length >= header) {
    const length = rest.readUInt32BE(1) + 1
    if (length < header) return [[...messages, { type: "", bytes: rest }], initial]
    if (rest.length < length) return [messages, { parts: [rest], size: rest.length, need: length }]
    messages.push({ type: String.fromCharCode(rest[0]!), bytes: rest.subarray(0, length) })
    rest = rest.subarray(length)
  }
  return [messages, rest.length === 0 ? initial : { parts: [rest], size: rest.length, need: header }]
}
