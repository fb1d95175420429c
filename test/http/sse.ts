/** A strict reader of the stream of events: what it does not know, it throws at. */
import { Chunk, Effect, Queue, Schema, Stream } from "effect"
import * as Model from "../../src/http/Model.js"

export type Frame =
  | { readonly id: number; readonly retry: number | undefined; readonly message: Model.Message }
  | "heartbeat"

const decode = Schema.decodeUnknownSync(Schema.parseJson(Model.Message))
const shape = /^(?:retry: (\d+)\n)?id: (\d+)\nevent: ([A-Za-z]+)\ndata: (\{.*\})$/

export const parse = (frame: string): Frame => {
  if (frame === ":") return "heartbeat"
  const [, retry, id, event, data] = shape.exec(frame) ?? []
  if (data === undefined) throw new Error(`not a frame: ${frame.slice(0, 200)}`)
  const message = decode(data)
  if (message._tag !== event) throw new Error(`${event} with the data of ${message._tag}`)
  return { id: Number(id), retry: retry === undefined ? undefined : Number(retry), message }
}

/** The frames of a stream of bytes. */
export const frames = <E, R>(bytes: Stream.Stream<Uint8Array, E, R>): Stream.Stream<Frame, E, R> =>
  bytes.pipe(
    Stream.decodeText(),
    Stream.mapAccum("", (rest, text) => {
      const parts = (rest + text).split("\n\n")
      return [parts.at(-1)!, Chunk.fromIterable(parts.slice(0, -1))]
    }),
    Stream.flattenChunks,
    Stream.map(parse)
  )

/** Reads in the background; the queue is shut down where the stream ends. */
export const read = <E, R>(bytes: Stream.Stream<Uint8Array, E, R>) =>
  Effect.gen(function* () {
    const queue = yield* Queue.unbounded<Frame>()
    yield* Effect.forkScoped(
      Effect.ensuring(
        Stream.runForEach(frames(bytes), (frame) => Queue.offer(queue, frame)),
        Queue.shutdown(queue)
      )
    )
    return queue
  })
