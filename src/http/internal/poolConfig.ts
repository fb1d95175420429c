/** The pool as it is and as it might be, and why the two differ. Pure. */
import * as Duration from "effect/Duration"
import * as Platform from "../../config/Platform.js"
import * as PoolSizing from "../../config/PoolSizing.js"
import type * as ResilienceConfig from "../../config/ResilienceConfig.js"
import type { PoolConfig } from "./answers.js"

/** What the server says of itself. */
export interface Server {
  readonly maxConnections: number
  readonly reserved: number
}

const timesOf = (platform: Platform.Platform, environment: Platform.Environment) => {
  const { acquireTimeout, connectionTTL, idleTimeout } = Platform.preset(platform, environment)
  return {
    acquireTimeout: Duration.toMillis(acquireTimeout),
    connectionTTL: Duration.toMillis(connectionTTL),
    idleTimeout: Duration.toMillis(idleTimeout)
  }
}

/** The reserve is the larger of the platform's and the server's own. */
const serverOf = (input: PoolSizing.Input, server: Server | undefined): PoolSizing.Input => {
  if (server === undefined) return input
  const { reserved } = Platform.platforms[input.platform ?? "local"]
  return {
    ...input,
    maxConnections: server.maxConnections,
    reserved: input.reserved ?? Math.max(reserved, server.reserved)
  }
}

export const compare = (
  config: ResilienceConfig.Decoded,
  input: PoolSizing.Input,
  server: Server | undefined
): PoolConfig => {
  const { acquireTimeout, checkAfterIdle, closeGrace, connectTimeout, connectionTTL, idleTimeout, leakThreshold } =
    config
  const { maxConnections, maxUses, maxWaiting, minConnections, poolName } = config
  const current = {
    ...{ minConnections, maxConnections, maxWaiting, maxUses },
    ...{ acquireTimeout, connectTimeout, idleTimeout, connectionTTL, checkAfterIdle, closeGrace, leakThreshold }
  }
  const { limitedBy, max, min, reasons, warnings } = PoolSizing.recommend(serverOf(input, server))
  const platform = input.platform ?? "local"
  const environment = input.environment ?? "production"
  const wanted: Partial<Record<keyof typeof current, readonly [value: number, why: string]>> = {
    minConnections: [min, "Connections that are kept open spare the first callers the time to open one."],
    maxConnections: [max, reasons.join(" ")]
  }
  // Without a platform there is nothing to say about times.
  if (input.platform !== undefined) {
    for (const [option, value] of Object.entries(timesOf(platform, environment)))
      wanted[option as keyof typeof current] = [value, `What suits ${platform}.`]
  }
  return {
    name: poolName,
    current,
    platform,
    environment,
    server,
    recommended: { minConnections: min, maxConnections: max, limitedBy, reasons, warnings },
    differences: Object.entries(wanted).flatMap(([option, [recommended, why]]) => {
      const value = current[option as keyof typeof current]
      return value === recommended ? [] : [{ option, current: value, recommended, why }]
    })
  }
}
