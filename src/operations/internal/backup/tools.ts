/** PostgreSQL's own programs: found, asked for their version, run. */

import process from "node:process"
import * as Command from "@effect/platform/Command"
import * as CommandExecutor from "@effect/platform/CommandExecutor"
import * as FileSystem from "@effect/platform/FileSystem"
import * as Path from "@effect/platform/Path"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { ToolFailedError, ToolMissingError, ToolVersionError } from "./errors.js"
import * as target from "./target.js"

export interface Tool {
  readonly name: string
  readonly path: string
  /** Major version. */
  readonly version: number
  /** What it said of itself: `pg_dump (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`. */
  readonly banner: string
}

/** The major version in what `--version` prints, of a release, a beta or a development version. */
export const majorOf = (banner: string): number | undefined => {
  const found = /\(PostgreSQL\) (\d+)(?:\.\d+|beta\d+|rc\d+|devel)/.exec(banner)
  return found ? Number(found[1]) : undefined
}

/** How a version must relate to the one that is needed. */
export type Fit = "atLeast" | "same"

export const fits = (version: number, fit: Fit, needed: number): boolean =>
  fit === "same" ? version === needed : version >= needed

/** Lines that are kept of what a program says, for the error. */
const kept = 20

/** What a failed program's error quotes: its complaints, without the statements that it was at, which hold data. */
export const complaints = (lines: ReadonlyArray<string>): string => {
  const telling = lines.filter((line) => /\b(error|fatal|panic|could not)\b/i.test(line))
  return (telling.length > 0 ? telling : lines.slice(-3)).slice(-4).join("; ")
}

/** Of a program that has no server to be told. */
export const environment = (): Record<string, string> => target.base(process.env)

const environmentOf = (given: target.Target | undefined) =>
  given === undefined ? environment() : Redacted.value(given.environment)

/**
 * Runs a program to its end, and returns what it wrote to stdout. `onLine` sees each line of its stderr, also those that
 * end with a carriage return. Interruption ends the program and everything it has started, and waits for that.
 */
export const run = (
  tool: { readonly name: string; readonly path: string },
  parameters: ReadonlyArray<string>,
  options: {
    readonly target?: target.Target | undefined
    readonly onLine?: ((line: string) => Effect.Effect<void>) | undefined
    /** Put before the program, to run it under another account. */
    readonly prefix?: ReadonlyArray<string> | undefined
  } = {}
): Effect.Effect<string, ToolFailedError, CommandExecutor.CommandExecutor> =>
  Effect.gen(function* () {
    const executor = yield* CommandExecutor.CommandExecutor
    const { onLine = () => Effect.void, prefix = [], target } = options
    const failed = (output: string, exitCode?: number) =>
      new ToolFailedError({
        message: `${tool.name} failed${exitCode === undefined ? "" : ` with exit code ${exitCode}`}: ${output}`,
        tool: tool.name,
        exitCode,
        output
      })
    const [program, ...words] = [...prefix, tool.path, ...parameters]
    const command = Command.make(program!, ...words).pipe(
      Command.env(environmentOf(target), { extendEnv: false }),
      Command.stdin(Stream.empty)
    )
    const last: Array<string> = []
    const child = yield* executor.start(command)
    const stdout = yield* Effect.fork(Stream.mkString(Stream.decodeText(child.stdout)))
    yield* Stream.decodeText(child.stderr).pipe(
      Stream.map((text) => text.replaceAll("\r", "\n")),
      Stream.splitLines,
      Stream.filter((line) => line.trim() !== ""),
      Stream.runForEach((line) => {
        last.push(line)
        if (last.length > kept) last.shift()
        return onLine(line)
      })
    )
    const written = yield* Fiber.join(stdout)
    const exitCode = yield* child.exitCode
    return exitCode === 0 ? written : yield* failed(complaints(last) || written.trim().slice(-300), exitCode)
  }).pipe(
    Effect.scoped,
    Effect.mapError((error) =>
      error._tag === "ToolFailedError"
        ? error
        : new ToolFailedError({
            message: `${tool.name} could not be run (${tool.path}): ${error._tag === "SystemError" ? (error.description ?? error.reason) : error.message}`,
            tool: tool.name,
            exitCode: undefined,
            output: ""
          })
    )
  )

/** Directories that PostgreSQL's packages put their programs in, newest first: Debian and Ubuntu, Red Hat, Homebrew. */
const wellKnown = (version: number) =>
  [version, version + 1, version + 2].flatMap((major) => [
    `/usr/lib/postgresql/${major}/bin`,
    `/usr/pgsql-${major}/bin`,
    `/opt/homebrew/opt/postgresql@${major}/bin`,
    `/usr/local/opt/postgresql@${major}/bin`
  ])

/** Debian's package, without the version. */
const packageOf = (tool: string) =>
  ["pg_dump", "pg_dumpall", "pg_restore", "pg_basebackup"].includes(tool) ? "postgresql-client" : "postgresql"

/** The directories to look in, in order. One that is told, by option or `PG_BINDIR`, is the only one. */
const searched = (told: string | undefined, needed: number) =>
  Effect.gen(function* () {
    const path = yield* Path.Path
    const variable = yield* Effect.orElseSucceed(Config.option(Config.string("PG_BINDIR")), () => Option.none<string>())
    const given = told ?? Option.getOrUndefined(variable)
    if (given !== undefined) return [path.resolve(given)]
    const configured = yield* run({ name: "pg_config", path: "pg_config" }, ["--bindir"]).pipe(
      Effect.map((line) => [line.trim()]),
      // not there: a program of the development packages
      Effect.orElseSucceed((): ReadonlyArray<string> => [])
    )
    const inPath = (process.env["PATH"] ?? "").split(":").filter((directory) => directory !== "")
    return [...new Set([...configured, ...inPath, ...wellKnown(needed)])]
  })

/**
 * The oldest program of that name whose version fits: what newer ones write, an older server may not understand. Fails with `ToolMissingError` where there is none at all, and with
 * `ToolVersionError` where none fits; `why` completes "needs version 18 or newer …".
 */
export const find = (
  name: string,
  { directory, fit, needed, why }: { directory: string | undefined; fit: Fit; needed: number; why: string }
): Effect.Effect<
  Tool,
  ToolMissingError | ToolVersionError | ToolFailedError,
  CommandExecutor.CommandExecutor | FileSystem.FileSystem | Path.Path
> =>
  Effect.gen(function* () {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const directories = yield* searched(directory, needed)
    const wanted = fit === "same" ? `version ${needed}` : `version ${needed} or newer`
    let fitting: Tool | undefined
    let unfit: Tool | undefined
    for (const directory of directories) {
      const file = path.join(directory, name)
      if (!(yield* Effect.orElseSucceed(fs.exists(file), () => false))) continue
      const banner = (yield* run({ name, path: file }, ["--version"])).trim()
      const version = majorOf(banner)
      if (version === undefined) continue
      const tool = { name, path: file, version, banner }
      if (fits(version, fit, needed)) fitting = fitting === undefined || version < fitting.version ? tool : fitting
      else unfit = unfit === undefined || version > unfit.version ? tool : unfit
      if (fitting?.version === needed) break
    }
    if (fitting !== undefined) return fitting
    if (unfit !== undefined) {
      return yield* new ToolVersionError({
        message: `${name} is version ${unfit.version} (${unfit.path}), but ${wanted} is needed ${why}: install PostgreSQL's programs of ${wanted} (Debian: ${packageOf(name)}-${needed}), or say where they are with --bin-directory or PG_BINDIR`,
        tool: name,
        found: unfit.version,
        needed
      })
    }
    return yield* new ToolMissingError({
      message: `${name} was not found in ${directories.join(", ")}: install PostgreSQL's programs of ${wanted} (Debian: ${packageOf(name)}-${needed}), or say where they are with --bin-directory or PG_BINDIR`,
      tool: name,
      searched: directories
    })
  })
