/**
 * The parts of README.md that are made from the code, between `<!-- begin: name -->` and `<!-- end: name -->`.
 * `npx tsx test/support/readme.ts` writes them anew, and `npx tsx test/matrix/print.ts | npx tsx test/support/readme.ts matrix`
 * the one that takes a server.
 */
import * as Fs from "node:fs"
import * as Path from "node:path"
import { pathToFileURL } from "node:url"
import * as HealthScore from "../../src/health/HealthScore.js"
import * as Monitoring from "../../src/health/Monitoring.js"
import type { PgError } from "../../src/index.js"
import { configTable } from "./configTable.js"
import { endpointTable } from "./endpointTable.js"
import { errorTable } from "./errorTable.js"
import { classicTable, metricTable } from "./metricTable.js"
import { root } from "./root.js"

type Row = readonly [when: string, outcome: string, retried: string]

const answered = "`NotApplied`"
const lost = "`NotApplied`; `Unknown` for a write in flight"
const never = "no"
const stale = "no, but for a stale prepared statement 5 times, 10 ms × 2, up to 1 s"
const unavailable = "5 times, 500 ms × 1.5, up to 30 s"

/** Exhaustive: a new tag does not compile until it is described. */
const tags: { readonly [Tag in PgError.Tag]: Row } = {
  ConnectionError: ["the connection could not be made, or was lost", lost, unavailable],
  ServerUnavailableError: ["the server starts, stops, or ended the session (57P01–57P03)", lost, unavailable],
  TooManyConnectionsError: ["the server has no slot left (53300)", answered, "10 times, 2 s × 2, up to 60 s"],
  ReadOnlyError: [
    "a write met a read-only server (25006): a standby",
    answered,
    `${unavailable}; its connections are dropped`
  ],
  ResourceError: ["memory, disk, limits (53xxx, 58xxx)", answered, `${unavailable}; a full disk not`],
  LockTimeoutError: ["a lock was not to be had in time (55P03)", answered, "3 times, 1 s × 2, up to 10 s"],
  DeadlockError: ["the server ended a deadlock (40P01)", answered, "5 times, 10 ms × 2, up to 1 s"],
  SerializationError: [
    "transactions that cannot be put in order (40001, 40000)",
    answered,
    "5 times, 10 ms × 2, up to 1 s"
  ],
  UniqueViolation: ["a key exists already (23505); `constraint` names it", answered, never],
  ConstraintError: ["another constraint refused the row (23xxx)", answered, never],
  SqlSyntaxError: ["the server does not understand the statement, or knows no such object (42xxx)", answered, never],
  AuthenticationError: ["role or password refused (28xxx)", answered, "no; a `password` Effect is asked once more"],
  AuthorizationError: ["a privilege is missing (42501)", answered, never],
  StatementTimeoutError: ["the server's `statement_timeout` ended it (57014)", answered, never],
  QueryTimeoutError: [
    "the deadline of the operation or transaction passed",
    "`NotApplied`; `Unknown` for idempotent writes in flight",
    never
  ],
  PoolTimeoutError: [
    "no connection came free in time, or the queue is full",
    "`NotApplied`, nothing sent",
    "no; `patient` does"
  ],
  CircuitOpenError: [
    "the breaker refuses; `retryAfter` says until when",
    "`NotApplied`, nothing sent",
    "no; `startup` does"
  ],
  PoolClosedError: [
    "the layer is closing, or closed",
    "`NotApplied`; `Unknown` for a write that was cut off when the grace was over",
    never
  ],
  TransactionAbortedError: [
    "the transaction was rolled back, or has ended, and the program went on as if not",
    answered,
    never
  ],
  OutcomeUnknownError: ["the work may or may not have been applied; `reason` is what led there", "`Unknown`", never],
  InvalidOptionsError: ["options out of range; `faults` names them all", "`NotApplied`, nothing sent", never],
  IdempotencyKeyReusedError: [
    "`Transaction.once`: the key was used before for work with another fingerprint",
    answered,
    never
  ],
  UnknownError: ["everything else, SQLSTATEs that the table does not list included", lost, stale]
}

const tagTable = () =>
  [
    "| tag | when | outcome | retried |",
    "| --- | --- | --- | --- |",
    ...Object.entries(tags).map(([tag, row]) => `| \`${tag}\` | ${row.join(" | ")} |`)
  ].join("\n")

/** Those that can be made without a server. The failure matrix is printed by `test/matrix/print.ts`. */
export const generated = {
  tags: tagTable,
  classification: errorTable,
  variables: () => configTable(),
  score: () => HealthScore.table,
  alerts: () => Monitoring.table,
  monitoring: () => configTable(Monitoring.variables),
  metrics: metricTable,
  classic: classicTable,
  endpoints: endpointTable
} as const

const marks = (name: string) => [`<!-- begin: ${name} -->\n`, `<!-- end: ${name} -->`] as const

/** What stands in a section. */
export const read = (readme: string, name: string): string => {
  const [begin, end] = marks(name)
  return readme.slice(readme.indexOf(begin) + begin.length, readme.indexOf(end)).trim()
}

/** The text with a section replaced. */
export const write = (readme: string, name: string, content: string): string => {
  const [begin, end] = marks(name)
  return `${readme.slice(0, readme.indexOf(begin) + begin.length)}\n${content}\n\n${readme.slice(readme.indexOf(end))}`
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const file = Path.join(root, "README.md")
  const given = process.argv[2]
  const sections: ReadonlyArray<readonly [string, () => string]> =
    given === undefined ? Object.entries(generated) : [[given, () => Fs.readFileSync(0, "utf8").trim()]]
  Fs.writeFileSync(
    file,
    sections.reduce((text, [name, make]) => write(text, name, make()), Fs.readFileSync(file, "utf8"))
  )
}
