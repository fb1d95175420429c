/** Messages of PostgreSQL's frontend protocol as bytes. Source: PostgreSQL manual, "Message Formats". */
import { Buffer } from "node:buffer"

const int32 = (value: number) => {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32BE(value >>> 0)
  return bytes
}
const cString = (text: string) => Buffer.from(`${text}\0`)
const packet = (...parts: ReadonlyArray<Buffer>) => {
  const body = Buffer.concat(parts)
  return Buffer.concat([int32(body.length + 4), body])
}

/** A typed message. */
export const message = (type: string, ...parts: ReadonlyArray<Buffer>) =>
  Buffer.concat([Buffer.from(type), packet(...parts)])

export const request = (kind: "SSLRequest" | "GSSENCRequest") =>
  packet(int32(kind === "SSLRequest" ? 80877103 : 80877104))
export const cancel = (pid: number, key: number) => packet(int32(80877102), int32(pid), int32(key))
export const startup = (parameters: Readonly<Record<string, string>>) =>
  packet(int32(196608), ...Object.entries(parameters).flat().map(cString), Buffer.alloc(1))

export const query = (sql: string) => message("Q", cString(sql))
export const parse = (sql: string, name = "") => message("P", cString(name), cString(sql), Buffer.alloc(2))
export const bind = (statement = "") => message("B", cString(""), cString(statement), Buffer.alloc(6))
export const execute = message("E", cString(""), int32(0))
export const sync = message("S")
