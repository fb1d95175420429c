/** `migrate create`: a file to begin with, under the next number. */
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import * as Effect from "effect/Effect"
import { parseName } from "../../internal/migrations/files.js"
import { UsageError } from "../shared.js"

type Kind = "ts" | "js" | "sql"

const module = `import { SqlClient } from "@effect/sql"
import { Effect } from "effect"

export default Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql\`SELECT 1\`
})

// What undoes it, if it is to be undone:
// export const down = Effect.flatMap(SqlClient.SqlClient, (sql) => sql\`SELECT 1\`)

// For CREATE INDEX CONCURRENTLY, and whatever else refuses to run in a transaction:
// export const transaction = false
`

const templates: { readonly [K in Kind]: string } = {
  ts: module,
  js: module,
  sql: `-- Statements, each with a semicolon at its end. Those that undo them go into a file of the same name that ends in .down.sql.
-- For CREATE INDEX CONCURRENTLY, and whatever else refuses to run in a transaction, write "transaction: false" after these dashes:
--
`
}

/** The number after the greatest, with as many digits as that, at least four; the kind of the latest. */
export const next = (files: ReadonlyArray<string>) => {
  const all = files.flatMap((file) => parseName(file) ?? []).sort((a, b) => a.id - b.id)
  const latest = all.at(-1)
  const kind: Kind = latest === undefined ? "ts" : (latest.ending.replace(/^m/, "") as Kind)
  return {
    id: String((latest?.id ?? 0) + 1).padStart(Math.max(latest?.digits ?? 0, latest === undefined ? 4 : 0), "0"),
    kind
  }
}

export const create = (directory: string, name: string, kind: Kind | undefined) =>
  Effect.gen(function* () {
    if (!/^[\w-]+$/.test(name)) {
      return yield* new UsageError({ message: `"${name}" is no name for a migration: letters, digits, _ and - only` })
    }
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    yield* fs.makeDirectory(directory, { recursive: true })
    const proposed = next(yield* fs.readDirectory(directory))
    const ending = kind ?? proposed.kind
    const file = path.join(directory, `${proposed.id}_${name}.${ending}`)
    yield* fs.writeFileString(file, templates[ending], { flag: "wx" })
    return file
  })
