/** Interrupting at random moments: nobody else is hit, nothing leaks, and what was reported is what is stored. */
import { assert, layer } from "@effect/vitest"
import { Effect, Layer, Logger, LogLevel } from "effect"
import * as Seeds from "./seeds.js"
import * as Book from "./storm/book.js"
import * as Storm from "./storm/storm.js"

/** One storm, judged. Fails with what to do to see the same again. */
const weathered = (weather: Storm.Weather, cuts: number, thorough = false) =>
  Effect.gen(function* () {
    const seed = yield* Seeds.seed
    const book = yield* Storm.run({ seed, weather, cuts, thorough })
    console.log(`${weather}: ${Book.figures(book)}`)
    assert.deepStrictEqual(book.violations, [], `replay with CHAOS_SEED=${seed}`)
    assert.isAtLeast(book.cuts, cuts)
    return book
  })

layer(Layer.merge(Storm.world, Logger.minimumLogLevel(LogLevel.None)), {
  excludeTestServices: true,
  timeout: "60 seconds"
})("Interrupting at random moments", (it) => {
  it.effect(
    "1,000 times, hits nobody else, leaks nothing and misreports nothing",
    () => Effect.map(weathered("calm", 1_000, true), (book) => assert.deepStrictEqual(Book.unseen(book), [])),
    120_000
  )
  it.effect("does so while connections are lost", () => weathered("cuts", 300), 120_000)
  it.effect("gives back every permit of a half-open circuit", () => weathered("half-open", 300), 120_000)
})
