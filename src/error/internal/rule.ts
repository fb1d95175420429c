/** The form of the classification table's rows. */
import type { Tag } from "../tags.js"

/** Tags that a failure from outside can have; the others are made by this library alone. */
export type ClassifiedTag = Exclude<
  Tag,
  "CircuitOpenError" | "OutcomeUnknownError" | "IdempotencyKeyReusedError" | "InvalidOptionsError"
>

/** What the rows of one group have in common. */
export interface Group {
  readonly tag: ClassifiedTag
  readonly transient: boolean
  /** What to do about it. */
  readonly advice?: string | undefined
  /**
   * When the server's own message may be shown. `always`: it is a fixed text, or names what the program is configured
   * with. `plain`: unless the server adds a context (`where`), because then it speaks from inside a function or an input
   * routine. `positioned`: also only with a position in the statement, because otherwise it may quote a parameter, as
   * `SELECT $1::regclass` makes it do. Default: never.
   */
  readonly shown?: "always" | "plain" | "positioned" | undefined
  /** The server itself does not know: `OutcomeUnknownError`, with an error of this row's tag as reason. */
  readonly outcomeUnknown?: boolean | undefined
  /**
   * It proves that the statement was not applied, although it ends the session or speaks of a lost connection: nothing of
   * the kind is said once a commit may have happened.
   */
  readonly settles?: boolean | undefined
}

export interface Rule extends Group {
  /**
   * SQLSTATE or class, either with `+` and the function in the server that raised it; a system's code, or with `*` at the
   * end every code that begins so; or the beginning of a message.
   */
  readonly match: string
  /** What happened, in our own words. */
  readonly note: string
}

/** Rows that differ in nothing but what they match and what has happened. */
export const group = (
  tag: ClassifiedTag,
  transience: "transient" | "permanent",
  notes: { readonly [match: string]: string },
  rest: Omit<Group, "tag" | "transient"> = {}
): ReadonlyArray<Rule> =>
  Object.entries(notes).map(([match, note]) => ({ match, tag, transient: transience === "transient", note, ...rest }))

/** Finds the row with the longest beginning of a text; a `*` at the end of `match` is not part of it. */
export const byBeginning = (rules: ReadonlyArray<Rule>) => {
  const longestFirst = rules
    .map((row) => [row.match.replace(/\*$/, ""), row] as const)
    .sort(([a], [b]) => b.length - a.length)
  return (text: string): Rule | undefined => longestFirst.find(([beginning]) => text.startsWith(beginning))?.[1]
}

/** Advice that several tables give. */
export const backoff = "wait and try again"
export const replaced = "the connection is replaced"
export const unnamed = "run the transaction again; behind a pooler set preparedStatements: false"
