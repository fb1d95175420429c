/** TCP sockets as effects: reads that wait, writes that wait until the system has taken the bytes, nothing that throws. */

import type { Buffer } from "node:buffer"
import * as Net from "node:net"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"

/** The socket was reset or destroyed. */
export class SocketLost extends Data.TaggedError("SocketLost")<{ readonly cause?: unknown }> {}

const ignore = () => {}

/** Keeps errors from ending the process, and small messages from waiting for each other. */
export const tame = (socket: Net.Socket): Net.Socket => socket.on("error", ignore).setNoDelay(true)

/** Reads what has come, waiting for something; undefined when the peer has sent FIN. One reader per socket. */
export const reader = (socket: Net.Socket): Effect.Effect<Buffer | undefined, SocketLost> => {
  let wake = ignore
  for (const event of ["readable", "end", "close"]) socket.on(event, () => wake())
  return Effect.async((resume) => {
    const look = () => {
      const settle = (result: Effect.Effect<Buffer | undefined, SocketLost>) => {
        wake = ignore
        resume(result)
      }
      const chunk: Buffer | null = socket.read()
      if (chunk !== null) return settle(Effect.succeed(chunk))
      if (socket.readableEnded) return settle(Effect.succeed(undefined))
      if (socket.destroyed) return settle(new SocketLost({ cause: socket.errored }))
      wake = look
    }
    look()
    return Effect.sync(() => {
      wake = ignore
    })
  })
}

/** Returns when the system has taken the bytes: with one write at a time, that is all the back pressure there need be. */
export const write = (socket: Net.Socket, bytes: Uint8Array): Effect.Effect<void, SocketLost> =>
  Effect.async((resume) => {
    socket.write(bytes, (cause) => resume(cause ? new SocketLost({ cause }) : Effect.void))
  })

/** Starts to connect. The socket stays half-open when the peer ends its side. */
export const connect = (options: { readonly host: string; readonly port: number }): Net.Socket =>
  tame(Net.connect({ ...options, allowHalfOpen: true }))

/** Waits until it is connected. */
export const connected = (socket: Net.Socket): Effect.Effect<void, SocketLost> =>
  Effect.async((resume) => {
    const failed = () => resume(new SocketLost({ cause: socket.errored }))
    socket.once("close", failed)
    socket.once("connect", () => {
      socket.off("close", failed)
      resume(Effect.void)
    })
  })

/** Accepts connections, which read nothing until they are asked to, and hands them over. */
export const listen = (
  options: { readonly host: string; readonly port: number },
  accept: (socket: Net.Socket) => void
): Effect.Effect<Net.Server, NodeJS.ErrnoException> =>
  Effect.async((resume) => {
    const server = Net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => accept(tame(socket)))
    server.once("error", (error) => resume(Effect.fail(error)))
    server.listen(options, () => resume(Effect.succeed(server)))
    return Effect.sync(() => server.close())
  })

/** FIN after everything written, then whatever the peer still sends is taken and forgotten until it has closed too. */
export const finish = (socket: Net.Socket): void => {
  socket.end()
  socket.on("readable", () => socket.read()) // unread bytes would turn FIN into RST
  socket.read()
}
