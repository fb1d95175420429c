/**
 * Choosing a TCP port that stays ours while nobody listens on it.
 *
 * A port handed out by binding port 0 lies in the range from which the system takes the ports of outgoing connections:
 * while the server behind it is down, any connection of the machine may get it, even one that a client makes to that
 * very port (TCP then connects to itself). So ports come from below that range (Linux 32768, others 49152).
 */

import * as Net from "node:net"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"

const first = 20_000
const last = 32_000

/** Whether a listener can be bound there at this moment. */
export const isFree = (port: number, host: string): Effect.Effect<boolean> =>
  Effect.async<boolean>((resume) => {
    const server = Net.createServer()
    server.once("error", () => resume(Effect.succeed(false)))
    server.listen({ port, host, exclusive: true }, () => server.close(() => resume(Effect.succeed(true))))
  })

/**
 * A port that is free now, chosen at random from 20000 to 31999 so that programs side by side rarely meet. Whoever binds
 * it must be ready to choose again. The random numbers are live ones, so that tests with one seed do not collide.
 */
export const choose = (host: string): Effect.Effect<number> =>
  Random.nextIntBetween(first, last).pipe(
    Effect.withRandom(Random.make(crypto.randomUUID())),
    Effect.flatMap((port) => Effect.flatMap(isFree(port, host), (free) => (free ? Effect.succeed(port) : choose(host))))
  )
