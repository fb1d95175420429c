/** From where on a figure is worth a finding. Every one may be replaced; the comments say where a number comes from. */

/** A figure at or above `warning` is a warning, at or above `critical` a critical finding. */
export interface Levels {
  readonly warning: number
  readonly critical: number
}

export interface Thresholds {
  /** Round trip on an open connection, milliseconds. */
  readonly roundTripMs: Levels
  /** Opening a connection, milliseconds. */
  readonly connectMs: Levels
  /** Sessions, as a share of what the server has for ordinary roles. */
  readonly connectionShare: Levels
  /** Connections that the program's pools may open, as the same share. */
  readonly poolShare: Levels
  /** Sessions that have been idle for longer than `idleSessionSeconds`, as a share of `max_connections`. */
  readonly idleShare: Levels
  readonly idleSessionSeconds: number
  /** Age of a transaction that is at work, seconds. */
  readonly transactionSeconds: Levels
  /** Time for which a session has done nothing inside a transaction, seconds. */
  readonly idleInTransactionSeconds: Levels
  /** Age of a transaction prepared for a two-phase commit, seconds. */
  readonly preparedSeconds: Levels
  /** Time for which a session has been waiting for a lock, seconds. */
  readonly blockedSeconds: Levels
  /** How far a standby is behind. */
  readonly lagBytes: Levels
  readonly lagSeconds: Levels
  /** WAL that a replication slot keeps, bytes. */
  readonly slotBytes: Levels
  /** Age of a database's oldest transaction or multixact id, in ids of 2,147,483,648. */
  readonly idAge: Levels
  /** Dead rows, as a share of all rows of a table, in tables of `deadRows` dead ones or more. */
  readonly deadShare: Levels
  readonly deadRows: number
  /** Rows from which on a table that was never analyzed is worth a word. */
  readonly neverAnalyzedRows: number
  /** Used part of a sequence. */
  readonly sequenceShare: Levels
  /** Days until a major version's last release: a note before, a warning after. */
  readonly endOfLifeDays: number
  /** Temporary files of a database since its statistics began, bytes: a note. */
  readonly temporaryBytes: number
  /** `tcp_keepalives_idle`, seconds: above it a note. */
  readonly keepAliveSeconds: number
}

const minute = 60
const hour = 60 * minute
const mebibyte = 2 ** 20
const gibibyte = 2 ** 30

export const defaults: Thresholds = {
  // Where the health score begins to take points away, and where it has taken them all: `HealthScore.rules`.
  roundTripMs: { warning: 100, critical: 1_000 },
  // TLS and SCRAM take a handful of round trips.
  connectMs: { warning: 1_000, critical: 5_000 },
  // The last fifth is for a deployment and for whoever has to look; close to full, clients meet 53300.
  connectionShare: { warning: 0.8, critical: 0.95 },
  poolShare: { warning: 0.8, critical: 1 },
  // Each costs memory and a slot: PostgreSQL wiki, "Number Of Database Connections".
  idleShare: { warning: 0.5, critical: 0.8 },
  idleSessionSeconds: 10 * minute,
  // For as long as it lives, VACUUM removes nothing that was deleted since: manual, 24.1 "Routine Vacuuming".
  transactionSeconds: { warning: 5 * minute, critical: hour },
  // The default of `leakThreshold`; the same holds, and such a session keeps its locks for nothing.
  idleInTransactionSeconds: { warning: minute, critical: 10 * minute },
  // Manual, PREPARE TRANSACTION: "unwise to leave transactions in the prepared state for a long time".
  preparedSeconds: { warning: 5 * minute, critical: hour },
  // `deadlock_timeout` is a second: what waits ten times as long is not in a deadlock, and not served either.
  blockedSeconds: { warning: 10, critical: minute },
  // Four WAL segments of 16 MiB; and what the default `max_wal_size` would hold.
  lagBytes: { warning: 64 * mebibyte, critical: gibibyte },
  // `max_standby_streaming_delay` is 30 seconds: a standby may stay that far behind for a query's sake.
  lagSeconds: { warning: 30, critical: 5 * minute },
  // The default `max_wal_size`; and what fills the disk of a small server.
  slotBytes: { warning: gibibyte, critical: 10 * gibibyte },
  // `autovacuum_freeze_max_age` is 200 million: at more than twice that autovacuum does not get through. The server's own
  // fail-safe begins at 1.6 thousand million, and it stops at 3 million before the end: manual, 24.1.5.
  idAge: { warning: 500_000_000, critical: 1_500_000_000 },
  // Twice `autovacuum_vacuum_scale_factor` (0.2): autovacuum should have come by.
  deadShare: { warning: 0.4, critical: 0.8 },
  deadRows: 10_000,
  neverAnalyzedRows: 10_000,
  // A quarter left is time to change the type without haste.
  sequenceShare: { warning: 0.75, critical: 0.9 },
  endOfLifeDays: 180,
  temporaryBytes: 10 * gibibyte,
  // Below the 350 to 900 seconds after which load balancers and NAT forget a silent connection.
  keepAliveSeconds: 300
}
