/** The command `watch`: a dashboard on the terminal, of a database or of a running program. */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as ResilienceConfig from "../../../config/ResilienceConfig.js"
import type * as PgError from "../../../error/PgError.js"
import * as Database from "../../internal/watch/database.js"
import type { View } from "../../internal/watch/line.js"
import * as Service from "../../internal/watch/service.js"
import * as client from "./client.js"
import type { Subject } from "./health.js"
import * as remote from "./remote.js"
import * as screen from "./screen.js"

const database = (url: Redacted.Redacted, interval: number): Stream.Stream<View, PgError.PgError> =>
  Stream.unwrapScoped(
    Effect.gen(function* () {
      const { target } = yield* ResilienceConfig.decode({ url })
      const name = `${target.username ?? ""}@${target.host}:${target.port}/${target.database}`
      return Database.samples(yield* client.ask(url), interval).pipe(
        Stream.mapAccum(undefined as Database.State | undefined, (before, sample) => {
          const state = Database.next(before, sample)
          return [state, Database.view(state, name)]
        })
      )
    })
  )

/** Every second something is heard; what is shown is the latest at the interval, and a loss at once. */
const service = (url: string, interval: number) =>
  Service.heard(url, (error) => remote.explained(url)(error).message).pipe(
    Stream.mapAccum({ state: Service.initial, shown: Number.NEGATIVE_INFINITY }, ({ shown, state: before }, heard) => {
      const state = Service.next(before, heard)
      const at =
        heard._tag === "Tick" ? heard.tick.at : heard._tag === "Lost" || heard._tag === "Hello" ? heard.at : shown
      // A tick comes a little early or late.
      const due = heard._tag === "Lost" || heard._tag === "Hello" || at - shown >= interval * 0.9
      return [{ state, shown: due ? at : shown }, due ? [Service.view(state, url)] : []]
    }),
    Stream.mapConcat((views) => views)
  )

export interface Options {
  readonly subject: Subject
  readonly seconds: number
  /** Views after which it ends by itself. */
  readonly count: number | undefined
}

export const run = ({ count, seconds, subject }: Options): Effect.Effect<void, PgError.PgError> => {
  const interval = Duration.toMillis(Duration.seconds(seconds))
  const limited = <E, R>(views: Stream.Stream<View, E, R>) =>
    screen.show(count === undefined ? views : Stream.take(views, count))
  return subject._tag === "Service"
    ? Effect.provide(limited(service(subject.url, interval)), FetchHttpClient.layer)
    : limited(database(subject.url, interval))
}
