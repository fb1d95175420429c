/** A status that does not tremble: it gets worse below one score, and better only from a higher one on. */

export type Status = "healthy" | "degraded" | "unhealthy"

/** A score below `leave` loses the status; only one of `enter` or more gains it again. */
export interface Step {
  readonly enter: number
  readonly leave: number
}

export interface Thresholds {
  readonly healthy: Step
  /** Below it: `unhealthy`. */
  readonly degraded: Step
}

export const defaults: Thresholds = {
  healthy: { enter: 85, leave: 75 },
  degraded: { enter: 55, leave: 45 }
}

/** The next status. Undefined before the first: then the score alone decides, by `leave`. */
export const next = (
  status: Status | undefined,
  score: number,
  { degraded, healthy }: Thresholds = defaults
): Status => {
  const needed = (step: Step, has: boolean) => (has ? step.leave : step.enter)
  if (score >= needed(healthy, status === undefined || status === "healthy")) return "healthy"
  return score >= needed(degraded, status !== "unhealthy") ? "degraded" : "unhealthy"
}
