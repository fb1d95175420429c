/**
 * The environment variables: one table of what each name means, and its reading as a `Config`.
 *
 * A variable that is missing leaves its option alone; one that is there and malformed is an error, as are two names of
 * the same option with different values. Errors name the variable; the URL's text is in none of them.
 */
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import * as Platform from "../Platform.js"
import { defaults, limitOrZero, rules } from "./options.js"
import * as target from "./target.js"
import * as validate from "./validate.js"

/**
 * What a variable's text is. Plain numbers are counts, milliseconds or seconds; a `duration` is a plain number of
 * milliseconds or a text such as `30 seconds`; a `switch` is true or false, yes or no, on or off, 1 or 0; a `percent` is a
 * number without its sign.
 */
export type Unit =
  | "url"
  | "count"
  | "milliseconds"
  | "seconds"
  | "duration"
  | "switch"
  | "tls"
  | "platform"
  | "environment"
  | "percent"
  | "name"

/** One setting: the option it stands for, how its value is judged, and every name it goes by, the first one preferred. */
export interface Setting<A> {
  readonly doc: string
  readonly rule: validate.Rule<A>
  readonly required?: boolean
  readonly names: { readonly [name: string]: { readonly unit: Unit; readonly note?: string } }
}

export const setting = <A>(self: Setting<A>) => self

const switches = new Map([
  ["true", true],
  ["yes", true],
  ["on", true],
  ["1", true],
  ["false", false],
  ["no", false],
  ["off", false],
  ["0", false]
])

const platform = validate.rule(`one of ${Platform.names.join(", ")}`, (value) =>
  Option.fromNullable(Platform.fromName(String(value)))
)

/** Test runners set `test`, which is development as far as a database goes. */
export const environment = validate.map(
  validate.literal("production", "staging", "development", "test"),
  (name): Platform.Environment => (name === "test" ? "development" : name)
)

const retryDelay = validate.duration({ max: validate.maxMillis })

/** By the path of the option, in the order of the way of a query. */
export const settings = {
  url: setting({
    doc: "Where to connect and as whom. Required.",
    rule: validate.secret((value, field) => Either.map(target.url(value, field), () => value as Redacted.Redacted)),
    required: true,
    names: { DATABASE_URL: { unit: "url" } }
  }),
  ssl: setting({
    doc: "TLS on or off, or `no-verify` for TLS without a look at the certificate. What the URL says wins.",
    rule: target.ssl,
    names: { DB_SSL: { unit: "tls" } }
  }),
  platform: setting({
    doc: `Takes pool size, timeouts and TLS from the table of platforms: ${Platform.names.join(", ")}. Every other variable wins over it.`,
    rule: platform,
    names: { PLATFORM: { unit: "platform" } }
  }),
  environment: setting({
    doc: "The platform's column: production (default), staging, development; `test` is development. Without `PLATFORM` or `EXPECTED_CONCURRENCY` it changes nothing.",
    rule: environment,
    names: { NODE_ENV: { unit: "environment" } }
  }),
  expectedConcurrency: setting({
    doc: "Operations of this instance that want a connection at once. Sizes the pool by `PoolSizing.recommend`.",
    rule: validate.integer({ min: 1 }),
    names: { EXPECTED_CONCURRENCY: { unit: "count" } }
  }),
  minConnections: setting({
    doc: "Connections opened in advance and kept.",
    rule: rules.minConnections,
    names: { DB_POOL_MIN: { unit: "count" } }
  }),
  maxConnections: setting({
    doc: "Connections at most.",
    rule: rules.maxConnections,
    names: {
      DB_POOL_MAX: { unit: "count" },
      DB_CONNECTION_LIMIT: { unit: "count", note: "as Prisma's `connection_limit`" },
      DATABASE_MAX_CONNECTIONS: { unit: "count" }
    }
  }),
  acquireTimeout: setting({
    doc: "How long to wait for a connection, opening one included. 0: without end.",
    rule: limitOrZero,
    names: {
      DB_CONNECTION_TIMEOUT_MS: { unit: "milliseconds", note: "as node-postgres's `connectionTimeoutMillis`" },
      DB_POOL_TIMEOUT: { unit: "seconds", note: "as Prisma's `pool_timeout`" },
      DATABASE_CONNECTION_TIMEOUT: { unit: "duration" }
    }
  }),
  idleTimeout: setting({
    doc: "A connection above the minimum is closed after this time unused. 0: never.",
    rule: limitOrZero,
    names: {
      DB_IDLE_TIMEOUT_MS: { unit: "milliseconds", note: "as node-postgres's `idleTimeoutMillis`" },
      DATABASE_IDLE_TIMEOUT: { unit: "duration" }
    }
  }),
  "serverTimeouts.statement": setting({
    doc: "The server's `statement_timeout`. 0: none, whatever the server's own default.",
    rule: target.serverTimeout,
    names: { DB_STATEMENT_TIMEOUT_MS: { unit: "milliseconds" }, DATABASE_STATEMENT_TIMEOUT: { unit: "duration" } }
  }),
  timeouts: setting({
    doc: "Whether operations have deadlines of their own: the client-side timeouts as a stage.",
    rule: validate.boolean,
    names: { DB_TIMEOUTS: { unit: "switch" } }
  }),
  "retry.retries": setting({
    doc: "Retries of one operation, all failures counted together. 0 switches retrying off.",
    rule: validate.integer({ max: 1_000 }),
    names: { DB_MAX_RETRIES: { unit: "count" } }
  }),
  "retry.first": setting({
    doc: "The longest delay before the first retry of work that waits for the server, for a slot or for a lock.",
    rule: retryDelay,
    names: { DB_RETRY_INITIAL_DELAY_MS: { unit: "milliseconds" } }
  }),
  "retry.cap": setting({
    doc: "No delay of these is longer.",
    rule: retryDelay,
    names: { DB_RETRY_MAX_DELAY_MS: { unit: "milliseconds" } }
  }),
  breaker: setting({
    doc: "Whether the circuit breaker is there, as a stage.",
    rule: validate.boolean,
    names: { DB_CIRCUIT_BREAKER: { unit: "switch" } }
  }),
  "breaker.failureThreshold": setting({
    doc: "Failures of the server within a minute, with no success between them, that open the circuit.",
    rule: validate.integer({ min: 1 }),
    names: { DB_CB_FAILURE_THRESHOLD: { unit: "count" } }
  }),
  "breaker.resetTimeout": setting({
    doc: "How long the circuit stays open before it admits probes, unless a connection succeeds before.",
    rule: validate.duration(),
    names: { DB_CB_TIMEOUT: { unit: "milliseconds" } }
  })
}

export type Settings = typeof settings
export type Field = keyof Settings

/** A setting that was given, and under which name. */
export interface Given<A> {
  readonly name: string
  readonly text: string
  readonly value: A
}

type Table = { readonly [field: string]: Setting<any> }

/** What the environment gives, by field. */
export type EnvironmentOf<T extends Table> = {
  readonly [F in keyof T]: Option.Option<Given<validate.Decoded<T[F]["rule"]>>>
}

export type Environment = EnvironmentOf<Settings>

const numberOf = (text: string): Option.Option<number | string> =>
  /^[+-]?\d+(\.\d+)?$/.test(text)
    ? Option.some(Number(text))
    : text.toLowerCase() === "infinity"
      ? Option.some("infinity")
      : Option.none()

/** What the text of a unit stands for, before its rule judges it; `expected` is for texts that stand for nothing. */
const units: {
  readonly [U in Unit]: { readonly expected: string; readonly read: (text: string) => Option.Option<unknown> }
} = {
  url: { expected: "a URL", read: (text) => Option.some(Redacted.make(text)) },
  count: { expected: "a whole number", read: numberOf },
  milliseconds: { expected: "a number of milliseconds", read: numberOf },
  seconds: {
    expected: "a number of seconds",
    read: (text) => Option.map(numberOf(text), (value) => (typeof value === "number" ? value * 1_000 : value))
  },
  duration: {
    expected: 'a duration such as "30 seconds", or a number of milliseconds',
    read: (text) => Option.orElse(numberOf(text), () => Option.some(text))
  },
  switch: { expected: "true or false", read: (text) => Option.fromNullable(switches.get(text.toLowerCase())) },
  tls: {
    expected: "true, false or no-verify",
    read: (text) =>
      text.toLowerCase() === "no-verify"
        ? Option.some({ rejectUnauthorized: false })
        : Option.fromNullable(switches.get(text.toLowerCase()))
  },
  platform: { expected: "the name of a platform", read: Option.some },
  environment: { expected: "the name of an environment", read: (text) => Option.some(text.toLowerCase()) },
  percent: { expected: "a percentage", read: numberOf },
  name: { expected: "a name", read: (text) => Option.some(text.toLowerCase()) }
}

/** `Config` puts in front of the name what a program has nested it in. */
export const invalid = (name: string, message: string) => ConfigError.InvalidData([name], message)

const decode = <A>(name: string, unit: Unit, rule: validate.Rule<A>, text: string): Either.Either<A, string> => {
  const shown = unit === "url" ? "<redacted>" : JSON.stringify(validate.shown(text))
  const { expected, read } = units[unit]
  if (text === "") return Either.left(`${name} is empty: leave it out for the default, or give ${expected}`)
  return Either.fromOption(read(text), () => expected).pipe(
    Either.flatMap((value) => Either.mapLeft(rule(value, name), (faults) => faults.map((_) => _.expected).join(", "))),
    Either.mapLeft((wanted) => `${name} is ${shown}, expected ${wanted}`)
  )
}

const variable = <A>(name: string, unit: Unit, rule: validate.Rule<A>): Config.Config<Option.Option<Given<A>>> =>
  Config.redacted(name).pipe(
    Config.mapOrFail((redacted) => {
      const text = Redacted.value(redacted).trim()
      return Either.mapBoth(decode(name, unit, rule, text), {
        onLeft: (message) => invalid(name, message),
        onRight: (value): Given<A> => ({ name, text: unit === "url" ? "<redacted>" : text, value })
      })
    }),
    Config.option
  )

/** All names of one setting: none given, or all that are given mean the same. */
const read = <A>({ names, required = false, rule }: Setting<A>): Config.Config<Option.Option<Given<A>>> =>
  Config.all(Object.entries(names).map(([name, { unit }]) => variable(name, unit, rule))).pipe(
    Config.mapOrFail((all) => {
      const [first, ...others] = Option.reduceCompact(all, [] as Array<Given<A>>, (given, one) => [...given, one])
      const other = others.find((_) => _.value !== first?.value)
      if (first === undefined && required) {
        const name = Object.keys(names).join(" or ")
        return Either.left(ConfigError.MissingData([name], `${name} is required`))
      }
      return first === undefined || other === undefined
        ? Either.right(Option.fromNullable(first))
        : Either.left(
            invalid(
              first.name,
              `${first.name} is ${JSON.stringify(first.text)} and ${other.name} is ${JSON.stringify(other.text)}, ` +
                "which are two names of one setting: give one of them"
            )
          )
    })
  )

/** Every setting of a table, each judged by itself; all that is wrong is in one error. */
export const all = <T extends Table>(table: T): Config.Config<EnvironmentOf<T>> =>
  Config.all(
    Object.fromEntries(Object.entries(table).map(([field, self]) => [field, read(self)]))
  ) as Config.Config<any>

export const environmentVariables: Config.Config<Environment> = all(settings)

/** One name, as a table for people shows it. */
export interface Variable {
  readonly name: string
  /** The option that it sets, by its path in `Options`, or what it selects. */
  readonly option: string
  readonly unit: Unit
  /** What holds where it is missing: the option's default, or nothing. */
  readonly default: string | undefined
  /** Other names of the same setting. */
  readonly synonyms: ReadonlyArray<string>
  readonly doc: string
}

/** The default of an option by its path: a number or a duration as it is written, `true` for a stage that is there. */
const defaultOf = (path: string, all: object): string | undefined => {
  const value = path
    .split(".")
    .reduce<unknown>((part, key) => (Predicate.hasProperty(part, key) ? part[key] : undefined), all)
  return value === undefined ? undefined : Predicate.isObject(value) ? "true" : String(value)
}

/** The table for people; `all` holds the defaults by the options' paths. */
export const variablesOf = (table: Table, all: object): ReadonlyArray<Variable> =>
  Object.entries<Setting<unknown>>(table).flatMap(([option, { doc, names }]) => {
    const [preferred] = Object.keys(names)
    return Object.entries(names).map(([name, { note, unit }]) => ({
      name,
      option,
      unit,
      default: defaultOf(option, all),
      synonyms: Object.keys(names).filter((_) => _ !== name),
      doc:
        name !== preferred
          ? `Another name of \`${preferred}\`${note === undefined ? "" : `, ${note}`}.`
          : note === undefined
            ? doc
            : `${doc} The same ${note}.`
    }))
  })

export const variables: ReadonlyArray<Variable> = variablesOf(settings, defaults)
