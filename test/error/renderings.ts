import { inspect } from "node:util"
import { Cause, Effect, Exit, Inspectable, Layer, Logger } from "effect"
import { telling } from "../support/telling.js"

const shown = (value: unknown) =>
  typeof value === "string" ? value : inspect(value, { depth: 20, showHidden: true, maxStringLength: null })

/**
 * Everything that a program is likely to make of an error where somebody can read it: text, JSON, `util.inspect`, Effect's
 * causes and exits, all of Effect's loggers, and the end of a span.
 */
export const renderings = (error: Error): Effect.Effect<ReadonlyArray<string>> =>
  Effect.gen(function* () {
    const lines: Array<string> = []
    const keep = (...values: ReadonlyArray<unknown>) => void lines.push(...values.map(shown))
    const causes = [Cause.fail(error), Cause.die(error), Cause.parallel(Cause.fail(error), Cause.die(error))]

    keep(String(error), error.message, error.stack, JSON.stringify(error), inspect(error), error)
    keep(Inspectable.stringifyCircular(error), Inspectable.format(Inspectable.toJSON(error)))
    for (const cause of causes) {
      keep(Cause.pretty(cause), Cause.pretty(cause, { renderErrorCause: true }), String(cause), JSON.stringify(cause))
      keep(cause, ...Cause.prettyErrors(cause), String(Exit.failCause(cause)), Exit.failCause(cause))
    }

    const console = yield* Effect.console
    const unsafe = { ...console.unsafe, log: keep, error: keep, group: keep, groupCollapsed: keep, groupEnd: () => {} }
    const log = Effect.forEach(causes, (cause) => Effect.logError("failed", error, cause), { discard: true })
    for (const logger of [
      Logger.map(Logger.stringLogger, keep),
      Logger.map(Logger.logfmtLogger, keep),
      Logger.map(Logger.jsonLogger, keep),
      Logger.map(Logger.structuredLogger, keep),
      Logger.prettyLogger({ colors: false, mode: "tty" }),
      Logger.prettyLogger({ colors: false, mode: "browser" })
    ]) {
      yield* log.pipe(
        Effect.annotateLogs("error", error),
        Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
        Effect.withConsole({ ...console, unsafe })
      )
    }

    const tracer = telling({
      attribute: (_, key, value) => keep(key, value),
      event: (_, event, attributes) => keep(event, attributes),
      ended: (_, exit) => keep(exit, ...(Exit.isFailure(exit) ? Cause.prettyErrors(exit.cause) : []))
    })
    yield* Effect.fail(error).pipe(
      Effect.withSpan("statement"),
      Effect.catchAll((failed) => Effect.sync(() => keep(failed))),
      Effect.provide(Layer.setTracer(tracer))
    )
    return lines
  })
