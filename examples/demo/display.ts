/** The live picture: redrawn in place on a terminal, plain lines elsewhere. */
import type { SqlClient } from "@effect/sql"
import { Duration, Effect, Option, Schedule } from "effect"
import { CircuitBreaker, ResilientPg } from "effect-pg-resilience"
import type { Audit } from "./audit.js"
import type { Healed } from "./faults.js"
import type { Book, Kind } from "./workload.js"

export interface Scene {
  readonly book: Book
  readonly steps: number
  step: number
  fault: string
}

const terminal = process.stdout.isTTY === true

const percentile = (sorted: ReadonlyArray<number>, share: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN

const bar = (done: number, of: number, width = 28) => {
  const full = Math.round((done / of) * width)
  return `${"█".repeat(full)}${"░".repeat(width - full)}`
}

/** What can be seen of the client from inside the program; the bare one shows nothing. */
const inside = Effect.gen(function* () {
  const pool = yield* Effect.serviceOption(ResilientPg.ResilientPg)
  const breaker = yield* Effect.serviceOption(CircuitBreaker.CircuitBreaker)
  if (Option.isNone(pool) || Option.isNone(breaker)) return "bare client: nothing to see inside"
  const { connecting, idle, max, quarantined, used, waiting } = yield* pool.value.pool
  const state = yield* breaker.value.state
  return `breaker ${state.padEnd(8)}  pool ${used} used, ${idle} idle, ${quarantined} settling, ${connecting} connecting of ${max}, ${waiting} waiting`
})

const lines = ({ book, fault, step, steps }: Scene, rate: number, client: string) => [
  `${bar(step, steps)}  ${step}/${steps}  ${fault}`,
  client,
  `${book.operations} operations, ${rate.toFixed(0)}/s, ${book.inFlight} in flight`,
  `errors: ${[...book.errors].map(([tag, n]) => `${tag} ${n}`).join(", ") || "none"}`
]

/** Draws until interrupted. */
export const live = (scene: Scene): Effect.Effect<void, never, SqlClient.SqlClient> =>
  Effect.suspend(() => {
    let before = { at: performance.now(), operations: 0 }
    let drawn = 0
    let said = ""
    const draw = Effect.map(inside, (client) => {
      const now = performance.now()
      const rate = ((scene.book.operations - before.operations) / (now - before.at)) * 1000
      if (!terminal) {
        if (scene.fault === said && now - before.at < 5_000) return
        said = scene.fault
        before = { at: now, operations: scene.book.operations }
        console.log(lines(scene, rate, client).slice(0, 1).concat(client).join("  |  "))
        return
      }
      before = { at: now, operations: scene.book.operations }
      const width = process.stdout.columns ?? 80
      const text = lines(scene, rate, client).map((line) => `\u001b[2K${line.slice(0, width - 1)}\n`)
      process.stdout.write(`${drawn > 0 ? `\u001b[${drawn}A` : ""}${text.join("")}`)
      drawn = text.length
    })
    return Effect.asVoid(Effect.repeat(draw, Schedule.spaced("250 millis")))
  })

const kinds: ReadonlyArray<Kind> = ["read", "write", "transfer"]

/** The last word. */
export const summary = (name: string, book: Book, healed: ReadonlyArray<Healed>, audit: Audit, seconds: number) => {
  const latency = kinds.map((kind) => {
    const sorted = [...book.latencies[kind]].sort((a, b) => a - b)
    const at = (share: number) => percentile(sorted, share).toFixed(1).padStart(9)
    return `  ${kind.padEnd(10)}${String(sorted.length).padStart(8)}${at(0.5)}${at(0.95)}${at(0.99)}${at(1)}`
  })
  const recovery = healed.map(
    ({ fault, recovery }) =>
      `  ${fault.padEnd(48)}${recovery === undefined ? "not within 15 s" : `${Duration.toMillis(recovery).toFixed(0)} ms`}`
  )
  const { acknowledged, defects, doubled, failed, lied, lost, sum, unknown } = audit
  return [
    "",
    `${name}: ${book.operations} operations in ${seconds.toFixed(0)} s`,
    "",
    "Recovery, from the server's first answer to a connection outside the pool to the program's first success",
    ...recovery,
    "",
    "Latency of successes in ms     count      p50      p95      p99      max",
    ...latency.map((line) => line.replace(/^ {2}(\S+ *)(?= )/, (_, kind: string) => `  ${kind.padEnd(24)}`)),
    "",
    `Errors the program saw: ${[...book.errors].map(([tag, n]) => `${tag} ${n}`).join(", ") || "none"}`,
    "",
    "Audit of the writes against the database",
    `  acknowledged                     ${acknowledged}`,
    `    of these missing               ${lost}`,
    `  stored more than once            ${doubled}`,
    `  reported as not applied          ${failed}`,
    `    of these stored all the same   ${lied}`,
    `  reported as unknown              ${unknown.applied + unknown.notApplied} (${unknown.applied} applied, ${unknown.notApplied} not)`,
    `  defects, nothing reported        ${defects}`,
    `  sum of all accounts              ${sum.found}, expected ${sum.expected}`,
    "",
    audit.sound ? "Nothing lost, nothing doubled, nothing misreported." : "NOT SOUND: see above.",
    ""
  ].join("\n")
}
