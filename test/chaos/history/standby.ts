/**
 * A primary and its streaming standby, made of two embedded servers: the standby's directory is a copy of the primary's.
 * The primary waits with every COMMIT for the standby, so that promotion loses nothing that was acknowledged.
 */
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { Context, Effect, Layer, Redacted, Schedule } from "effect"
import { EmbeddedPostgres, FaultProxy } from "effect-pg-resilience/testing"

/** The server behind the network: the primary, and the standby after `failOver`. */
export class Pair extends Context.Tag("test/chaos/history/Pair")<
  Pair,
  {
    readonly primary: EmbeddedPostgres.EmbeddedPostgres["Type"]
    readonly standby: EmbeddedPostgres.EmbeddedPostgres["Type"]
    /** In front of whichever of them is in charge. */
    readonly network: FaultProxy.FaultProxy["Type"]
    /**
     * SIGKILL to all of the primary, the standby promoted, and new connections sent to it. Connections that exist end as
     * the primary does. Returns when the standby takes writes; the primary stays dead.
     */
    readonly failOver: Effect.Effect<void, unknown>
  }
>() {}

const attempt = <A>(run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: (cause) => cause as Error })

/** A copy that belongs to the account that the server runs under. */
const copy = (source: string, target: string) =>
  attempt(async () => {
    const { gid, uid } = await Fs.stat(target)
    await Fs.rm(target, { recursive: true })
    await Fs.cp(source, target, { recursive: true, verbatimSymlinks: true })
    const names = await Fs.readdir(target, { recursive: true })
    for (const name of ["", ...names]) await Fs.lchown(Path.join(target, name), uid, gid)
    await Fs.chmod(target, 0o700)
    return { gid, uid }
  })

/** Until the standby follows, and is waited for. */
const following = Schedule.spaced("20 millis")
const limit = "60 seconds"

export const make = (options: EmbeddedPostgres.Options = {}) =>
  Effect.gen(function* () {
    const password = Redacted.make(crypto.randomUUID())
    const both = { ...options, password }
    const [primary, standby] = yield* Effect.all([EmbeddedPostgres.make(both), EmbeddedPostgres.make(both)])

    // --- the standby's own data is given up for the primary's, taken while that one is shut down cleanly
    yield* Effect.all([primary.stop(), standby.stop()])
    const account = yield* copy(primary.dataDir, standby.dataDir)
    const { host, port, username } = primary.config
    const upstream = `host=${host} port=${port} user=${username} password=${Redacted.value(password)}`
    yield* attempt(async () => {
      const signal = Path.join(standby.dataDir, "standby.signal")
      await Fs.writeFile(signal, "")
      await Fs.chown(signal, account.uid, account.gid)
      const settings = Path.join(standby.dataDir, "postgresql.auto.conf")
      await Fs.appendFile(settings, `\nprimary_conninfo = '${upstream} application_name=standby'\n`)
    })
    yield* primary.start
    yield* standby.start
    // Only now, so that the standby, once promoted, waits for nobody.
    yield* primary.setting("synchronous_standby_names", "standby")
    yield* primary.query<{ state: string }>("SELECT sync_state AS state FROM pg_stat_replication").pipe(
      Effect.filterOrFail(
        ([follower]) => follower?.state === "sync",
        () => new Error("the standby does not follow")
      ),
      Effect.retry(following),
      Effect.timeout(limit)
    )

    let inCharge = primary.config
    const network = yield* FaultProxy.make({
      upstream: {
        host,
        get port() {
          return inCharge.port
        }
      }
    })
    return Pair.of({
      primary,
      standby,
      network,
      failOver: Effect.gen(function* () {
        yield* primary.crash
        yield* standby.query("SELECT pg_promote()") // waits, by default up to a minute
        inCharge = standby.config
      })
    })
  })

/** `make` as a layer. */
export const layer = (options: EmbeddedPostgres.Options = {}) => Layer.scoped(Pair, make(options))
