import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import * as Platform from "../../src/config/Platform.js"
import * as PoolSizing from "../../src/config/PoolSizing.js"

const optional = <A>(arbitrary: fc.Arbitrary<A>) => fc.option(arbitrary, { nil: undefined })

/** Inputs within their ranges, from a laptop to a fleet. */
const sound: fc.Arbitrary<PoolSizing.Input> = fc.record({
  platform: optional(fc.constantFrom(...Platform.names)),
  environment: optional(fc.constantFrom("production", "staging", "development")),
  plan: optional(fc.constantFrom("standard-0", "small", "nonsense")),
  memoryGiB: optional(fc.double({ min: 0.5, max: 1_024, noNaN: true })),
  maxConnections: optional(fc.integer({ min: 1, max: 6_000 })),
  reserved: optional(fc.integer({ min: 0, max: 100 })),
  instances: optional(fc.integer({ min: 1, max: 300 })),
  expectedConcurrency: optional(fc.integer({ min: 1, max: 100_000 })),
  averageQueryMillis: optional(fc.double({ min: 0.01, max: 60_000, noNaN: true })),
  targetThroughput: optional(fc.double({ min: 0.01, max: 1e6, noNaN: true })),
  cores: optional(fc.integer({ min: 1, max: 256 }))
})

/** What one instance may take at most, worked out apart from the code. */
const share = (input: PoolSizing.Input) => {
  const known = Platform.capacity(input.platform ?? "local", input)
  return ((input.maxConnections ?? known.maxConnections) - (input.reserved ?? known.reserved)) / (input.instances ?? 1)
}

describe("PoolSizing.recommend", () => {
  it("never gives an instance more than its share of the server, unless that is less than one", () => {
    fc.assert(
      fc.property(sound, (input) => {
        const { max, warnings } = PoolSizing.recommend(input)
        assert.isAtMost(max, Math.max(1, share(input)))
        if (share(input) < 1) assert.isTrue(warnings.some((_) => _.includes("even one each is too many")))
      }),
      { numRuns: 2_000 }
    )
  })

  it("gives whole numbers, one connection at least, and keeps no more open than it allows", () => {
    fc.assert(
      fc.property(sound, (input) => {
        const { max, min } = PoolSizing.recommend(input)
        assert.isTrue(Number.isSafeInteger(min) && Number.isSafeInteger(max))
        assert.isTrue(0 <= min && min <= max && 1 <= max)
      }),
      { numRuns: 2_000 }
    )
  })

  it("never gives less for more concurrency, throughput or server, nor more for more instances", () => {
    const grow = fc.tuple(sound, fc.integer({ min: 1, max: 1_000 }))
    const compare = (name: keyof PoolSizing.Input, sign: 1 | -1) =>
      fc.assert(
        fc.property(grow, ([input, more]) => {
          const before = input[name]
          if (typeof before !== "number") return
          const less = PoolSizing.recommend(input).max
          const after = PoolSizing.recommend({ ...input, [name]: before + more }).max
          assert.isAtMost(sign * less, sign * after)
        }),
        { numRuns: 2_000 }
      )
    compare("expectedConcurrency", 1)
    compare("targetThroughput", 1)
    compare("averageQueryMillis", 1)
    compare("maxConnections", 1)
    compare("cores", 1)
    compare("instances", -1)
    compare("reserved", -1)
  })

  it("answers for any numbers whatever, and says what it left out", () => {
    const anything = fc.oneof(fc.double(), fc.integer(), fc.constant(Number.NaN))
    const names = ["maxConnections", "reserved", "instances", "expectedConcurrency", "cores"] as const
    fc.assert(
      fc.property(fc.record(Object.fromEntries(names.map((name) => [name, anything]))), (input: PoolSizing.Input) => {
        const { max, min, warnings } = PoolSizing.recommend(input)
        assert.isTrue(Number.isSafeInteger(max) && min <= max && max >= 1)
        for (const name of names) {
          const value = input[name]!
          if (Number.isNaN(value) || value < 0 || !Number.isInteger(value)) {
            assert.isTrue(
              warnings.some((_) => _.startsWith(`${name} is ${value}, expected`)),
              `${name} ${value}`
            )
          }
        }
      }),
      { numRuns: 2_000 }
    )
  })

  it.each<[string, PoolSizing.Input, Partial<PoolSizing.Recommendation>]>([
    ["the default where nothing is known", {}, { max: 10, limitedBy: "demand" }],
    ["18 of 20 on Railway", { platform: "railway" }, { min: 2, max: 18, limitedBy: "demand" }],
    ["half of that in staging", { platform: "railway", environment: "staging" }, { min: 1, max: 9 }],
    ["what the program can use", { expectedConcurrency: 6 }, { max: 6, limitedBy: "demand" }],
    ["what the server has", { platform: "railway", expectedConcurrency: 50 }, { max: 18, limitedBy: "server" }],
    ["an instance's share of it", { platform: "railway", instances: 4 }, { max: 4, limitedBy: "server" }],
    [
      "an explicit server",
      { maxConnections: 40, reserved: 4, expectedConcurrency: 99 },
      { max: 36, limitedBy: "server" }
    ],
    // Little's law: 400/s × 25 ms = 10 busy, and 10 / 0.7 is 14.3
    ["what throughput needs", { targetThroughput: 400, averageQueryMillis: 25 }, { max: 15, limitedBy: "demand" }],
    [
      "no more than run at once",
      { targetThroughput: 400, averageQueryMillis: 25, expectedConcurrency: 12 },
      { max: 12 }
    ],
    ["what the cores work on", { expectedConcurrency: 50, cores: 4 }, { max: 9, limitedBy: "cores" }],
    ["by plan", { platform: "heroku", plan: "standard-0", expectedConcurrency: 500 }, { max: 118 }],
    ["by memory", { platform: "aws-rds", memoryGiB: 4, instances: 2, expectedConcurrency: 500 }, { max: 217 }]
  ])("gives %s", (_, input, expected) => {
    assert.deepInclude(PoolSizing.recommend(input), expected)
  })

  it("explains itself in the order of its calculation", () => {
    const { reasons, warnings } = PoolSizing.recommend({
      platform: "railway",
      environment: "staging",
      instances: 2,
      expectedConcurrency: 20,
      targetThroughput: 200,
      averageQueryMillis: 30,
      cores: 8
    })
    assert.deepStrictEqual(reasons, [
      "The server takes 20 connections, of which 2 are reserved, and staging takes 50 % of the rest: 9 connections for 2 instances.",
      "200 operations a second of 30 ms keep 6 connections busy on average: 9 at 70 % use.",
      "No more than 20 operations want a connection at once.",
      "A server of 8 cores works on about 17 connections at once; more make it slower.",
      "4 at most, limited by the server; 1 kept open."
    ])
    assert.deepStrictEqual(warnings, ["The load could use 9 connections and gets 4: some operations will wait."])
  })

  it.each<[PoolSizing.Input, RegExp]>([
    [{ platform: "railway", instances: 30 }, /^30 instances share 18 connections: even one each is too many/],
    [{ reserved: 200 }, /^1 instance has 0 connections/],
    [{ targetThroughput: 100 }, /only together/],
    [{ platform: "heroku", plan: "gold" }, /no plan "gold"/],
    [{ platform: "neon" }, /transaction mode/]
  ])("warns about %o", (input, expected) => {
    assert.isTrue(PoolSizing.recommend(input).warnings.some((_) => expected.test(_)))
  })
})
