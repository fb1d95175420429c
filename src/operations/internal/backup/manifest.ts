/** What a backup says of itself: `manifest.json`, written last. */
import * as Schema from "effect/Schema"

/** The mark by which a directory is known for one of ours. */
export const format = "effect-pg-resilience/backup"

export const File = Schema.Struct({
  /** Relative to the backup, with `/`. */
  path: Schema.String,
  bytes: Schema.NonNegativeInt,
  sha256: Schema.String.pipe(Schema.pattern(/^[0-9a-f]{64}$/))
})

/** Numbers of the server that may exceed 2^53 are strings here. */
const Digits = Schema.String.pipe(Schema.pattern(/^-?\d+$/))

export const Table = Schema.Struct({
  schema: Schema.String,
  name: Schema.String,
  rows: Digits,
  /** Sum of a 64-bit hash over all rows, whatever their order. Missing unless asked for. */
  checksum: Schema.optional(Digits)
})

export const Sequence = Schema.Struct({
  schema: Schema.String,
  name: Schema.String,
  /** Null: never used. */
  value: Schema.NullOr(Digits),
  increment: Digits
})

/** What is in a database, as one snapshot shows it. Tables of extensions belong to the extensions, and are left out. */
export const Content = Schema.Struct({
  tables: Schema.Array(Table),
  sequences: Schema.Array(Sequence),
  largeObjects: Digits,
  /** How many there are of each kind; NOT NULL constraints are not counted, which PostgreSQL 18 has begun to list. */
  objects: Schema.Struct({
    constraints: Schema.NonNegativeInt,
    indexes: Schema.NonNegativeInt,
    triggers: Schema.NonNegativeInt,
    functions: Schema.NonNegativeInt,
    views: Schema.NonNegativeInt
  }),
  /** Constraints that had not been validated (NOT VALID), as `schema.table.name`. */
  unvalidated: Schema.Array(Schema.String)
})

/** What a new database must be made with so that the old one's content fits and sorts as it did. */
export const Database = Schema.Struct({
  name: Schema.String,
  owner: Schema.String,
  encoding: Schema.String,
  collate: Schema.String,
  ctype: Schema.String,
  /** `c` libc, `i` ICU, `b` builtin. */
  provider: Schema.String,
  locale: Schema.NullOr(Schema.String),
  bytes: Digits,
  /** ALTER DATABASE … SET, as `name=value`, of all roles together. */
  settings: Schema.Array(Schema.String),
  /** Privileges on the database itself, as `aclexplode` shows them; null: PostgreSQL's default. */
  privileges: Schema.NullOr(
    Schema.Array(Schema.Struct({ grantee: Schema.String, privilege: Schema.String, grantable: Schema.Boolean }))
  ),
  /** -1: no limit. */
  connectionLimit: Schema.Int
})

const common = {
  format: Schema.Literal(format),
  version: Schema.Literal(1),
  /** The directory's name. */
  name: Schema.String,
  /** When it was begun, by the clock of whoever took it; what it holds is no older. */
  startedAt: Schema.Date,
  /** When it was whole; of a base backup by the server's clock, as a recovery to a time must not end before. */
  finishedAt: Schema.Date,
  server: Schema.Struct({
    /** `server_version_num`: 150018 is 15.18. */
    version: Schema.Int,
    host: Schema.String,
    port: Schema.Int
  }),
  /** The programs' own words on their versions. */
  tool: Schema.String,
  toolVersion: Schema.Int,
  files: Schema.Array(File)
}

export const Logical = Schema.Struct({
  ...common,
  kind: Schema.Literal("logical"),
  dump: Schema.Struct({ format: Schema.Literal("custom", "directory"), path: Schema.String }),
  database: Database,
  content: Content,
  /** Where the WAL was when the snapshot was taken. */
  lsn: Schema.String
})
export type Logical = typeof Logical.Type

export const Base = Schema.Struct({
  ...common,
  kind: Schema.Literal("base"),
  /** The role that took it. */
  role: Schema.String,
  timeline: Schema.Int,
  /** Recovery begins here; consistent is what is recovered at least up to `endLsn`. */
  startLsn: Schema.String,
  endLsn: Schema.String,
  /** Bytes of the data directory. */
  bytes: Schema.NonNegativeInt,
  /** Of a WAL segment. */
  segmentBytes: Schema.Int
})
export type Base = typeof Base.Type

export const Manifest = Schema.Union(Logical, Base)
export type Manifest = typeof Manifest.Type

export type Content = typeof Content.Type
export type Database = typeof Database.Type
export type File = typeof File.Type

export const encode = Schema.encode(Schema.parseJson(Manifest, { space: 2 }))
export const decode = Schema.decodeUnknown(Schema.parseJson(Manifest))

/** `verified.json`: how the last rehearsal ended. */
export const Verified = Schema.Struct({
  at: Schema.Date,
  /** Empty: all is well. */
  faults: Schema.Array(Schema.String),
  /** How long it took to have it back, restoring and comparing. */
  seconds: Schema.Number
})
export type Verified = typeof Verified.Type
export const encodeVerified = Schema.encode(Schema.parseJson(Verified, { space: 2 }))
export const decodeVerified = Schema.decodeUnknown(Schema.parseJson(Verified))

const slug = (text: string) => text.replaceAll(/[^A-Za-z0-9_-]/g, "_").slice(0, 63)

/** `shop-20261130T214001.123Z`: sorts by time within one database, and is a name on every file system. */
export const nameOf = (subject: string, at: Date): string =>
  `${slug(subject)}-${at.toISOString().replaceAll(/[-:]/g, "")}`

/** What a backup is of, for lists and for `latest`: a database, or the whole server. */
export const subjectOf = (self: Manifest): string => (self.kind === "base" ? "(server)" : self.database.name)
