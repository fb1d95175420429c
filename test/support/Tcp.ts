/** Raw TCP peers that remember what they saw, for tests below any protocol. */

import { Buffer } from "node:buffer"
import * as Net from "node:net"
import { Effect, Queue } from "effect"

/** One end of a connection. */
export interface Peer {
  readonly socket: Net.Socket
  /** Everything received. */
  readonly received: () => Buffer
  /** `end` for FIN, the code of an error, `close`; in their order. */
  readonly events: ReadonlyArray<string>
}

const peer = (socket: Net.Socket): Peer => {
  const chunks: Array<Buffer> = []
  const events: Array<string> = []
  socket.setNoDelay(true)
  socket.on("data", (chunk: Buffer) => chunks.push(chunk))
  socket.on("end", () => events.push("end"))
  socket.on("error", (error: NodeJS.ErrnoException) => events.push(error.code ?? error.message))
  socket.on("close", () => events.push("close"))
  return { socket, events, received: () => Buffer.concat(chunks) }
}

/** A server that only accepts; what it accepted comes from `next`. */
export const server = Effect.gen(function* () {
  const accepted = yield* Queue.unbounded<Peer>()
  const sockets = new Set<Net.Socket>()
  const listener = yield* Effect.acquireRelease(
    Effect.async<Net.Server>((resume) => {
      const listener = Net.createServer({ allowHalfOpen: true }, (socket) => {
        sockets.add(socket)
        Queue.unsafeOffer(accepted, peer(socket))
      }).listen(0, "127.0.0.1", () => resume(Effect.succeed(listener)))
    }),
    (listener) =>
      Effect.sync(() => {
        for (const socket of sockets) socket.destroy()
        listener.close()
      })
  )
  const { port } = listener.address() as Net.AddressInfo
  return { host: "127.0.0.1", port, next: Queue.take(accepted), waiting: Queue.size(accepted) }
})

/** Connects; fails with the error's code. */
export const connect = (port: number) =>
  Effect.acquireRelease(
    Effect.async<Peer, string>((resume) => {
      const socket = Net.connect({ host: "127.0.0.1", port, allowHalfOpen: true })
      const connected = peer(socket)
      socket.once("connect", () => resume(Effect.succeed(connected)))
      socket.once("close", () => resume(Effect.fail(connected.events[0] ?? "close")))
    }),
    ({ socket }) => Effect.sync(() => socket.destroy())
  )
