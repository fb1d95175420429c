/** What a loader gives, made ready to run: the effect for each way, and whether in a transaction. */
import * as Migrator from "@effect/sql/Migrator"
import type { SqlClient } from "@effect/sql/SqlClient"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import { ids, type Known } from "./model.js"

export type Body = Effect.Effect<unknown, unknown, SqlClient>

export interface Definition {
  readonly up: Body
  readonly down: Body | undefined
  readonly transaction: boolean
}

/** The loaders' error, whose constructor asks for what it gives by itself. */
export const failed = (reason: Migrator.MigrationError["reason"], message: string): Migrator.MigrationError =>
  new Migrator.MigrationError({ reason, message } as ConstructorParameters<typeof Migrator.MigrationError>[0])

/** All migrations of a loader, by id. */
export const known = <R>(loader: Migrator.Loader<R>): Effect.Effect<ReadonlyArray<Known>, Migrator.MigrationError, R> =>
  Effect.flatMap(loader, (loaded) => {
    const all = [...loaded].sort(([a], [b]) => a - b)
    const bad = all.find(([id]) => !(Number.isInteger(id) && id >= ids.min && id <= ids.max))
    if (bad !== undefined) {
      return Effect.fail(
        failed("bad-state", `Migration "${bad[0]}_${bad[1]}": ids are whole numbers from ${ids.min} to ${ids.max}`)
      )
    }
    const twice = all.find(([id], n) => id === all[n + 1]?.[0])
    if (twice === undefined) return Effect.succeed(all)
    const names = all.filter(([id]) => id === twice[0]).map(([id, name]) => `${id}_${name}`)
    return Effect.fail(failed("duplicates", `Two migrations have the same id: ${names.join(", ")}`))
  })

const property = (value: unknown, name: string): unknown =>
  (Predicate.isObject(value) || Predicate.isFunction(value)) && Predicate.hasProperty(value, name)
    ? value[name]
    : undefined

const isBody = (value: unknown): value is Body => Effect.isEffect(value)

/**
 * The effect itself, or the default export of a module, as the migrator takes them; `down` and `transaction` beside it or on it.
 */
export const definition = ([id, name, load]: Known): Effect.Effect<Definition, Migrator.MigrationError, SqlClient> => {
  const title = `"${id}_${name}"`
  return (load as Effect.Effect<unknown, unknown, SqlClient>).pipe(
    Effect.catchAllDefect((defect) => Effect.fail(defect)),
    Effect.mapError((error) =>
      error instanceof Migrator.MigrationError
        ? error
        : failed("import-error", `Could not import migration ${title}: ${messageOf(error)}`)
    ),
    Effect.flatMap((loaded) => {
      const outer = property(loaded, "default")
      const up = isBody(loaded) ? loaded : (property(outer, "default") ?? outer)
      if (!isBody(up)) {
        const what = outer === undefined ? "has no default export" : "has a default export that is no Effect"
        return Effect.fail(failed("import-error", `Migration ${title} ${what}`))
      }
      const said = (name: string) => [loaded, outer, up].map((_) => property(_, name)).find((_) => _ !== undefined)
      const down = said("down")
      const transaction = said("transaction") ?? true
      if (down !== undefined && !isBody(down)) {
        return Effect.fail(failed("import-error", `Migration ${title}: \`down\` is no Effect`))
      }
      if (!Predicate.isBoolean(transaction)) {
        return Effect.fail(failed("import-error", `Migration ${title}: \`transaction\` is neither true nor false`))
      }
      return Effect.succeed({ up, down, transaction })
    })
  )
}

/** What an effect failed with: its failure, or else its defect. */
export const squashed = (cause: Cause.Cause<unknown>): unknown =>
  Option.getOrElse(Cause.failureOption(cause), () => Cause.squash(cause))

/** A failure in words, on one line. */
export const messageOf = (error: unknown): string => {
  const message = property(error, "message")
  const tag = property(error, "_tag")
  const text = Predicate.isString(message) && message !== "" ? message : Predicate.isString(tag) ? tag : String(error)
  return text.replace(/\s+/g, " ").trim()
}
