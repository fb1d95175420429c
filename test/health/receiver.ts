/** Who is posted to by a webhook. */
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { Effect, Queue } from "effect"

interface Received {
  readonly path: string
  readonly authorization: string | undefined
  readonly body: any
}

/** A receiver on a port of its own, that answers as told; `undefined` is no answer at all. */
export const receiver = (answer: (request: number) => number | undefined) =>
  Effect.gen(function* () {
    const received = yield* Queue.unbounded<Received>()
    let requests = 0
    const server = createServer((request, response) => {
      const chunks: Array<Buffer> = []
      request.on("data", (chunk) => chunks.push(chunk))
      request.on("end", () => {
        const status = answer(++requests)
        received.unsafeOffer({
          path: request.url!,
          authorization: request.headers.authorization,
          body: JSON.parse(Buffer.concat(chunks).toString())
        })
        if (status !== undefined) response.writeHead(status).end("ok")
      })
    })
    yield* Effect.acquireRelease(
      Effect.async<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
      () =>
        Effect.async<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    )
    const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/T0/secret-hook`
    return { url, received, requests: () => requests }
  })
