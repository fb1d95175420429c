/**
 * Everything that watches the database, as one layer: a `HealthMonitor`, `Alerts` by the standard rules, told to the log and,
 * where there is one, to a webhook.
 *
 * ```ts
 * Monitoring.layerEnv.pipe(Layer.provideMerge(ResilientPg.layerEnv))
 * ```
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import type * as PgClient from "@effect/sql-pg/PgClient"
import type * as Config from "effect/Config"
import type * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Variable } from "../config/ResilienceConfig.js"
import type * as PgError from "../error/PgError.js"
import type * as CircuitBreaker from "../policy/CircuitBreaker.js"
import type * as ResilientPg from "../ResilientPg.js"
import * as Alerts from "./Alerts.js"
import * as AlertWebhook from "./AlertWebhook.js"
import * as HealthMonitor from "./HealthMonitor.js"
import * as env from "./internal/monitoringEnv.js"
import * as internal from "./internal/thresholds.js"

export interface Options {
  /** Whether anything happens by itself. `false`: checks are made when asked for, and no alert is raised. Default true. */
  readonly enabled?: boolean | undefined
  readonly health?: HealthMonitor.Options | undefined
  /** In the place of the standard rules. Default `Alerts.rules`. */
  readonly rules?: ReadonlyArray<Alerts.Rule> | undefined
  /** Where the rules of a measure are raised instead; see `Alerts.Options`. */
  readonly thresholds?: Alerts.Thresholds | undefined
  /** Whether alerts are told to the log. Default true. */
  readonly log?: boolean | undefined
  /** Whom to post alerts to, with `fetch`. Default: nobody. */
  readonly webhook?: AlertWebhook.Options | undefined
}

export const defaults = { enabled: true, health: HealthMonitor.defaults, log: true } as const satisfies Options

/** What it watches. */
export type Needs = PgClient.PgClient | ResilientPg.ResilientPg | CircuitBreaker.CircuitBreaker

/** Until the scope closes. Fails with the options that cannot be accepted. */
export const layer = ({
  enabled = defaults.enabled,
  health = {},
  log = defaults.log,
  rules,
  thresholds,
  webhook
}: Options = {}): Layer.Layer<HealthMonitor.HealthMonitor | Alerts.Alerts, PgError.PgError, Needs> =>
  Layer.mergeAll(
    enabled && log ? Alerts.layerLog : Layer.empty,
    enabled && webhook !== undefined ? Layer.provide(AlertWebhook.layer(webhook), FetchHttpClient.layer) : Layer.empty
  ).pipe(
    Layer.provideMerge(Alerts.layer(enabled ? { rules, thresholds } : { rules: [] })),
    Layer.provideMerge(HealthMonitor.layer(enabled ? health : { ...health, interval: "infinity" }))
  )

/**
 * The options out of the environment variables that `variables` lists, and of `NODE_ENV`: with `development` or `test` a
 * check is made every 10 seconds. Fails with one `ConfigError` that names every variable that is malformed.
 */
export const fromEnv: Config.Config<Options> = env.options

/** `layer`, from the environment. */
export const layerEnv: Layer.Layer<
  HealthMonitor.HealthMonitor | Alerts.Alerts,
  ConfigError.ConfigError | PgError.PgError,
  Needs
> = Layer.unwrapEffect(Effect.map(fromEnv, layer))

const raiseOf = (measure: Alerts.Measure) => {
  const { raise } = Alerts.rules.find((rule) => rule.measure === measure)!
  return Alerts.units[measure] === "share" ? raise * 100 : raise
}

/** One environment variable, and all of them. */
export type { Variable }
export const variables: ReadonlyArray<Variable> = env.variables({
  enabled: defaults.enabled,
  health: { interval: HealthMonitor.intervals[HealthMonitor.defaults.environment] },
  thresholds: Object.fromEntries(Object.keys(env.variableOf).map((_) => [_, raiseOf(_ as Alerts.Threshold)]))
})

/** The standard rules for people, as a Markdown table: what the documentation shows. */
export const table: string = internal.table<Alerts.Measure>(Alerts.rules, Alerts.units, env.variableOf)
