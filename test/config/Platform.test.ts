import { assert, describe, it } from "@effect/vitest"
import { Either, Redacted } from "effect"
import * as Platform from "../../src/config/Platform.js"
import * as ResilienceConfig from "../../src/config/ResilienceConfig.js"

describe("Platform", () => {
  it("knows every platform of the README", () => {
    assert.deepStrictEqual(Platform.names, [
      "railway",
      "heroku",
      "render",
      "supabase",
      "neon",
      "fly",
      "aws-rds",
      "local"
    ])
  })

  it("gives a program on Railway 18 of 20 connections, and keeps 2", () => {
    assert.deepStrictEqual(Platform.capacity("railway"), { maxConnections: 20, reserved: 2 })
    assert.strictEqual(Platform.preset("railway", "production").maxConnections, 18)
  })

  it.each(Platform.names)(
    "suggests pools for %s that its server has room for, in all environments together",
    (platform) => {
      const { maxConnections, reserved } = Platform.capacity(platform)
      for (const environment of ["production", "staging", "development"] as const) {
        const { maxConnections: max, minConnections: min } = Platform.preset(platform, environment)
        assert.isAtLeast(min, 0)
        assert.isAtMost(min, max)
        assert.isAtLeast(max, 1)
        assert.isAtMost(max, maxConnections - reserved)
      }
      const production = Platform.preset(platform, "production").maxConnections
      assert.isAtMost(Platform.preset(platform, "staging").maxConnections, production)
      assert.isAtMost(Platform.preset(platform, "development").maxConnections, production)
      assert.strictEqual(Platform.preset(platform, "development").minConnections, 0)
    }
  )

  it.each(Platform.names)("suggests options for %s that are accepted", (platform) => {
    const url = Redacted.make("postgres://h/d")
    for (const environment of ["production", "staging", "development"] as const) {
      const decoded = ResilienceConfig.decode({ url, ...Platform.preset(platform, environment) }, {})
      const { acquireTimeout, connectionTTL, idleTimeout } = Either.getOrThrow(decoded)
      assert.isBelow(idleTimeout, connectionTTL)
      assert.isAtMost(acquireTimeout, 30_000)
    }
  })

  it("grows with the plan", () => {
    for (const platform of Platform.names) {
      for (const [plan, connections] of Object.entries(Platform.platforms[platform].plans ?? {})) {
        assert.strictEqual(Platform.capacity(platform, { plan }).maxConnections, connections)
        assert.isAtLeast(connections, Platform.capacity(platform).maxConnections)
      }
    }
  })

  it.each([
    [1, 112],
    [4, 450],
    [16, 1_802],
    [64, 5_000]
  ])("counts the connections of an RDS instance of %d GiB by Amazon's formula: %d", (memoryGiB, connections) => {
    assert.strictEqual(Platform.capacity("aws-rds", { memoryGiB }).maxConnections, connections)
    assert.strictEqual(Platform.capacity("local", { memoryGiB }).maxConnections, 100)
  })

  it.each([
    ["railway", "railway"],
    ["HEROKU", "heroku"],
    ["aws", "aws-rds"],
    ["rds", "aws-rds"],
    ["AWS_RDS", "aws-rds"],
    ["fly.io", "fly"],
    ["toString", undefined],
    ["", undefined]
  ])("finds %o as %o", (name, platform) => {
    assert.strictEqual(Platform.fromName(name), platform)
  })
})
