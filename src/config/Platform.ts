/**
 * What hosting platforms give a program: connections, reserves, timeouts, the usual way in. One table of facts and
 * suggestions, and two functions that read it.
 *
 * Limits change and depend on the plan: each row takes its platform's smallest current plan, or what its comment says.
 * Whatever is set explicitly wins over a preset.
 */

import type { ConnectionOptions } from "node:tls"
import type * as Duration from "effect/Duration"

/** How a program reaches the server on a platform: directly, or usually through a pooler of that mode. */
export type Pooler = "none" | "session" | "transaction"

/** The smallest and the largest pool suggested for one instance of a program. */
export interface PoolRange {
  readonly min: number
  readonly max: number
}

/** One row of the table. */
export interface Row {
  /** Other words for it in `PLATFORM`. */
  readonly aliases?: ReadonlyArray<string> | undefined
  /** Connections that the server takes, on the plan named in the row's comment. */
  readonly maxConnections: number
  /** The same for other plans, by the platform's own names for them. */
  readonly plans?: { readonly [plan: string]: number } | undefined
  /** Where memory decides: connections of a server with so many GiB. */
  readonly byMemory?: ((gibibytes: number) => number) | undefined
  /** Connections to leave alone: superusers, the platform's own processes, and a person with `psql`. */
  readonly reserved: number
  /** In transaction mode session state is lost between transactions, `LISTEN` included, and startup settings are refused. */
  readonly pooler: Pooler
  /** Where left out, the URL says it, or `PGSSLMODE`. */
  readonly ssl?: boolean | ConnectionOptions | undefined
  readonly idleTimeout: Duration.DurationInput
  readonly connectionTTL: Duration.DurationInput
  /** Where a router gives up on a request, this is well below its limit, so that a full pool can still be answered for. */
  readonly acquireTimeout: Duration.DurationInput
  /** Kept by the server. Long migrations need a client of their own. */
  readonly statementTimeout: Duration.DurationInput
  /** For one instance in production; other environments take their share of it. */
  readonly pool: PoolRange
}

/** The part of a server's connections that an environment takes, so that what runs beside production leaves it room. */
export const environments = { production: 1, staging: 0.5, development: 0.25 } as const
export type Environment = keyof typeof environments

/** Source: Amazon RDS user guide, quotas: `LEAST(DBInstanceClassMemory / 9531392, 5000)`. */
const rdsConnections = (gibibytes: number) =>
  Math.max(1, Math.min(5_000, Math.floor((gibibytes * 2 ** 30) / 9_531_392)))

const defineRows = <const Name extends string>(rows: { readonly [name in Name]: Row }) => rows

/** The table. Sources as of 2026. */
export const platforms = defineRows({
  // Railway publishes no limit per plan. 20 is conservative: the image it runs takes PostgreSQL's default of 100. Of the
  // 20, 18 are the program's and 2 the operator's. Its public proxy has a certificate of its own; its private network
  // needs none.
  railway: {
    maxConnections: 20,
    reserved: 2,
    pooler: "none",
    idleTimeout: "30 seconds",
    connectionTTL: "30 minutes",
    acquireTimeout: "10 seconds",
    statementTimeout: "30 seconds",
    pool: { min: 2, max: 18 }
  },
  // Heroku Dev Center, "Choosing the Right Heroku Postgres Plan" (essential 20 and 40, standard-0 120; what larger plans
  // have differs between its pages, so the lower figure is here). Reserved: `pg:psql` and a one-off dyno. Its router
  // gives up after 30 s. TLS is required, and the certificate is self-signed unless Enhanced Certificates are on: with
  // those, and wherever the network is not trusted, set `sslmode=verify-full` in the URL.
  heroku: {
    maxConnections: 20,
    plans: { "essential-0": 20, "essential-1": 20, "essential-2": 40, "standard-0": 120, "standard-2": 400 },
    reserved: 2,
    pooler: "none",
    ssl: { rejectUnauthorized: false },
    idleTimeout: "30 seconds",
    connectionTTL: "30 minutes",
    acquireTimeout: "10 seconds",
    statementTimeout: "25 seconds",
    pool: { min: 2, max: 9 }
  },
  // Render, "Postgres on Render: connection limits and pooling": 100 below 8 GB of memory, and its own advice to plan
  // with 10 fewer. TLS is needed by the external URL only.
  render: {
    maxConnections: 100,
    plans: { "8gb": 200, "16gb": 400, "32gb": 500 },
    reserved: 10,
    pooler: "none",
    idleTimeout: "30 seconds",
    connectionTTL: "30 minutes",
    acquireTimeout: "10 seconds",
    statementTimeout: "30 seconds",
    pool: { min: 2, max: 20 }
  },
  // Supabase, "Compute and Disk", database max connections of Nano and Micro; the pooler (port 6543) takes 200 clients
  // there and keeps 15 server connections. How many its own services hold is not published: 20 is a guess on the safe side.
  supabase: {
    maxConnections: 60,
    plans: { small: 90, medium: 120, large: 160, xl: 240, "2xl": 380, "4xl": 480, "8xl": 490, "12xl": 500 },
    reserved: 20,
    pooler: "transaction",
    idleTimeout: "30 seconds",
    connectionTTL: "30 minutes",
    acquireTimeout: "10 seconds",
    statementTimeout: "30 seconds",
    pool: { min: 1, max: 15 }
  },
  // Neon, "Connection pooling": 104 at 0.25 CU, 7 of them its own; the pooler takes 10,000 clients and uses up to 90 %.
  // It suspends a database that nobody uses, hence no connection is kept for its own sake. TLS is required, and its
  // certificate is publicly trusted.
  neon: {
    maxConnections: 104,
    plans: { "0.25": 104, "0.5": 209, "1": 419, "2": 839, "4": 1_678, "8": 3_357 },
    reserved: 7,
    pooler: "transaction",
    ssl: true,
    idleTimeout: "10 seconds",
    connectionTTL: "30 minutes",
    acquireTimeout: "15 seconds",
    statementTimeout: "30 seconds",
    pool: { min: 0, max: 20 }
  },
  // Fly Managed Postgres, "Client-Side Connection Configuration": 50 database connections and 200 clients on Basic, in
  // session mode unless changed; its proxy ends connections at 10 minutes when it restarts, so they are renewed before.
  // How many of the 50 are taken by Fly is not published: 5 is a guess.
  fly: {
    aliases: ["fly.io", "flyio"],
    maxConnections: 50,
    plans: { basic: 50, starter: 50, launch: 150, scale: 300, performance: 300 },
    reserved: 5,
    pooler: "session",
    idleTimeout: "5 minutes",
    connectionTTL: "10 minutes",
    acquireTimeout: "10 seconds",
    statementTimeout: "30 seconds",
    pool: { min: 2, max: 15 }
  },
  // Amazon RDS: by memory, here of the smallest class (1 GiB). The formula's memory is somewhat less than the class's,
  // so a tenth and the slots of superusers and of RDS itself are left. PostgreSQL 15 and later require TLS there; the
  // certificate needs Amazon's bundle: `sslmode=verify-full&sslrootcert=global-bundle.pem` in the URL.
  "aws-rds": {
    aliases: ["aws", "rds"],
    maxConnections: rdsConnections(1),
    byMemory: rdsConnections,
    reserved: 16,
    pooler: "none",
    idleTimeout: "1 minute",
    connectionTTL: "30 minutes",
    acquireTimeout: "10 seconds",
    statementTimeout: "30 seconds",
    pool: { min: 2, max: 20 }
  },
  // PostgreSQL as it comes: manual, 19.3 (max_connections 100, superuser_reserved_connections 3).
  local: {
    maxConnections: 100,
    reserved: 3,
    pooler: "none",
    idleTimeout: "10 seconds",
    connectionTTL: "30 minutes",
    acquireTimeout: "30 seconds",
    statementTimeout: "30 seconds",
    pool: { min: 2, max: 20 }
  }
})

export type Platform = keyof typeof platforms

/** The names in the order of the table. */
export const names = Object.keys(platforms) as ReadonlyArray<Platform>

/** A platform by its name or an alias, in any case. */
export const fromName = (name: string): Platform | undefined => {
  const wanted = name.toLowerCase().replaceAll("_", "-")
  return names.find((platform) => platform === wanted || platforms[platform].aliases?.includes(wanted))
}

/** What a server of a platform takes, by plan or memory where they are known, and what of it is to be left alone. */
export const capacity = (
  platform: Platform,
  { memoryGiB, plan }: { readonly memoryGiB?: number | undefined; readonly plan?: string | undefined } = {}
): { readonly maxConnections: number; readonly reserved: number } => {
  const row = platforms[platform]
  const ofPlan = plan === undefined ? undefined : row.plans?.[plan]
  const maxConnections =
    ofPlan ?? (memoryGiB === undefined ? undefined : row.byMemory?.(memoryGiB)) ?? row.maxConnections
  return { maxConnections, reserved: row.reserved }
}

/** The options that a platform suggests, in the names of `ResilienceConfig.Options`. */
export interface Preset {
  readonly minConnections: number
  readonly maxConnections: number
  readonly idleTimeout: Duration.DurationInput
  readonly connectionTTL: Duration.DurationInput
  readonly acquireTimeout: Duration.DurationInput
  readonly serverTimeouts: { readonly statement: Duration.DurationInput }
  readonly ssl?: boolean | ConnectionOptions
}

/** The row of a platform as options for one environment. */
export const preset = (platform: Platform, environment: Environment): Preset => {
  const { acquireTimeout, connectionTTL, idleTimeout, pool, ssl, statementTimeout } = platforms[platform]
  const share = environments[environment]
  return {
    minConnections: Math.floor(pool.min * share),
    maxConnections: Math.max(1, Math.floor(pool.max * share)),
    idleTimeout,
    connectionTTL,
    acquireTimeout,
    serverTimeouts: { statement: statementTimeout },
    ...(ssl === undefined ? {} : { ssl })
  }
}
