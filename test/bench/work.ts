/** What is done, the same by all: pieces of work by number, and a way to have many of them under way at once. */

export const workloads = ["read", "insert", "transaction", "rows", "mixed"] as const

/** `queued` is not measured for speed: its first pieces hold every connection, and reads wait behind them. */
export type Workload = (typeof workloads)[number] | "queued"

/** Connections of each contender, where nothing else is said. */
export const connections = 10

/** The same text for all; `$1` is a key from 1 to `keys`. */
export const keys = 10_000
export const texts = {
  read: "SELECT id, name, balance FROM accounts WHERE id = $1",
  insert: "INSERT INTO entries (account, amount) VALUES ($1, 1)",
  update: "UPDATE accounts SET balance = balance + 1 WHERE id = $1",
  rows: "SELECT id, name, balance FROM accounts WHERE id >= $1 ORDER BY id LIMIT 100",
  slow: "SELECT pg_sleep(0.05)",
  hold: "SELECT pg_advisory_xact_lock_shared(1)"
} as const

export const schema = `
  CREATE TABLE accounts (id int PRIMARY KEY, name text NOT NULL, balance bigint NOT NULL);
  INSERT INTO accounts SELECT i, 'account ' || i, 0 FROM generate_series(1, ${keys + 100}) i;
  CREATE TABLE entries (id bigint GENERATED ALWAYS AS IDENTITY, account int NOT NULL, amount int NOT NULL);
  ANALYZE accounts`

/** A key for each piece of work: all over the table, and the same for every contender. */
export const keyOf = (piece: number) => ((piece * 7919) % keys) + 1

/** One in twenty is slow. */
export const isSlow = (piece: number) => piece % 20 === 7

/** Of `queued`, the pieces that hold the connections. */
export const isHolder = (piece: number) => piece < connections

/** Pieces that workers take, one after the other, as long as there are any. */
export interface Run {
  readonly more: () => boolean
  /** The number of the next piece. Only after `more`. */
  readonly take: () => number
  readonly done: (milliseconds: number) => void
}

/** By many workers at once, until there is no more. */
export type Drive = (workers: number, workload: Workload, run: Run) => Promise<void>

/** Of one run at a time. Outside the heap and reused: what is measured is the work, not the list of what it took. */
const taken = new Float64Array(1 << 20)

export interface Counted extends Run {
  readonly started: () => number
  readonly finished: () => number
  /** What each finished piece took, milliseconds, in ascending order. */
  readonly sorted: () => Float64Array
}

const counted = (more: (started: number) => boolean): Counted => {
  let started = 0
  let finished = 0
  return {
    more: () => started < taken.length && more(started),
    take: () => started++,
    done: (milliseconds) => {
      taken[finished++] = milliseconds
    },
    started: () => started,
    finished: () => finished,
    sorted: () => taken.slice(0, finished).sort()
  }
}

/** As many as can be begun within the time. */
export const within = (milliseconds: number): Counted => {
  const until = performance.now() + milliseconds
  return counted(() => performance.now() < until)
}

/** As many as that, whatever the time. */
export const pieces = (count: number): Counted => counted((started) => started < count)
