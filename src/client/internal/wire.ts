/**
 * What is said to the server for one statement of the extended query protocol, in one buffer: one write, one packet.
 * Source: PostgreSQL manual, 54.2.3 "Extended Query" and 54.7 "Message Formats".
 */

/** One statement. Names: empty for the unnamed statement and portal. */
export interface Message {
  /** One command without values that is to be executed first: where it fails, the server skips all the rest. */
  readonly before?: string | undefined
  /** Prepared statements to be forgotten first. */
  readonly close: ReadonlyArray<string>
  /** To be parsed under `name`; undefined where the server has it. */
  readonly text: string | undefined
  readonly name: string
  /** Serialised: text, binary, or null. */
  readonly values: ReadonlyArray<string | Buffer | null>
  readonly portal: string
  /** Whether the server shall say what the rows look like. */
  readonly describe: boolean
  /** At most so many at a time; 0 for all. */
  readonly rows: number
}

const headerBytes = 5
const formatBytes = 2
const lengthBytes = 4
const closeType = "S".charCodeAt(0)
const portalType = "P".charCodeAt(0)

/** Fills a buffer of exactly the size that its messages take. */
class Writer {
  private at = 0
  constructor(readonly buffer: Buffer) {}

  begin(type: string, bytes: number): void {
    this.buffer[this.at++] = type.charCodeAt(0)
    this.int32(bytes - 1)
  }
  byte(value: number): void {
    this.buffer[this.at++] = value
  }
  int16(value: number): void {
    this.at = this.buffer.writeUInt16BE(value, this.at)
  }
  int32(value: number): void {
    this.at = this.buffer.writeInt32BE(value, this.at)
  }
  text(text: string): void {
    this.at += this.buffer.write(text, this.at)
  }
  cstring(text: string): void {
    this.text(text)
    this.byte(0)
  }
  bytes(bytes: Buffer): void {
    this.at += bytes.copy(this.buffer, this.at)
  }
  /** One command, without values and without rows, by the unnamed statement and portal. */
  unnamed(text: string): void {
    this.begin("P", headerBytes + 1 + cstringBytes(text) + formatBytes)
    this.byte(0)
    this.cstring(text)
    this.int16(0)
    this.begin("B", headerBytes + 2 + 3 * formatBytes)
    this.int16(0)
    this.int16(0)
    this.int16(0)
    this.int16(0)
    this.begin("E", headerBytes + 1 + lengthBytes)
    this.byte(0)
    this.int32(0)
  }
}

/** What `unnamed` takes beside its text, and the first header. */
const unnamedBytes = 1 + formatBytes + (headerBytes + 2 + 3 * formatBytes) + (headerBytes + 1 + lengthBytes)

const cstringBytes = (text: string) => Buffer.byteLength(text) + 1

/** Parse, Bind, Describe, Execute and Sync, as far as they are wanted; of what comes before, the first, second and fourth. */
export const encode = ({ before, close, describe, name, portal, rows, text, values }: Message): Buffer => {
  const beforeBytes = before === undefined ? 0 : headerBytes + cstringBytes(before) + unnamedBytes
  const nameBytes = cstringBytes(name)
  const portalBytes = cstringBytes(portal)
  const closeBytes = close.map((name) => headerBytes + 1 + cstringBytes(name))
  const parseBytes = text === undefined ? 0 : headerBytes + nameBytes + cstringBytes(text) + formatBytes
  let valueBytes = 0
  const lengths = values.map((value) => {
    const length = value === null ? 0 : typeof value === "string" ? Buffer.byteLength(value) : value.length
    valueBytes += lengthBytes + length
    return length
  })
  // Formats of the values, their number twice, and one format for all columns.
  const bindBytes = headerBytes + portalBytes + nameBytes + formatBytes * (values.length + 4) + valueBytes
  const describeBytes = describe ? headerBytes + 1 + portalBytes : 0
  const executeBytes = headerBytes + portalBytes + lengthBytes
  const writer = new Writer(
    Buffer.allocUnsafe(
      closeBytes.reduce(
        (sum, bytes) => sum + bytes,
        beforeBytes + parseBytes + bindBytes + describeBytes + executeBytes + headerBytes
      )
    )
  )
  for (const [index, name] of close.entries()) {
    writer.begin("C", closeBytes[index]!)
    writer.byte(closeType)
    writer.cstring(name)
  }
  if (before !== undefined) writer.unnamed(before)
  if (text !== undefined) {
    writer.begin("P", parseBytes)
    writer.cstring(name)
    writer.cstring(text)
    writer.int16(0)
  }
  writer.begin("B", bindBytes)
  writer.cstring(portal)
  writer.cstring(name)
  writer.int16(values.length)
  for (const value of values) writer.int16(value instanceof Buffer ? 1 : 0)
  writer.int16(values.length)
  for (let i = 0; i < values.length; i++) {
    const value = values[i]!
    writer.int32(value === null ? -1 : lengths[i]!)
    if (typeof value === "string") writer.text(value)
    else if (value !== null) writer.bytes(value)
  }
  writer.int16(1)
  writer.int16(0)
  if (describe) {
    writer.begin("D", describeBytes)
    writer.byte(portalType)
    writer.cstring(portal)
  }
  writer.begin("E", executeBytes)
  writer.cstring(portal)
  writer.int32(rows)
  writer.begin("S", headerBytes)
  return writer.buffer
}

/** A text without parameters, by the simple query protocol. Source: PostgreSQL manual, 54.2.2 "Simple Query". */
export const encodeQuery = (text: string): Buffer => {
  const bytes = headerBytes + cstringBytes(text)
  const writer = new Writer(Buffer.allocUnsafe(bytes))
  writer.begin("Q", bytes)
  writer.cstring(text)
  return writer.buffer
}

/** The next rows of a portal. */
export const encodeFetch = (portal: string, rows: number): Buffer => {
  const executeBytes = headerBytes + cstringBytes(portal) + lengthBytes
  const writer = new Writer(Buffer.allocUnsafe(executeBytes + headerBytes))
  writer.begin("E", executeBytes)
  writer.cstring(portal)
  writer.int32(rows)
  writer.begin("S", headerBytes)
  return writer.buffer
}

/** The end of a portal. */
export const encodeClose = (portal: string): Buffer => {
  const closeBytes = headerBytes + 1 + cstringBytes(portal)
  const writer = new Writer(Buffer.allocUnsafe(closeBytes + headerBytes))
  writer.begin("C", closeBytes)
  writer.byte(portalType)
  writer.cstring(portal)
  writer.begin("S", headerBytes)
  return writer.buffer
}
