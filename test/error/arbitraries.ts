import { FastCheck as fc } from "effect"
import { DatabaseError } from "pg"
import type { Facts } from "../../src/error/classify.js"
import * as PgError from "../../src/error/PgError.js"
import type { Outcome, Phase } from "../../src/error/tags.js"

/** The fields of a server's answer, as the driver has them. */
export interface Answer {
  readonly message?: string
  readonly severity?: string | undefined
  readonly code?: string
  readonly detail?: string
  readonly hint?: string
  readonly where?: string
  readonly position?: string
  readonly internalQuery?: string
  readonly schema?: string
  readonly table?: string
  readonly column?: string
  readonly dataType?: string
  readonly constraint?: string
  readonly file?: string
  readonly routine?: string | undefined
}

/** An answer of the server as the driver throws it: its own class, its stack begun with the message. */
export const answer = ({ message = "something the server says", ...fields }: Answer): DatabaseError =>
  Object.assign(new DatabaseError(message, 100, "error"), { severity: "ERROR", routine: "a_routine", ...fields })

/** An error of Node with a code. */
export const systemError = (code: string, message = `connect ${code}`, fields: object = {}): Error =>
  Object.assign(new Error(message), { code, syscall: "connect" }, fields)

const lost: PgError.Failure = {
  message: "lost",
  phase: "Execute",
  outcome: "NotApplied",
  transient: true,
  attempts: 1
}

/** Values that punish whoever touches them without care. */
export const hostile: ReadonlyArray<readonly [name: string, make: () => unknown]> = [
  ["undefined", () => undefined],
  ["null", () => null],
  ["a symbol", () => Symbol("s")],
  ["a bigint", () => 10n],
  ["NaN", () => Number.NaN],
  ["a function", () => () => {}],
  ["an object without a prototype", () => Object.create(null)],
  [
    "a getter that throws",
    () =>
      Object.defineProperties(
        new Error("x"),
        Object.fromEntries(
          ["stack", "code", "message", "severity", "cause", "errors", "name", "_tag"].map((key) => [
            key,
            {
              get: () => {
                throw new Error("no")
              }
            }
          ])
        )
      )
  ],
  [
    "a revoked proxy",
    () => {
      const { proxy, revoke } = Proxy.revocable({}, {})
      revoke()
      return proxy
    }
  ],
  [
    "a revoked proxy of an array as parts",
    () => {
      const { proxy, revoke } = Proxy.revocable([], {})
      revoke()
      return Object.assign(new Error("x"), { errors: proxy })
    }
  ],
  [
    "a proxy whose every trap throws",
    () =>
      new Proxy(
        new Error("x"),
        new Proxy(
          {},
          {
            get: () => () => {
              throw new Error("no")
            }
          }
        )
      )
  ],
  [
    "a proxy that has every property, of itself",
    () => {
      const proxy: unknown = new Proxy(new Error("x"), { get: () => proxy, has: () => true })
      return proxy
    }
  ],
  [
    "an error that causes itself",
    () => {
      const error = new Error("x") as Error & { cause: unknown }
      error.cause = error
      return error
    }
  ],
  [
    "an endless chain of causes",
    () => {
      const next = (): Error => Object.defineProperty(new Error("x"), "cause", { get: next })
      return next()
    }
  ],
  [
    "parts within parts without end",
    () => {
      const next = (): Error => Object.defineProperty(new Error(""), "errors", { get: () => [next(), next(), next()] })
      return next()
    }
  ],
  [
    "an AggregateError of itself",
    () => {
      const error = new AggregateError([], "")
      error.errors.push(error, null, error)
      return error
    }
  ],
  ["a sparse array of 4 billion parts", () => Object.assign(new Error("x"), { errors: new Array(4_294_967_295) })],
  [
    "parts in an array that makes something else of its copies",
    () => {
      class Odd extends Array {
        static override get [Symbol.species]() {
          return Object as unknown as ArrayConstructor
        }
      }
      return Object.assign(new Error("x"), { errors: new Odd(3) })
    }
  ],
  [
    "an error of unknown outcome that is its own reason",
    () => {
      const error = PgError.outcomeUnknown(new PgError.ConnectionError(lost))
      return Object.assign(error, { reason: error })
    }
  ],
  [
    "one of our errors that can be told, but not read",
    () => {
      const error = new PgError.ConnectionError(lost)
      const get = (_: unknown, key: PropertyKey): unknown => {
        if (key === PgError.TypeId || key === "_tag" || key === "message") return Reflect.get(error, key)
        throw new Error("no")
      }
      return Object.assign(new Error(""), { errors: [new Proxy(error, { get })] })
    }
  ],
  ["a message of a million lines", () => answer({ code: "57P01", message: "\n".repeat(1_000_000) })],
  ["names of the wrong types", () => ({ code: 5, severity: {}, message: [], constraint: Symbol("c"), stack: 7n })]
]

const interesting = fc.constantFrom(
  "23505",
  "22P02",
  "57014",
  "08P01",
  "0A000",
  "40001",
  "08007",
  "P0001",
  "XX000",
  "ZZZZZ",
  "EPIPE",
  "ECONNREFUSED",
  "ERR_SSL_X",
  "CERT_X",
  "constructor",
  "__proto__",
  "toString",
  ""
)

/** Records that look like errors of a server, a system or a driver, with anything at all in any field. */
const lookalike = fc.record(
  {
    code: fc.oneof(interesting, fc.anything()),
    severity: fc.oneof(fc.constantFrom("ERROR", "FATAL", "PANIC", "FEHLER"), fc.anything()),
    message: fc.oneof(fc.string({ unit: "binary" }), fc.constantFrom("Connection terminated", "SASL: "), fc.anything()),
    routine: fc.oneof(fc.constantFrom("ProcessInterrupts", "exec_stmt_raise"), fc.anything()),
    file: fc.oneof(fc.constantFrom("plpy_elog.c", "genfile.c"), fc.anything()),
    constraint: fc.anything(),
    table: fc.anything(),
    where: fc.anything(),
    position: fc.anything(),
    stack: fc.anything(),
    name: fc.anything(),
    errors: fc.oneof(fc.array(fc.anything()), fc.anything()),
    cause: fc.anything(),
    address: fc.anything(),
    port: fc.anything()
  },
  { requiredKeys: [] }
)

/** What makes a value that could be thrown; made late, because the test's own tools could not bear the hostile ones. */
export const thrown: fc.Arbitrary<() => unknown> = fc.oneof(
  fc
    .anything({
      withBigInt: true,
      withBoxedValues: true,
      withDate: true,
      withMap: true,
      withNullPrototype: true,
      withObjectString: true,
      withSet: true,
      withSparseArray: true,
      withTypedArray: true
    })
    .map((value) => () => value),
  lookalike.map((fields) => () => fields),
  lookalike.map((fields) => () => Object.assign(new Error("x"), fields)),
  fc.tuple(lookalike, lookalike).map(
    ([fields, cause]) =>
      () =>
        Object.assign(new Error("x"), fields, { cause })
  ),
  fc.array(lookalike, { maxLength: 4 }).map((errors) => () => Object.assign(new Error(""), { errors })),
  fc.constantFrom(...hostile.map(([, make]) => make))
)

/** What a caller may know. */
export const facts: fc.Arbitrary<Facts> = fc.record(
  {
    phase: fc.constantFrom<Array<Phase>>("Acquire", "Begin", "Execute", "Savepoint", "Commit", "Rollback", "Listen"),
    outcome: fc.constantFrom<Array<Outcome>>("NotApplied", "Unknown"),
    operation: fc.string({ unit: "binary" }),
    attempts: fc.nat(),
    cancelledByUs: fc.constantFrom<Array<"timeout" | "interrupt">>("timeout", "interrupt"),
    elapsed: fc.double(),
    statementTimeout: fc.double(),
    readOnly: fc.boolean(),
    exposeServerDetail: fc.boolean()
  },
  { requiredKeys: [] }
)
