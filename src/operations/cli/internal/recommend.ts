/** The command `pool recommend`: how large a pool should be, and why. */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Platform from "../../../config/Platform.js"
import * as PoolSizing from "../../../config/PoolSizing.js"
import { facts } from "../../../http/internal/connectionTest.js"
import { print } from "../shared.js"
import * as client from "./client.js"
import * as style from "./style.js"

/** What the server says of its own limits. */
const asked = (url: Redacted.Redacted) =>
  Effect.map(Effect.scoped(Effect.flatMap(client.ask(url), facts)), ({ server }) => ({
    maxConnections: server.max_connections,
    reserved: server.reserved
  }))

const text = ({ max, min, reasons, warnings }: PoolSizing.Recommendation, { paint, width }: style.Style): string =>
  [
    `${paint("bold", `maxConnections ${max}`)} (DB_POOL_MAX), ${paint("bold", `minConnections ${min}`)} (DB_POOL_MIN)`,
    "",
    ...reasons.flatMap((reason) => style.fold(reason, width)),
    ...warnings.flatMap((warning) => style.fold(`${paint("yellow", "Warning:")} ${warning}`, width))
  ].join("\n")

export interface Options extends PoolSizing.Input {
  /** Asked for its limits; without one, they are the platform's. */
  readonly url: Option.Option<Redacted.Redacted>
  readonly json: boolean
}

export const run = ({ json, url, ...input }: Options) =>
  Effect.gen(function* () {
    const server = Option.isSome(url) ? yield* asked(url.value) : undefined
    // The reserve is the larger of the platform's and the server's own; a limit that was given wins over both.
    const reserve = Math.max(Platform.platforms[input.platform ?? "local"].reserved, server?.reserved ?? 0)
    const known: PoolSizing.Input = {
      ...input,
      maxConnections: input.maxConnections ?? server?.maxConnections,
      reserved: input.reserved ?? (server === undefined ? undefined : reserve)
    }
    const recommendation = PoolSizing.recommend(known)
    yield* print(json, { input: known, ...recommendation }, () => text(recommendation, style.ofProcess()))
  })
