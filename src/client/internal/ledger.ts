/**
 * The ledger's SQL. One row a transaction that was to happen exactly once: inserted with its BEGIN, so that the row is there
 * exactly when the transaction is, over crashes, failovers and restores. Pure.
 *
 * Tokens are our own UUIDs, and go in as literals, because the insert travels in BEGIN's message, which has no parameters.
 * Never `ON CONFLICT`: it would turn the refusal, which is what settles, into a success.
 */
import { copy } from "../../error/internal/build.js"
import type * as PgError from "../../error/PgError.js"

/** Where the ledger is. */
export interface Place {
  readonly schema: string
  readonly table: string
}

/** Where it is, and how long it remembers. */
export interface Ledger extends Place {
  /** Milliseconds by the server's `now()`. Nobody uses a token for longer than half of it. */
  readonly retention: number
}

/** `commit`: the transaction was applied. `fence`: somebody asked first, was told that it was not, and so it never will be. */
export type Kind = "commit" | "fence"

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`
const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`

/** Results by idempotency key. */
export const keysOf = ({ schema, table }: Place): string => `${quoted(schema)}.${quoted(`${table}_keys`)}`
export const nameOf = ({ schema, table }: Place): string => `${quoted(schema)}.${quoted(table)}`
const constraintOf = ({ table }: Place): string => `${table}_token`

export const insert = (ledger: Ledger, token: string, kind: Kind): string =>
  `INSERT INTO ${nameOf(ledger)} (token, kind) VALUES ('${token}', '${kind}')`

/**
 * Behind BEGIN of an attempt that may meet an earlier one: who we are, for whoever looks for what blocks us, and no limit on
 * the wait for that one's end. The limit is put back by `claim`.
 */
export const prepare =
  "; SELECT pg_backend_pid() AS pid, current_setting('lock_timeout') AS lock_timeout; SET LOCAL lock_timeout = 0"

export const claim = (ledger: Ledger, token: string, kind: Kind, lockTimeout: string): string =>
  `${insert(ledger, token, kind)}; SELECT set_config('lock_timeout', ${literal(lockTimeout)}, true)`

export const kindOf = (ledger: Ledger): string => `SELECT kind FROM ${nameOf(ledger)} WHERE token = $1`

/** The token is there already. A 23505 of any other constraint says nothing about it. */
export const isRefusal = (ledger: Ledger, error: PgError.PgError): boolean =>
  error._tag === "UniqueViolation" &&
  error.schema === ledger.schema &&
  error.table === ledger.table &&
  error.constraint === constraintOf(ledger)

/** SQLSTATE undefined_table. */
const undefinedTable = "42P01"

/** An error of a statement on one of our tables: if that is not there, with how to create it. */
export const explained = (error: PgError.PgError, table: string): PgError.PgError =>
  error.sqlState === undefinedTable
    ? copy(error, {
        message: `the table "${table}", which transactions that run exactly once need, does not exist: run Transaction.createLedger once, as a program's start or a migration does. Nothing was applied`
      })
    : error

/**
 * Ends what blocks the insert of backend `$1`, if that is a transaction whose client has gone: an earlier attempt that was
 * never told to commit, and now never will be. One that is being committed is waited for.
 */
export const unblock = `
SELECT pg_terminate_backend(blocker.pid)
FROM unnest(pg_blocking_pids($1)) AS blocking (pid) JOIN pg_stat_activity AS blocker USING (pid)
WHERE blocker.state LIKE 'idle in transaction%'
  AND EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND locktype = 'transactionid' AND NOT granted)`

/** Acknowledged: nobody will ever ask for them again. `$1`: an array of tokens. */
export const forget = (ledger: Ledger): string => `DELETE FROM ${nameOf(ledger)} WHERE token = ANY ($1::uuid[])`

/** What is older than anybody remembers. `$1`: milliseconds; `$2`: at most so many, so that no lock is held for long. */
export const expire = (ledger: Ledger): string =>
  `DELETE FROM ${nameOf(ledger)} WHERE token IN (SELECT token FROM ${nameOf(ledger)}
   WHERE created_at < now() - $1 * interval '1 millisecond' LIMIT $2)`

/**
 * `$1` key, `$2` fingerprint, `$3` milliseconds. A row: the key is ours, new or expired. None: somebody's who has committed;
 * whoever has not is waited for.
 */
export const takeKey = (ledger: Ledger): string =>
  `INSERT INTO ${keysOf(ledger)} AS taken (key, fingerprint, expires_at)
   VALUES ($1, $2, now() + $3 * interval '1 millisecond')
   ON CONFLICT (key) DO UPDATE SET fingerprint = EXCLUDED.fingerprint, result = NULL, expires_at = EXCLUDED.expires_at
   WHERE taken.expires_at <= now() RETURNING key`

export const keyTaken = (ledger: Ledger): string =>
  `SELECT fingerprint, result::text AS result FROM ${keysOf(ledger)} WHERE key = $1`

/** `$1` key, `$2` JSON. */
export const storeResult = (ledger: Ledger): string => `UPDATE ${keysOf(ledger)} SET result = $2::json WHERE key = $1`

export const expireKeys = (ledger: Ledger): string =>
  `DELETE FROM ${keysOf(ledger)} WHERE key IN (SELECT key FROM ${keysOf(ledger)} WHERE expires_at <= now() LIMIT $1)`

/** "pgLedger" in ASCII: any number will do, as long as all use the same. */
const createLock = "8099526453209032050"

/**
 * To be run one after the other in one transaction; changes nothing where the table is there. IF NOT EXISTS alone fails when
 * two create it at once, and asks for a privilege on schemas that are there already.
 *
 * Rows come and go, and few stay: vacuumed by their number, not by their share of the table. Never UNLOGGED: the row must
 * survive whatever the transaction survives.
 */
export const create = (ledger: Place): ReadonlyArray<string> => [
  `SELECT pg_advisory_xact_lock(${createLock})`,
  `DO $ledger$ BEGIN
     IF to_regclass(${literal(nameOf(ledger))}) IS NULL THEN
       IF to_regnamespace(${literal(quoted(ledger.schema))}) IS NULL THEN CREATE SCHEMA ${quoted(ledger.schema)}; END IF;
       CREATE TABLE ${nameOf(ledger)} (
         token uuid CONSTRAINT ${quoted(constraintOf(ledger))} PRIMARY KEY,
         kind text NOT NULL CHECK (kind IN ('commit', 'fence')),
         created_at timestamptz NOT NULL DEFAULT now()
       ) WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
     END IF;
     IF to_regclass(${literal(keysOf(ledger))}) IS NULL THEN
       CREATE TABLE ${keysOf(ledger)} (
         key text PRIMARY KEY,
         fingerprint text,
         result json,
         expires_at timestamptz NOT NULL
       );
     END IF;
   END $ledger$`
]
