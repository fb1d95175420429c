/** What can go wrong with a backup, one tag per decision of whoever reads it. */
import type { PlatformError } from "@effect/platform/Error"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"

interface Said {
  /** One line: what happened, to what, and what to do. */
  readonly message: string
}

/** A program of PostgreSQL is nowhere to be found. Install it, or say where it is. */
export class ToolMissingError extends Data.TaggedError("ToolMissingError")<
  Said & { readonly tool: string; readonly searched: ReadonlyArray<string> }
> {}

/** A program of PostgreSQL is there, but does not fit the server or the backup. Install another version. */
export class ToolVersionError extends Data.TaggedError("ToolVersionError")<
  Said & {
    readonly tool: string
    /** Major version of the program. */
    readonly found: number
    /** Major version that is needed: at least this one, or exactly this one, as `message` says. */
    readonly needed: number
  }
> {}

/** A program of PostgreSQL ran, and failed. `output` is what it said last, on stderr. */
export class ToolFailedError extends Data.TaggedError("ToolFailedError")<
  Said & { readonly tool: string; readonly exitCode: number | undefined; readonly output: string }
> {}

/** The directory of backups, or a file in it, cannot be read or written. */
export class BackupFilesError extends Data.TaggedError("BackupFilesError")<
  Said & { readonly path: string; readonly cause: PlatformError }
> {}

/** There is no such backup. */
export class BackupNotFoundError extends Data.TaggedError("BackupNotFoundError")<
  Said & { readonly name: string; readonly directory: string }
> {}

/** A backup is not what its manifest says, or what was restored from it is not what was backed up. Use another one. */
export class BackupDamagedError extends Data.TaggedError("BackupDamagedError")<
  Said & { readonly name: string; readonly faults: ReadonlyArray<string> }
> {}

/** What would be overwritten exists: a database, a data directory. Nothing was touched. */
export class AlreadyExistsError extends Data.TaggedError("AlreadyExistsError")<Said & { readonly what: string }> {}

/** The server, or this machine, is not set up for what was asked. Nothing was done. */
export class UnsupportedError extends Data.TaggedError("UnsupportedError")<Said> {}

/** The target of a recovery lies before the end of the base backup. Take an older base backup, or a later target. */
export class TargetTooEarlyError extends Data.TaggedError("TargetTooEarlyError")<Said & { readonly name: string }> {}

/** The WAL at hand ends before the target. Find the missing segments, or take an earlier target. */
export class WalMissingError extends Data.TaggedError("WalMissingError")<
  Said & {
    /** File name of the first segment that is missing, where that is known. */
    readonly segment: string | undefined
  }
> {}

/** The recovered server did not come up. `log` is the end of what it logged. */
export class RecoveryFailedError extends Data.TaggedError("RecoveryFailedError")<Said & { readonly log: string }> {}

export type ToolError = ToolMissingError | ToolVersionError | ToolFailedError

/** What keeps a base backup from becoming a server again. */
export type RecoverError =
  | ToolError
  | BackupFilesError
  | BackupNotFoundError
  | BackupDamagedError
  | AlreadyExistsError
  | UnsupportedError
  | TargetTooEarlyError
  | WalMissingError
  | RecoveryFailedError

/** The files' failures with the path that they are about. */
export const files =
  (doing: string, path: string) =>
  <A, E, R>(
    self: Effect.Effect<A, E | PlatformError, R>
  ): Effect.Effect<A, Exclude<E, PlatformError> | BackupFilesError, R> =>
    Effect.mapError(self, (error) => {
      const platform = error as PlatformError
      if (platform._tag !== "SystemError" && platform._tag !== "BadArgument") return error as Exclude<E, PlatformError>
      const reason = platform._tag === "SystemError" ? platform.reason : "BadArgument"
      const hint =
        reason === "PermissionDenied"
          ? ": give this account the right to it"
          : /ENOSPC/.test(String(platform.cause)) || /ENOSPC/.test(platform.description ?? "")
            ? ": the disk is full, make room"
            : ""
      return new BackupFilesError({
        message: `Cannot ${doing} ${path} (${platform.description ?? reason})${hint}`,
        path,
        cause: platform
      })
    })
