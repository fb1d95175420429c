/**
 * How fast the layer is, next to the clients that it takes the place of: one process, the contenders in alternation, medians
 * of rounds, and ratios round by round with their spread.
 *
 *   npm run bench                          all of it, some 18 minutes on two cores
 *   npm run bench -- --quick               whether it works, in a minute
 *   npm run bench -- --only read,policies  some sections
 *   npm run bench -- --full                every workload with every number of fibers, near and far: an hour
 *   npm run bench -- --readme              writes the chapter of README.md and its plot, too
 *   npm run bench -- --rounds 5 --seconds 1
 */
import * as Fs from "node:fs"
import * as Os from "node:os"
import { fileURLToPath } from "node:url"
import { parseArgs } from "node:util"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Logger, type Redacted, type Scope } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"
import { allocation } from "./allocation.js"
import { bars, comparisons } from "./bars.js"
import { chapter, type Machine, picture, replaced } from "./chapter.js"
import { poolSize } from "./poolSize.js"
import { recovery } from "./recovery.js"
import { type Measured, table } from "./report.js"
import { bounded, type Plan, quick, type Tell, usual } from "./rounds.js"
import { far, near, withoutPolicies } from "./throughput.js"
import { memory } from "./waiting.js"
import { connections, schema, workloads } from "./work.js"

/** On the server at `url`, or on one of its own. */
type Section = (url: Redacted.Redacted, plan: Plan, tell: Tell) => Effect.Effect<void, unknown, Scope.Scope>

/** In order, one after the other: the server has no room for the connections of two. */
const sections: Readonly<Record<string, Section>> = {
  ...Object.fromEntries(
    workloads.map((workload): [string, Section] => [workload, (url, plan, tell) => near(workload, url, plan, tell)])
  ),
  delayed: far,
  policies: withoutPolicies,
  allocation,
  size: poolSize,
  recovery: (_, plan, tell) => recovery(plan, tell),
  waiting: memory
}

const { values: flags } = parseArgs({
  options: {
    only: { type: "string", default: Object.keys(sections).join(",") },
    quick: { type: "boolean", default: false },
    full: { type: "boolean", default: false },
    readme: { type: "boolean", default: false },
    rounds: { type: "string" },
    seconds: { type: "string" }
  }
})

/** What one of the flags says, a number above zero. */
const positive = (flag: "rounds" | "seconds", otherwise: number): number => {
  const value = flags[flag] === undefined ? otherwise : Number(flags[flag])
  if (value > 0) return value
  throw new Error(`--${flag} takes a number above zero`)
}

const base = flags.quick ? quick : usual
const plan: Plan = {
  ...base,
  full: flags.full,
  rounds: Math.ceil(positive("rounds", base.rounds)),
  round: positive("seconds", base.round / 1000) * 1000
}

/** Of a section: half as much again as the longest takes. Minutes. */
const limit = (plan.full ? 30 : 6) * Math.max(1, (plan.rounds * plan.round) / (usual.rounds * usual.round))

const only = flags.only.split(",")
const unknown = only.filter((name) => !Object.hasOwn(sections, name))
if (unknown.length > 0) throw new Error(`--only takes ${Object.keys(sections).join(", ")}; not ${unknown.join(", ")}`)
const whole = only.length === Object.keys(sections).length
if (flags.readme && !whole) throw new Error("--readme takes all sections: not with --only")

const root = new URL("../../", import.meta.url)
const plotFile = "examples/performance.svg"

const write = (all: ReadonlyArray<Measured>, machine: Machine) =>
  Effect.sync(() => {
    const readme = fileURLToPath(new URL("README.md", root))
    Fs.writeFileSync(fileURLToPath(new URL(plotFile, root)), picture(all))
    Fs.writeFileSync(readme, replaced(Fs.readFileSync(readme, "utf8"), chapter(all, machine, plotFile)))
  })

/** In sections ours says what becomes of the server, which is not asked here. */
const silent = Logger.remove(Logger.defaultLogger)

const main = Effect.gen(function* () {
  const server = yield* EmbeddedPostgres.make({ settings: { max_connections: 200 } })
  yield* server.query(schema)
  const [version] = yield* server.query<{ version: string }>("SELECT current_setting('server_version') AS version")
  const machine: Machine = {
    cpu: Os.cpus()[0]?.model ?? "unknown processor",
    cores: Os.cpus().length,
    node: process.version.slice(1),
    postgres: version?.version ?? "of unknown version",
    date: new Date().toISOString().slice(0, 10),
    command: ["npm run bench", ...(process.argv.length > 2 ? ["--", ...process.argv.slice(2)] : [])].join(" "),
    rounds: plan.rounds
  }
  yield* Console.log(
    `Node ${machine.node}, PostgreSQL ${machine.postgres} on the same machine, ${machine.cores} × ${machine.cpu}, ` +
      `${connections} connections, ${plan.rounds} rounds of ${plan.round} ms in alternation.\n`
  )
  const all: Array<Measured> = []
  const tell: Tell = (measured) => {
    all.push(measured)
    return Console.log(table(measured))
  }
  for (const name of only) {
    const section = Effect.scoped(sections[name]!(server.url, plan, tell))
    yield* bounded(name, limit, Effect.provide(section, silent))
  }
  const asked = bars.filter(({ id }) => whole || all.some((measured) => measured.id === id))
  if (asked.length > 0) yield* Console.log(`### Bars\n\n${comparisons(all, asked)}\n`)
  if (flags.readme) yield* write(all, machine)
})

// What a contender throws where nobody can catch it costs its section, which then ends by its limit, and not all the others.
process.on("uncaughtException", (error) => console.log(`### Thrown past everybody\n\n${error.stack}\n`))

NodeRuntime.runMain(Effect.scoped(main), { disablePrettyLogger: true })
