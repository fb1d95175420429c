/**
 * What the operating system knows about a PostgreSQL server: its children, and whether they run, are stopped or gone.
 * Linux is read from `/proc`, because small images have no `ps`; other systems are asked through `ps`.
 */
import { execFileSync } from "node:child_process"
import * as Fs from "node:fs"

/** A process as the system lists it. A zombie is not listed: it holds nothing, and only waits for its parent. */
export interface Entry {
  readonly pid: number
  readonly parent: number
  /** Stopped by SIGSTOP, and truly so: the signal has been delivered. */
  readonly stopped: boolean
}

const entry = (pid: number, parent: number, state: string): ReadonlyArray<Entry> =>
  state.startsWith("Z") || state.startsWith("X") ? [] : [{ pid, parent, stopped: state.startsWith("T") }]

/** One line of `/proc/<pid>/stat`. The command in parentheses may hold anything, so fields count from the last `)`. */
export const parseStat = (line: string): ReadonlyArray<Entry> => {
  const [state = "", parent = ""] = line.slice(line.lastIndexOf(")") + 2).split(" ")
  return entry(Number.parseInt(line, 10), Number(parent), state)
}

const readStat = (pid: string): ReadonlyArray<Entry> => {
  try {
    return parseStat(Fs.readFileSync(`/proc/${pid}/stat`, "latin1"))
  } catch {
    return [] // ended since the directory was read
  }
}

/** Lines of `ps -A -o pid=,ppid=,state=`. */
export const parsePs = (output: string): ReadonlyArray<Entry> =>
  output.split("\n").flatMap((line) => {
    const [pid, parent, state] = line.trim().split(/\s+/)
    return pid && parent && state ? entry(Number(pid), Number(parent), state) : []
  })

/** Every living process. */
export const list = (): ReadonlyArray<Entry> =>
  process.platform === "linux"
    ? Fs.readdirSync("/proc")
        .filter((name) => /^\d+$/.test(name))
        .flatMap(readStat)
    : parsePs(execFileSync("ps", ["-A", "-o", "pid=,ppid=,state="], { encoding: "utf8" }))

/** A process and its direct children. PostgreSQL's backends are all direct children of the postmaster. */
export const family = (pid: number): ReadonlyArray<Entry> =>
  list().filter((entry) => entry.pid === pid || entry.parent === pid)

/** Sends a signal; false when there is no such process any more. */
export const signal = (pid: number, name: NodeJS.Signals): boolean => {
  try {
    return process.kill(pid, name)
  } catch {
    return false
  }
}
