/**
 * How large a pool should be: a pure function from what is known of server and program to a size, and the reasons in
 * words. Three things limit a pool: what the program can use, what the server has to give, and how many connections a
 * server works on at once before more of them make it slower.
 */
import * as Either from "effect/Either"
import { defaults } from "./internal/options.js"
import * as validate from "./internal/validate.js"
import * as Platform from "./Platform.js"

/** What is known. Everything is optional; what is missing is assumed as the reasons say. */
export interface Input {
  /** Gives server size and reserve where they are not given. Default `local`: PostgreSQL as it comes. */
  readonly platform?: Platform.Platform | undefined
  /** The platform's plan, where its row knows some. */
  readonly plan?: string | undefined
  /** The server's memory, for platforms where that decides: 0.1 or more. */
  readonly memoryGiB?: number | undefined
  /** Default `production`. Others take a part of the server only: see `Platform.environments`. */
  readonly environment?: Platform.Environment | undefined
  /** The server's `max_connections`: 1 or more. Wins over what the platform's row says. */
  readonly maxConnections?: number | undefined
  /** Connections to leave to others: 0 or more. Wins over what the platform's row says. */
  readonly reserved?: number | undefined
  /** Instances of the program that share the server, each with its own pool: 1 or more. Default 1. */
  readonly instances?: number | undefined
  /** Operations of one instance that want a connection at the same moment: 1 or more. */
  readonly expectedConcurrency?: number | undefined
  /** Time for which one operation holds a connection, on average: 0.001 or more. Needs `targetThroughput`. */
  readonly averageQueryMillis?: number | undefined
  /** Operations per second of one instance: 0.001 or more. Needs `averageQueryMillis`. */
  readonly targetThroughput?: number | undefined
  /** Cores of the database server: 1 or more. */
  readonly cores?: number | undefined
}

/** What decided the size. */
export type LimitedBy = "demand" | "server" | "cores"

export interface Recommendation {
  /** Connections to keep open. Never above `max`. */
  readonly min: number
  /** 1 or more, and never above an instance's share of the server unless that is less than one. */
  readonly max: number
  readonly limitedBy: LimitedBy
  /** How the figures came about, one sentence each, in the order of the calculation. */
  readonly reasons: ReadonlyArray<string>
  /** What will not go well, or was left out of the calculation. */
  readonly warnings: ReadonlyArray<string>
}

/** Beyond this use of its connections a pool's waiting times grow steeply; the rest is for bursts. */
const targetUse = 0.7

const rules = {
  memoryGiB: validate.number({ min: 0.1 }),
  maxConnections: validate.integer({ min: 1 }),
  reserved: validate.integer(),
  instances: validate.integer({ min: 1 }),
  expectedConcurrency: validate.integer({ min: 1 }),
  averageQueryMillis: validate.number({ min: 0.001 }),
  targetThroughput: validate.number({ min: 0.001 }),
  cores: validate.integer({ min: 1 })
}

const count = (n: number, thing: string) => `${n} ${thing}${n === 1 ? "" : "s"}`

/**
 * The pool of one instance. Total: a value out of its range is left out of the calculation, and a warning says so.
 *
 * Demand is `expectedConcurrency`, or by Little's law `targetThroughput` × `averageQueryMillis` at 70 % use, or the
 * lesser where both are known. Sources: Little, "A Proof for the Queuing Formula L = λW", 1961; for cores, PostgreSQL
 * wiki, "Number Of Database Connections".
 */
export const recommend = (input: Input): Recommendation => {
  const reasons: Array<string> = []
  const warnings: Array<string> = []
  const sound = (name: keyof typeof rules): number | undefined => {
    const value = input[name]
    if (value === undefined) return undefined
    return Either.match(rules[name](value, name), {
      onLeft: (faults) => {
        warnings.push(...faults.map((_) => `${name} is ${_.value}, expected ${_.expected}: left out.`))
        return undefined
      },
      onRight: (decoded) => decoded
    })
  }

  const platform = input.platform ?? "local"
  const row = Platform.platforms[platform]
  const environment = input.environment ?? "production"
  const share = Platform.environments[environment]
  if (input.plan !== undefined && !Object.hasOwn(row.plans ?? {}, input.plan)) {
    warnings.push(`${platform} has no plan "${input.plan}" in the table: its smallest is taken.`)
  }

  // what the server has to give
  const known = Platform.capacity(platform, { memoryGiB: sound("memoryGiB"), plan: input.plan })
  const server = sound("maxConnections") ?? known.maxConnections
  const reserved = sound("reserved") ?? known.reserved
  const instances = sound("instances") ?? 1
  const available = Math.floor((server - reserved) * share)
  const perInstance = Math.floor(available / instances)
  reasons.push(
    `The server takes ${count(server, "connection")}, of which ${reserved} are reserved` +
      (share === 1 ? "" : `, and ${environment} takes ${share * 100} % of the rest`) +
      `: ${count(Math.max(0, available), "connection")} for ${count(instances, "instance")}.`
  )
  if (perInstance < 1) {
    warnings.push(
      `${count(instances, "instance")} ${instances === 1 ? "has" : "share"} ${count(Math.max(0, available), "connection")}: even one each is too many. ` +
        "Use fewer instances, a larger server, or a pooler."
    )
  }

  // what the program can use
  const concurrency = sound("expectedConcurrency")
  const millis = sound("averageQueryMillis")
  const throughput = sound("targetThroughput")
  let demand = concurrency
  if (millis !== undefined && throughput !== undefined) {
    const busy = (throughput * millis) / 1_000
    const needed = Math.max(1, Math.ceil(busy / targetUse))
    demand = Math.min(demand ?? needed, needed)
    reasons.push(
      `${throughput} operations a second of ${millis} ms keep ${Number(busy.toFixed(2))} connections busy on average: ` +
        `${needed} at ${targetUse * 100} % use.`
    )
  } else if (millis !== undefined || throughput !== undefined) {
    warnings.push("targetThroughput and averageQueryMillis say something only together: left out.")
  }
  if (concurrency !== undefined) {
    reasons.push(`No more than ${count(concurrency, "operation")} want a connection at once.`)
  }
  if (demand === undefined) {
    const ofPlatform = input.platform !== undefined
    demand = ofPlatform ? Platform.preset(platform, environment).maxConnections : defaults.maxConnections
    reasons.push(
      `Nothing is known of the load: ${demand} is what ${ofPlatform ? `suits ${platform}` : "a pool has by default"}.`
    )
  }

  // what the server can work on at once
  const cores = sound("cores")
  const workable = cores === undefined ? Number.POSITIVE_INFINITY : Math.floor(((2 * cores + 1) * share) / instances)
  if (cores !== undefined) {
    reasons.push(
      `A server of ${count(cores, "core")} works on about ${2 * cores + 1} connections at once; more make it slower.`
    )
  }

  const max = Math.max(1, Math.min(demand, perInstance, workable))
  const limitedBy: LimitedBy = demand <= max ? "demand" : perInstance <= workable ? "server" : "cores"
  if (limitedBy !== "demand") {
    warnings.push(`The load could use ${count(demand, "connection")} and gets ${max}: some operations will wait.`)
  }
  if (row.pooler === "transaction") {
    warnings.push(
      `On ${platform} programs usually connect through a pooler in transaction mode: LISTEN and session settings need ` +
        "its direct address."
    )
  }
  const min = Math.min(Math.floor(row.pool.min * share), max)
  reasons.push(`${max} at most, limited by ${limitedBy === "server" ? "the server" : limitedBy}; ${min} kept open.`)
  return { min, max, limitedBy, reasons, warnings }
}
