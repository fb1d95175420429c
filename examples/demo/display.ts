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

/** A terminal on which a picture can be redrawn. */
const terminal = process.stdout.isTTY === true && process.env["TERM"] !== "dumb"

const columns = () => (process.stdout.isTTY === true ? process.stdout.columns || 80 : Number.POSITIVE_INFINITY)

/** Broken at spaces where it would be too long, so that a terminal of any width shows all of it; further lines are indented. */
const fold = (line: string, width = columns()): ReadonlyArray<string> => {
  if (line.length < width) return [line]
  const at = line.lastIndexOf(" ", width - 1)
  return line.slice(0, at).trim() === "" ? [line] : [line.slice(0, at), ...fold(`  ${line.slice(at + 1)}`, width)]
}

const percentile = (sorted: ReadonlyArray<number>, share: number) =>
  sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN

const bar = (done: number, of: number, width = 28) => {
  const full = Math.round((done / of) * width)
  return `${"█".repeat(full)}${"░".repeat(width - full)}`
}

const errorsOf = ({ errors }: Book) => [...errors].map(([tag, n]) => `${tag} ${n}`).join(", ") || "none"

/** What can be seen of the client from inside the program; the bare one shows nothing. */
const inside = Effect.gen(function* () {
  const client = yield* Effect.serviceOption(ResilientPg.ResilientPg)
  const breaker = yield* Effect.serviceOption(CircuitBreaker.CircuitBreaker)
  if (Option.isNone(client) || Option.isNone(breaker)) return { breaker: "none", pool: "cannot be seen from outside" }
  const { connecting, idle, max, quarantined, used, waiting } = yield* client.value.pool
  return {
    breaker: yield* breaker.value.state,
    // In quarantine: a statement on it was given up, and its cancelling is not over.
    pool: `${used} used, ${idle} idle, ${quarantined} cancelling, ${connecting} connecting, of ${max}; ${waiting} fibers wait`
  }
})

type Inside = Effect.Effect.Success<typeof inside>

/** Draws until interrupted. */
export const live = (scene: Scene): Effect.Effect<void, never, SqlClient.SqlClient> =>
  Effect.suspend(() => {
    const { book } = scene
    const began = performance.now()
    let before = { at: began, operations: 0 }
    let drawn = 0
    let said = ""

    /** Operations per second since the last call. */
    const rate = () => {
      const now = performance.now()
      const perSecond = ((book.operations - before.operations) / (now - before.at)) * 1000
      before = { at: now, operations: book.operations }
      return `${perSecond.toFixed(0)}/s`
    }
    const picture = ({ breaker, pool }: Inside) => {
      const lines = [
        `${bar(scene.step, scene.steps)}  ${scene.step}/${scene.steps}  ${scene.fault}`,
        `breaker: ${breaker}`,
        `pool: ${pool}`,
        `operations: ${book.operations}, ${rate()}, ${book.inFlight} in flight`,
        `errors: ${errorsOf(book)}`
      ].flatMap((line) => fold(line))
      // Up to where it began, and all below cleared: the last picture may have had more lines.
      process.stdout.write(`${drawn > 0 ? `\u001b[${drawn}A\u001b[0J` : ""}${lines.join("\n")}\n`)
      drawn = lines.length
    }
    /** One line when the scene changes, and every five seconds. */
    const line = ({ breaker, pool }: Inside) => {
      if (scene.fault === said && performance.now() - before.at < 5_000) return
      said = scene.fault
      const seconds = ((performance.now() - began) / 1000).toFixed(0).padStart(3)
      console.log(`${seconds} s  ${scene.step}/${scene.steps}  ${scene.fault}`)
      console.log(`       breaker: ${breaker}; pool: ${pool}`)
      console.log(`       operations: ${book.operations}, ${rate()}; errors: ${errorsOf(book)}`)
    }
    return Effect.asVoid(Effect.repeat(Effect.map(inside, terminal ? picture : line), Schedule.spaced("250 millis")))
  })

const kinds: ReadonlyArray<Kind> = ["read", "write", "transfer"]

/** What must never be, in words. */
const violations = ({ doubled, lied, lost, sum }: Audit): ReadonlyArray<string> => [
  ...(lost > 0 ? [`${lost} acknowledged writes are missing`] : []),
  ...(doubled > 0 ? [`${doubled} writes are stored more than once`] : []),
  ...(lied > 0 ? [`${lied} writes reported as not applied are stored`] : []),
  ...(sum.found !== sum.expected ? ["the accounts do not add up"] : [])
]

/** The last word. */
export const summary = (name: string, book: Book, healed: ReadonlyArray<Healed>, audit: Audit, seconds: number) => {
  const latency = kinds.map((kind) => {
    const sorted = [...book.latencies[kind]].sort((a, b) => a - b)
    const at = (share: number) => percentile(sorted, share).toFixed(1).padStart(9)
    return `  ${kind.padEnd(10)}${String(sorted.length).padStart(8)}${at(0.5)}${at(0.95)}${at(0.99)}${at(1)}`
  })
  const recovery = healed.map(
    ({ fault, recovery }) =>
      `  ${fault.padEnd(48)}${recovery === undefined ? "over 15 s" : `${Duration.toMillis(recovery).toFixed(0).padStart(4)} ms`}`
  )
  const { acknowledged, defects, doubled, failed, lied, lost, sum, unknown } = audit
  return [
    "",
    `${name}: ${book.operations} operations in ${seconds.toFixed(0)} s`,
    "",
    "Recovery: from the server's first answer to a connection",
    "of its own until the program's first success",
    ...recovery,
    "",
    "Latency of what succeeded, waiting and retries included, in ms",
    `  ${"".padEnd(10)}${"count".padStart(8)}${["p50", "p95", "p99", "max"].map((of) => of.padStart(9)).join("")}`,
    ...latency,
    "",
    ...fold(`Errors the program saw: ${errorsOf(book)}`),
    "",
    "The writes, transfers included, compared with the database",
    `  acknowledged                     ${acknowledged}`,
    `    of these missing               ${lost}`,
    `  stored more than once            ${doubled}`,
    `  reported as not applied          ${failed}`,
    `    of these stored all the same   ${lied}`,
    `  reported as unknown, or stopped  ${unknown.applied + unknown.notApplied} (${unknown.applied} applied, ${unknown.notApplied} not)`,
    `  ended in a defect, untold        ${defects}`,
    `  sum of all accounts              ${sum.found}, expected ${sum.expected}`,
    "",
    ...(audit.sound
      ? ["Nothing lost, nothing doubled, nothing misreported."]
      : violations(audit).map((violation) => `NOT SOUND: ${violation}.`)),
    ""
  ].join("\n")
}
