/**
 * `npm run chaos`: the random tests of this folder in their long form, round after round.
 *
 * ```
 * npm run chaos                           # one round: 10,000 interruptions, every fault, every lost message
 * npm run chaos -- --minutes 30           # as many rounds as begin within 30 minutes
 * npm run chaos -- --seed 7               # the same again
 * ```
 * Ends with a non-zero exit code after any violation, each of which is printed with the seed of its round.
 */
import { parseArgs } from "node:util"
import { NodeRuntime } from "@effect/platform-node"
import { Effect, Layer, Logger, LogLevel } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"
import * as TestPg from "../support/TestPg.js"
import * as Outage from "./outage.js"
import * as Seeds from "./seeds.js"
import * as Matrix from "./steps/matrix.js"
import * as Book from "./storm/book.js"
import * as Storm from "./storm/storm.js"

const { values } = parseArgs({ options: { minutes: { type: "string" }, seed: { type: "string" } } })

const number = (name: "minutes" | "seed"): number | undefined => {
  const text = values[name]
  if (text === undefined) return undefined
  const value = Number(text)
  if (text.trim() !== "" && value >= 0 && (name === "minutes" || Number.isInteger(value))) return value
  console.error(`--${name} is ${text}, expected ${name === "seed" ? "a whole number" : "a number"}, 0 or more`)
  return process.exit(2)
}
const minutes = number("minutes") ?? 0
const givenSeed = number("seed")

const started = performance.now()
const elapsed = () => performance.now() - started
const say = (line: string) => console.log(`${(elapsed() / 1000).toFixed(0).padStart(5)} s  ${line}`)

/** Says how far something is, at most every five seconds. */
const progress = () => {
  let said = performance.now()
  return (line: () => string) => {
    if (performance.now() - said < 5_000) return
    said = performance.now()
    say(line())
  }
}

/** Interruptions of a round by weather: 10,000 in all. */
const cuts = { calm: 6_000, cuts: 2_000, "half-open": 2_000 } as const

interface Part {
  readonly name: string
  /** Each with a server of its own. Violations in words. */
  readonly run: (seed: number) => Effect.Effect<ReadonlyArray<string>, unknown>
}

const storm = (weather: Storm.Weather): Part => ({
  name: `interruptions, ${weather}`,
  run: (seed) => {
    const tell = progress()
    const onProgress = (book: Book.Book) => tell(() => `${book.cuts} of ${cuts[weather]} interruptions, ${weather}`)
    return Storm.run({ seed, weather, cuts: cuts[weather], onProgress }).pipe(
      Effect.map((book) => {
        say(`${weather}: ${Book.figures(book)}`)
        return book.violations
      }),
      Effect.provide(Storm.world)
    )
  }
})

const outage: Part = {
  name: "outages",
  run: (seed) =>
    Outage.run({
      seed,
      seconds: 3,
      onFault: (fault) => say(Outage.figures(fault))
    }).pipe(
      Effect.map(({ audit, book, violations }) => {
        say(`${book.operations} operations, ${audit.acknowledged} writes acknowledged, ${audit.failed} failed`)
        return violations
      }),
      Effect.provide(Layer.provideMerge(FaultProxy.layerEmbedded, EmbeddedPostgres.layer()))
    )
}

const steps: Part = {
  name: "lost messages",
  run: () => {
    const tell = progress()
    let cases = 0
    return Matrix.all(() => {
      cases++
      tell(() => `${cases} messages lost`)
    }).pipe(
      Effect.tap(() => Effect.sync(() => say(`${cases} messages lost, each in one of ${Matrix.ways} ways`))),
      Effect.provide(TestPg.layer)
    )
  }
}

const parts: ReadonlyArray<Part> = [storm("calm"), storm("cuts"), storm("half-open"), outage, steps]

const round = (number: number, seed: number) =>
  Effect.gen(function* () {
    say(`round ${number}, --seed ${seed}`)
    const violations: Array<string> = []
    for (const { name, run } of parts) {
      const found = yield* run(seed).pipe(
        Effect.catchAllDefect((defect) => Effect.succeed([`defect: ${(defect as Error)?.stack ?? String(defect)}`])),
        Effect.catchAll((error) => Effect.succeed([`could not run: ${String(error)}`]))
      )
      for (const violation of found) {
        violations.push(violation)
        say(`VIOLATION, ${name}, --seed ${seed}: ${violation}`)
      }
    }
    return violations.length
  })

const chaos = Effect.gen(function* () {
  const first = givenSeed ?? (yield* Seeds.seed)
  let rounds = 0
  let violations = 0
  do {
    violations += yield* round(rounds + 1, first + rounds)
    rounds++
  } while (elapsed() < minutes * 60_000)
  say(`${rounds} ${rounds === 1 ? "round" : "rounds"} from --seed ${first}: ${violations || "no"} violations`)
  if (violations > 0) process.exitCode = 1
})

chaos.pipe(Logger.withMinimumLogLevel(LogLevel.None), NodeRuntime.runMain)
