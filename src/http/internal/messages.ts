/** The other end of the stream of events. Source: HTML Standard, 9.2.6, of which our stream uses only what is read here. */
import * as Chunk from "effect/Chunk"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Model from "../Model.js"

const decode = Schema.decode(Schema.parseJson(Model.Message))

const field = "data: "

/** The messages in what was sent, however it was cut up on the way; comments are left out. */
export const read = <E, R>(bytes: Stream.Stream<Uint8Array, E, R>) =>
  bytes.pipe(
    Stream.decodeText(),
    Stream.mapAccum("", (rest, text) => {
      const lines = (rest + text).split("\n")
      return [lines.at(-1) ?? "", Chunk.fromIterable(lines.slice(0, -1))]
    }),
    Stream.flattenChunks,
    Stream.filter((line) => line.startsWith(field)),
    Stream.mapEffect((line) => decode(line.slice(field.length)))
  )
