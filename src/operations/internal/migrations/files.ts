/** Migrations out of a folder: `<id>_<name>.ts` and its like, as the migrator names them, and `<id>_<name>.sql`. */
import { createHash } from "node:crypto"
import { pathToFileURL } from "node:url"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import type { Loader } from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import { failed, messageOf } from "./load.js"
import { type Known, SourceId } from "./model.js"
import { parse, type Script } from "./sql.js"

/** The migrator's pattern, and the endings that Node and databases add. */
const pattern = /^(\d+)_([^.]+)\.(js|ts|mjs|mts|sql)$/
const downPattern = /^(\d+)_([^.]+)\.down\.sql$/

/** Of a migration's file name: its id and name, if it is one. */
export const parseName = (file: string) => {
  const [, id, name, ending] = pattern.exec(file) ?? []
  return id === undefined ? undefined : { id: Number(id), digits: id.length, name: name!, ending: ending! }
}

/** Whatever editor or checkout wrote the line ends. `kind`: `mts` and `ts` are one. */
export const checksum = (text: string, ending: string): string => {
  const plain = text.replace(/^\uFEFF/, "").replace(/\r\n/g, "\n")
  return `${ending.replace(/^m/, "")}:${createHash("sha256").update(plain).digest("hex")}`
}

/** A statement of a file failed. */
export class StatementFailed extends Data.TaggedError("StatementFailed")<{
  readonly file: string
  readonly line: number
  readonly cause: unknown
}> {
  override get message() {
    return `${this.file}, line ${this.line}: ${messageOf(this.cause)}`
  }
}

const running = (file: string, { statements }: Script) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    Effect.forEach(
      statements,
      ({ line, sql: text }) => Effect.mapError(sql.unsafe(text), (cause) => new StatementFailed({ file, line, cause })),
      { discard: true }
    )
  )

/** Files of SQL as a module would have them. */
const sqlModule = (up: { readonly file: string; readonly text: string }, down: typeof up | undefined) =>
  Effect.gen(function* () {
    const scripts = [up, ...(down === undefined ? [] : [down])].map(({ file, text }) => ({ file, script: parse(text) }))
    const bad = scripts.find(({ script }) => script.problem !== undefined)
    if (bad !== undefined) return yield* failed("import-error", `${bad.file}: ${bad.script.problem}`)
    const [first, second] = scripts
    if (second !== undefined && first!.script.transaction !== second.script.transaction) {
      return yield* failed(
        "import-error",
        `${first!.file} and ${second.file}: both need "-- transaction: false", or neither`
      )
    }
    return {
      default: running(first!.file, first!.script),
      transaction: first!.script.transaction,
      ...(second && { down: running(second.file, second.script) })
    }
  })

/** Node's code for a kind of file that it cannot import by itself. */
const unknownExtension = "ERR_UNKNOWN_FILE_EXTENSION"

const imported = (path: string, file: string) =>
  Effect.tryPromise({
    try: () => import(/* @vite-ignore */ /* webpackIgnore: true */ pathToFileURL(path).href),
    catch: (error) =>
      failed(
        "import-error",
        (error as { readonly code?: unknown }).code === unknownExtension
          ? `${file}: this Node cannot import TypeScript by itself. Run it with a loader (NODE_OPTIONS="--import tsx", after ` +
              `npm install --save-dev tsx), or compile the migrations and give the folder with the .js files`
          : `${file} cannot be imported: ${messageOf(error)}`
      )
  })

/** Reads the names and texts at once, and imports what is needed when it is needed. */
export const fromDirectory = (directory: string): Loader<FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const folder = path.resolve(directory)
    const text = (file: string) => fs.readFileString(path.join(folder, file))
    const files = yield* fs.readDirectory(folder)
    const downs = new Map<string, string>(
      files.flatMap((file) => {
        const [, id, name] = downPattern.exec(file) ?? []
        return id === undefined ? [] : [[`${Number(id)}_${name}`, file] as const]
      })
    )
    const found: Array<Known> = []
    for (const file of [...files].sort()) {
      const parsed = parseName(file)
      if (parsed === undefined) continue
      const { ending, id, name } = parsed
      const source = yield* text(file)
      const title = `${id}_${name}`
      const down = ending === "sql" ? downs.get(title) : undefined
      if (ending === "sql") downs.delete(title)
      const load =
        ending === "sql"
          ? sqlModule({ file, text: source }, down === undefined ? undefined : { file: down, text: yield* text(down) })
          : imported(path.join(folder, file), file)
      const migration: Known = Object.assign([id, name, load] as const, {
        [SourceId]: { file, checksum: checksum(source, ending) }
      })
      found.push(migration)
    }
    const [stray] = downs.values()
    if (stray !== undefined) {
      return yield* failed("import-error", `${stray}: there is no file of that name without .down`)
    }
    return found.sort(([a], [b]) => a - b)
  }).pipe(
    Effect.mapError((error) => {
      if (error._tag === "MigrationError") return error
      const missing = error._tag === "SystemError" && error.reason === "NotFound"
      return failed(
        "failed",
        missing
          ? `There is no folder with migrations at ${error.pathOrDescriptor}`
          : `Cannot read the migrations: ${error.message}`
      )
    })
  )
