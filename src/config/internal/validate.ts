/**
 * Checking of options: a rule turns one value into its decoded form, or into faults. Rules for records check every
 * field before they answer, so that whoever built the options sees all that is wrong with them at once.
 *
 * Nothing is repaired: a value is taken as it stands or refused. A fault never holds an object, and never a secret.
 */
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Redacted from "effect/Redacted"
import type * as Types from "effect/Types"
import { type Fault, InvalidOptionsError } from "../../error/PgError.js"

/** Decodes the value of one field; `field` is its full path, such as `timeouts.query`. */
export type Rule<A> = (value: unknown, field: string) => Either.Either<A, ReadonlyArray<Fault>>

/** What a rule decodes to. */
export type Decoded<R> = R extends Rule<infer A> ? A : never

/** The longest delay that Node's timers keep, and the largest setting of PostgreSQL in milliseconds: 24.8 days. */
export const maxMillis = 2 ** 31 - 1

/** A value as a fault may show it: short, on one line, and without what an object or a `Redacted` holds. */
export const shown = (value: unknown): unknown => {
  if (Predicate.isString(value)) return value.length > 80 ? `${value.slice(0, 80)}…` : value
  if (Duration.isDuration(value)) return Duration.format(value)
  if (Redacted.isRedacted(value)) return "<redacted>"
  if (Predicate.isFunction(value)) return "a function"
  if (Array.isArray(value)) return "an array"
  return Predicate.isObject(value) ? "an object" : value
}

/** One value that is not acceptable, as the `Left` of a rule, or among the faults that a relation finds. */
export const fault = (field: string, value: unknown, expected: string): Fault => ({
  field,
  value: shown(value),
  expected
})

/** A rule out of a partial function; `expected` completes the phrase "expected …". */
export const rule =
  <A>(expected: string, decode: (value: unknown) => Option.Option<A>): Rule<A> =>
  (value, field) =>
    Either.fromOption(decode(value), () => [fault(field, value, expected)])

/** Values of one type, as they are. */
export const refined = <A>(expected: string, refinement: Predicate.Refinement<unknown, A>): Rule<A> =>
  rule(expected, Option.liftPredicate(refinement))

const range = (min: number, max: number | undefined, unit = "") =>
  max === undefined ? `of ${min}${unit} or more` : `from ${min}${unit} to ${max}${unit}`

interface Range {
  /** The least that is accepted. Default 0. */
  readonly min?: number | undefined
  /** The most that is accepted. Default: no bound. */
  readonly max?: number | undefined
  /** Whether `"infinity"` and `Infinity` are accepted, as `Infinity`. Default `false`. */
  readonly infinity?: boolean | undefined
}

const orInfinity = (expected: string, infinity: boolean) => (infinity ? `${expected}, or "infinity"` : expected)

const isInfinity = (value: unknown): boolean =>
  value === Number.POSITIVE_INFINITY ||
  value === "infinity" ||
  value === "Infinity" ||
  (Duration.isDuration(value) && !Duration.isFinite(value)) ||
  (Array.isArray(value) && value.length === 2 && value.includes(Number.POSITIVE_INFINITY))

const numeric =
  (kind: string, is: (value: number) => boolean) =>
  ({ min = 0, max, infinity = false }: Range = {}): Rule<number> =>
    rule(orInfinity(`${kind} ${range(min, max)}`, infinity), (value) => {
      if (infinity && isInfinity(value)) return Option.some(Number.POSITIVE_INFINITY)
      return Predicate.isNumber(value) && is(value) && value >= min && value <= (max ?? Number.POSITIVE_INFINITY)
        ? Option.some(value)
        : Option.none()
    })

/** Safe integers. */
export const integer = numeric("an integer", Number.isSafeInteger)

/** Finite numbers. */
export const number = numeric("a number", Number.isFinite)

/** `Duration.decode` turns what is negative or not a number into zero without a word; here it is refused. */
const millisOf = (value: unknown): Option.Option<number> => {
  const negative =
    Predicate.isNumber(value) || Predicate.isBigInt(value)
      ? !(value >= 0)
      : Predicate.isString(value)
        ? value.startsWith("-")
        : Array.isArray(value) && value.some((part) => !(part >= 0))
  return negative || isInfinity(value) ? Option.none() : Option.map(Duration.decodeUnknown(value), Duration.toMillis)
}

/**
 * A `DurationInput`, decoded to milliseconds. `min` and `max` are milliseconds; `min` is 1 unless given, since a limit
 * of nothing is most often a slip. `whole` refuses fractions of a millisecond.
 */
export const duration = ({
  min = 1,
  max,
  infinity = false,
  whole = false
}: Range & { readonly whole?: boolean | undefined } = {}): Rule<number> =>
  rule(orInfinity(`a duration ${range(min, max, " ms")}${whole ? " in whole milliseconds" : ""}`, infinity), (value) =>
    infinity && isInfinity(value)
      ? Option.some(Number.POSITIVE_INFINITY)
      : Option.filter(
          millisOf(value),
          (millis) =>
            millis >= min && millis <= (max ?? Number.MAX_SAFE_INTEGER) && (!whole || Number.isInteger(millis))
        )
  )

export const boolean: Rule<boolean> = refined("true or false", Predicate.isBoolean)

/** Strings of at least one character. */
export const text: Rule<string> = refined(
  "a non-empty string",
  (value): value is string => Predicate.isString(value) && value !== ""
)

/** A function of any shape; what it takes and gives is the compiler's business. */
export const func = <F extends (...args: any) => unknown>(): Rule<F> =>
  refined("a function", Predicate.isFunction as unknown as Predicate.Refinement<unknown, F>)

/** One of a closed set of names. */
export const literal = <const A extends string>(...values: ReadonlyArray<A>): Rule<A> =>
  refined(`one of ${values.join(", ")}`, (value): value is A => (values as ReadonlyArray<unknown>).includes(value))

/** As `self`, with the value kept out of every fault. */
export const secret =
  <A>(self: Rule<A>): Rule<A> =>
  (value, field) =>
    Either.mapLeft(self(value, field), (faults) => faults.map((_) => ({ ..._, value: "<redacted>" })))

/** As `self`, with `undefined` left as it is. */
export const optional =
  <A>(self: Rule<A>): Rule<A | undefined> =>
  (value, field) =>
    value === undefined ? Either.right(undefined) : self(value, field)

/** As `self`, with `undefined` taken for `value`. */
export const defaulted =
  <A>(self: Rule<A>, value: unknown): Rule<A> =>
  (given, field) =>
    self(given === undefined ? value : given, field)

/** As `self`, with `false` left as it is: the off switch of a stage. */
export const orFalse =
  <A>(self: Rule<A>): Rule<A | false> =>
  (value, field) =>
    value === false ? Either.right(false) : self(value, field)

/** As `self`, with what it decodes to changed. */
export const map =
  <A, B>(self: Rule<A>, f: (value: A) => B): Rule<B> =>
  (value, field) =>
    Either.map(self(value, field), f)

type Fields = { readonly [field: string]: Rule<any> }

/** What a record of rules decodes to. A field that may be `undefined` may be missing. */
export type DecodedFields<R extends Fields> = Types.Simplify<
  {
    readonly [Field in keyof R as undefined extends Decoded<R[Field]> ? never : Field]: Decoded<R[Field]>
  } & {
    readonly [Field in keyof R as undefined extends Decoded<R[Field]> ? Field : never]?: Decoded<R[Field]>
  }
>

/** Faults that only two fields together show, such as a minimum above its maximum. Sees the fields that are sound. */
export type Relation<R extends Fields> = (sound: Partial<DecodedFields<R>>) => ReadonlyArray<Fault>

/**
 * A record by its fields: all of them are checked, then `relation`. Fields without a rule are faults where `exact`, and
 * are otherwise left out; so are fields that decode to `undefined`.
 */
export const struct =
  <R extends Fields>(
    rules: R,
    { exact = false, relation = () => [] }: { exact?: boolean; relation?: Relation<R> } = {}
  ): Rule<DecodedFields<R>> =>
  (value, field) => {
    if (!Predicate.isRecord(value)) return Either.left([fault(field, value, "a record of options")])
    const path = (name: string) => (field === "" ? name : `${field}.${name}`)
    const faults: Array<Fault> = []
    const sound: Record<string, unknown> = {}
    for (const [name, rule] of Object.entries(rules)) {
      Either.match(rule(value[name], path(name)), {
        onLeft: (found) => faults.push(...found),
        onRight: (decoded) => {
          if (decoded !== undefined) sound[name] = decoded
        }
      })
    }
    for (const found of relation(sound as Partial<DecodedFields<R>>)) {
      faults.push({ ...found, field: path(found.field) })
    }
    for (const name of exact ? Object.keys(value) : []) {
      if (!Object.hasOwn(rules, name)) {
        faults.push(fault(path(name), value[name], `one of ${Object.keys(rules).join(", ")}`))
      }
    }
    return faults.length === 0 ? Either.right(sound as DecodedFields<R>) : Either.left(faults)
  }

const describe = ({ expected, field, value }: Fault) =>
  `${field} is ${Predicate.isString(value) ? JSON.stringify(value) : String(value)}, expected ${expected}`

/** The error for options refused. Its message names each faulty field, its value, and what is accepted. */
export const invalidOptions = (faults: ReadonlyArray<Fault>): InvalidOptionsError =>
  new InvalidOptionsError({
    message: `Invalid options: ${faults.map(describe).join("; ")}`,
    phase: "Acquire",
    outcome: "NotApplied",
    transient: false,
    attempts: 0,
    faults
  })

/** Applies a rule to a whole value. `name` is the path before each field's own, such as `breaker`; default none. */
export const decode =
  <A>(self: Rule<A>, name = "") =>
  (value: unknown): Either.Either<A, InvalidOptionsError> =>
    Either.mapLeft(self(value, name), invalidOptions)
