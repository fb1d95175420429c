import * as Data from "effect/Data"

/** The server could not be made to do what was asked. `message` ends with the tail of the server's log where that helps. */
export class EmbeddedPostgresError extends Data.TaggedError("EmbeddedPostgresError")<{
  readonly message: string
  /** What was asked: `start`, `stop`, `query`, … */
  readonly operation: string
  readonly cause?: unknown
}> {}

/** Says in an error what was being done; an error that says so already stays as it is. */
export const fail =
  (operation: string) =>
  (cause: unknown): EmbeddedPostgresError => {
    if (cause instanceof EmbeddedPostgresError) return cause
    const { message } = cause as { readonly message?: string }
    return new EmbeddedPostgresError({ operation, message: `${operation}: ${message || String(cause)}`, cause })
  }
