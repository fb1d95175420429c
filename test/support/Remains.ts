/** What a server leaves behind: nothing, if all is well. */

import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"
import * as Os from "node:os"
import * as Path from "node:path"
import { Effect } from "effect"
import * as Binaries from "../../src/testing/internal/binaries.js"
import * as Processes from "../../src/testing/internal/processes.js"
import { eventually } from "./TestPg.js"

/** A directory of the test's own. */
export const temporary = Effect.acquireRelease(
  Effect.sync(() => {
    const directory = Fs.mkdtempSync(Path.join(Os.tmpdir(), "lifetime-test-"))
    Fs.chmodSync(directory, 0o777)
    return directory
  }),
  (directory) => Effect.sync(() => Fs.rmSync(directory, { recursive: true, force: true }))
)

/** Postmasters, backends and watchdogs that have to do with a directory, and what is in it. */
export const remains = (directory: string, family: ReadonlyArray<number> = []) =>
  Effect.sync(() => ({
    files: Fs.readdirSync(directory),
    processes: Processes.list().filter(({ pid }) => family.includes(pid) || commandOf(pid).includes(directory))
  }))
const commandOf = (pid: number) => {
  try {
    return process.platform === "linux"
      ? Fs.readFileSync(`/proc/${pid}/cmdline`, "utf8")
      : execFileSync("ps", ["-p", String(pid), "-o", "command="], { encoding: "utf8" })
  } catch {
    return ""
  }
}
export const nothingRemains = (directory: string, family: ReadonlyArray<number>) =>
  eventually(remains(directory, family), ({ files, processes }) => files.length + processes.length === 0, {
    message: "something stayed behind"
  })

/** Copy of the platform's package without its links, as `npm ci --ignore-scripts` leaves it. */
export const unlinkedPackage = (directory: string) =>
  Effect.gen(function* () {
    const source = yield* Binaries.locate
    const copy = Path.join(directory, "package")
    Fs.cpSync(Path.join(source, "native"), Path.join(copy, "native"), {
      recursive: true,
      filter: (path) => !Fs.lstatSync(path).isSymbolicLink()
    })
    return copy
  })
