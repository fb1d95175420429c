import { assert, describe, it } from "@effect/vitest"
import { Effect, FastCheck as fc } from "effect"
import * as Processes from "../../src/testing/internal/processes.js"
import { delays } from "../../src/testing/internal/proxied.js"

describe("process lists", () => {
  it("read /proc/<pid>/stat whatever the command is called", () => {
    const name = fc.string({ maxLength: 15 })
    fc.assert(
      fc.property(
        fc.nat(),
        fc.nat(),
        name,
        fc.constantFrom("R", "S", "D", "T", "Z", "I"),
        (pid, parent, name, state) => {
          const entries = Processes.parseStat(`${pid} (${name}) ${state} ${parent} 1 1 0 -1 4194560 116`)
          assert.deepStrictEqual(entries, state === "Z" ? [] : [{ pid, parent, stopped: state === "T" }])
        }
      )
    )
  })

  it("read the output of ps, with its padding and flags", () => {
    assert.deepStrictEqual(Processes.parsePs("    1     0 Ss\n 4711     1 T+  \n 4712  4711 Z\n\n"), [
      { pid: 1, parent: 0, stopped: false },
      { pid: 4711, parent: 1, stopped: true }
    ])
  })

  it("know this process and its parent", () => {
    assert.deepInclude(Processes.family(process.pid), { pid: process.pid, parent: process.ppid, stopped: false })
    assert.isFalse(Processes.signal(2 ** 22 + 1, "SIGCONT"))
  })
})

describe("latency", () => {
  it("repeats its jitter for the same seed and connection, within its range", () => {
    fc.assert(
      fc.property(fc.nat(1000), fc.nat(1000), fc.integer(), (delay, jitter, seed) => {
        const sample = (key: string) => {
          const next = delays({ delay, jitter, seed }, key)
          return Array.from({ length: 20 }, () => Effect.runSync(next))
        }
        assert.deepStrictEqual(sample("1 toServer"), sample("1 toServer"))
        if (jitter > 0) assert.notDeepEqual(sample("1 toServer"), sample("2 toServer"))
        assert.isTrue(
          sample("1 toServer").every((time) => time >= Math.max(0, delay - jitter) && time <= delay + jitter)
        )
      })
    )
  })
})
