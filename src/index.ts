// biome-ignore-all assist/source/organizeImports: the order of the modules is that of a query's way
/** The modules in the order of a query's way. Each is also an import path of its own: `effect-pg-resilience/Operation`. */

/** The front door: a layer in the place of `PgClient.layer`. */
export * as ResilientPg from "./ResilientPg.js"
/** Name, bound and refine an effect. */
export * as Operation from "./policy/Operation.js"
/** Which failures are tried again, and when. */
export * as RetryPolicy from "./policy/RetryPolicy.js"
/** How many retries may be under way at once. */
export * as RetryBudget from "./policy/RetryBudget.js"
/** Leaving a server alone that does not answer. */
export * as CircuitBreaker from "./policy/CircuitBreaker.js"
/** What a statement's text says about it. */
export * as ReadOnly from "./policy/ReadOnly.js"
/** The figures of the pool. */
export * as Pool from "./client/Pool.js"
/** Transactions that tell the truth. */
export * as Transaction from "./client/Transaction.js"
/** Notifications, and the gaps in them. */
export * as Listen from "./client/Listen.js"
/** What can go wrong, one tag per decision. */
export * as PgError from "./error/PgError.js"
/** The table from SQLSTATE, socket code and driver message to tag. */
export * as SqlState from "./error/SqlState.js"
/** Every metric, its unit and its labels. */
export * as Metrics from "./telemetry/Metrics.js"
/** Metrics and traces over OTLP. */
export * as Telemetry from "./telemetry/Telemetry.js"
/** All metrics as Prometheus' text. */
export * as Prometheus from "./telemetry/Prometheus.js"
/** How well the database is doing, as a number, and why. */
export * as HealthScore from "./health/HealthScore.js"
/** How the database is asked whether it is there. */
export * as HealthProbe from "./health/HealthProbe.js"
/** Watches the database, and judges. */
export * as HealthMonitor from "./health/HealthMonitor.js"
/** Trouble, and its end, told to whoever has to act. */
export * as Alerts from "./health/Alerts.js"
/** Alerts to a webhook. */
export * as AlertWebhook from "./health/AlertWebhook.js"
/** All of this over HTTP. */
export * as HealthApi from "./http/HealthApi.js"
/** All that watches the database, as one layer. */
export * as Monitoring from "./health/Monitoring.js"
/** Every option, its range and its default; the environment variables. */
export * as ResilienceConfig from "./config/ResilienceConfig.js"
/** Presets for the platforms that programs run on. */
export * as Platform from "./config/Platform.js"
/** How large a pool should be, and why. */
export * as PoolSizing from "./config/PoolSizing.js"
/** Changes of the schema, up and down. */
export * as Migrations from "./operations/Migrations.js"
/** What a database bears, and at which latency. */
export * as LoadTest from "./operations/LoadTest.js"
/** Backups that have been restored. */
export * as Backup from "./operations/Backup.js"
/** The whole server, back to any moment. */
export * as BaseBackup from "./operations/BaseBackup.js"
/** What about a server should be otherwise, and what to do. */
export * as Doctor from "./operations/Doctor.js"
