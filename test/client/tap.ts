/** What goes over the wire, connection by connection, as it is seen by somebody between client and server. */
import * as Net from "node:net"
import { Array as Arr, Effect, Redacted } from "effect"
import * as Backend from "../../src/testing/internal/backendMessages.js"
import * as Frontend from "../../src/testing/internal/frontendMessages.js"

/** One execution of a statement, as it came by. */
export interface Sent {
  /** Rises with each accepted connection. */
  readonly connection: number
  readonly text: string
  /** What was sent on the same connection before it, and was not answered yet. */
  readonly ahead: ReadonlyArray<string>
}

/** A CancelRequest, as it came by. */
export interface Cancel {
  readonly connection: number | undefined
  /** What was on the way on the connection that it is for. */
  readonly onWire: ReadonlyArray<string>
}

/** A name of a statement in a message, as it came by: its Parse, its use by a Bind, its Close, or that the Parse was answered. */
export interface Naming {
  readonly connection: number
  readonly what: "parse" | "bind" | "close" | "parsed"
  readonly name: string
}

const cString = (bytes: Buffer, from: number) => bytes.toString("utf8", from, bytes.indexOf(0, from))
const header = 5

/** What came by on one connection. */
const watch = (connection: number, log: Log) => {
  let frontend = Frontend.initial
  let backend = Backend.initial
  let text = ""
  let processId = 0
  const pending: Array<string> = []
  const parsing: Array<string> = []
  const note = (what: Naming["what"], name: string) => log.names.push({ connection, what, name })
  const begin = (text: string) => {
    log.sent.push({ connection, text, ahead: [...pending] })
    pending.push(text)
  }
  const end = () => {
    log.open.delete(processId)
    pending.length = 0
  }
  const fromClient = (chunk: Buffer) => {
    const [messages, next] = Frontend.push(frontend, chunk)
    frontend = next
    for (const { bytes, kind, text: sql } of messages) {
      if (kind === "CancelRequest") {
        const target = log.open.get(bytes.readUInt32BE(8))
        log.cancels.push({ connection: target?.connection, onWire: [...(target?.pending ?? [])] })
      }
      if (kind === "Query") begin(sql)
      if (kind === "Parse") {
        parsing.push(cString(bytes, header))
        note("parse", parsing.at(-1)!)
      }
      if (kind === "Bind") note("bind", cString(bytes, bytes.indexOf(0, header) + 1))
      if (kind === "Close") note("close", cString(bytes, header + 1))
      if (sql !== "") text = sql
      if (kind === "Sync") begin(text)
    }
  }
  const fromServer = (chunk: Buffer) => {
    const [messages, next] = Backend.push(backend, chunk)
    backend = next
    for (const { bytes, type } of messages) {
      if (type === "K") {
        processId = bytes.readUInt32BE(header)
        log.open.set(processId, { connection, pending })
      }
      if (type === "1") note("parsed", parsing.shift() ?? "")
      if (type === "Z") pending.shift()
    }
  }
  return { fromClient, fromServer, end }
}

interface Log {
  sent: Array<Sent>
  cancels: Array<Cancel>
  names: Array<Naming>
  /** By the server process. */
  readonly open: Map<number, { readonly connection: number; readonly pending: ReadonlyArray<string> }>
}

/** Listens until the scope closes, and passes everything on to where `url` leads. */
export const tapped = (url: Redacted.Redacted) =>
  Effect.gen(function* () {
    const log: Log = { sent: [], cancels: [], names: [], open: new Map() }
    const target = new URL(Redacted.value(url))
    const sockets = new Set<Net.Socket>()
    let accepted = 0
    const carry = (client: Net.Socket) => {
      const server = Net.connect({ host: target.hostname, port: Number(target.port), allowHalfOpen: true })
      const seen = watch(++accepted, log)
      const join = (from: Net.Socket, to: Net.Socket, see: (chunk: Buffer) => void) => {
        sockets.add(from)
        from.setNoDelay(true)
        from.on("data", (chunk: Buffer) => {
          see(chunk)
          to.write(chunk)
        })
        from.on("end", () => to.end())
        from.on("error", () => to.resetAndDestroy())
        from.on("close", () => {
          sockets.delete(from)
          seen.end()
        })
      }
      join(client, server, seen.fromClient)
      join(server, client, seen.fromServer)
    }
    const listener = yield* Effect.acquireRelease(
      Effect.async<Net.Server>((resume) => {
        const listener = Net.createServer({ allowHalfOpen: true }, carry).listen(0, "127.0.0.1", () =>
          resume(Effect.succeed(listener))
        )
      }),
      (listener) =>
        Effect.sync(() => {
          for (const socket of sockets) socket.destroy()
          listener.close()
        })
    )
    const through = new URL(target)
    through.hostname = "127.0.0.1"
    through.port = String((listener.address() as Net.AddressInfo).port)
    return {
      url: Redacted.make(through.href),
      /** Executions of statements whose text the pattern finds, since `clear`. */
      sent: (pattern = /./s) => Effect.sync(() => Arr.filter(log.sent, ({ text }) => pattern.test(text))),
      /** Those of them that were sent before the one ahead of them was answered. */
      shared: (pattern = /./s) =>
        Effect.sync(() => Arr.filter(log.sent, ({ ahead, text }) => ahead.length > 0 && pattern.test(text))),
      cancels: Effect.sync(() => [...log.cancels]),
      names: Effect.sync(() => [...log.names]),
      /** Sockets that are open on either side. */
      sockets: Effect.sync(() => sockets.size),
      clear: Effect.sync(() => {
        log.sent = []
        log.cancels = []
        log.names = []
      })
    }
  })

export type Tap = Effect.Effect.Success<ReturnType<typeof tapped>>
