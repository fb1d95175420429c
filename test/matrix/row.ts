/** One row of the failure matrix: what happens, as a program that runs on any client. */
import type { Effect, Scope } from "effect"
import type { World } from "./world.js"

/** What a run showed. */
export interface Observation {
  /** Whether it went as this project promises. */
  readonly held: boolean
  /** What was seen, in a few words; the same words in every run that went the same way. */
  readonly seen: string
  /** A figure of this run, for the reader of a log. It decides nothing. */
  readonly figure?: string | undefined
}

export interface Row {
  readonly number: number
  /** What happens to the program. */
  readonly what: string
  /** A failure of the run itself is a fault of the row, not an observation. */
  readonly run: (world: World) => Effect.Effect<Observation, unknown, Scope.Scope>
}
