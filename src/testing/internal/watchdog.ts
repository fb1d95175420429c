/**
 * Clears up when the program ends without closing its scopes: `process.exit`, an uncaught error, Ctrl-C without a
 * handler, SIGKILL. A shell waits on a pipe that only this process holds; when the process is gone, however it went, the
 * pipe is closed by the system, and the shell ends the server and removes its directory. So no handler for signals or
 * `exit` is installed in the program, and its own shutdown is never cut short.
 */

import { spawn } from "node:child_process"
import * as Effect from "effect/Effect"

/**
 * Each line names processes, the one to end first; the last line counts, an empty one stands for none. SIGCONT comes
 * first because a stopped process does not act on others; SIGQUIT is PostgreSQL's immediate shutdown, and ends initdb. A
 * zombie is as good as gone: not every container has an init that clears it away. A server that was killed leaves its
 * lock file, whose line 7 ends with the id of a System V segment that nobody else would free. The directory is removed
 * repeatedly because what is ending may still write to it.
 */
const script = `
alive() {
  [ -r "/proc/$1/stat" ] || { kill -0 "$1"; return; }
  case "$(sed 's/.*) //' "/proc/$1/stat")" in Z*) return 1;; esac
}
while IFS= read -r line; do pids=$line; done
if [ -n "$pids" ]; then
  kill -CONT $pids
  kill -QUIT \${pids%% *}
  for second in 1 2 3 4 5 6 7 8; do
    for tenth in 1 2 3 4 5 6 7 8 9 10; do alive \${pids%% *} || break 2; sleep 0.1; done
  done
  kill -KILL $pids
fi
segment=$(sed -n '7s/.* //p' "$1/data/postmaster.pid") && [ -n "$segment" ] && ipcrm -m "$segment"
for attempt in 1 2 3 4 5; do rm -rf "$1" && break; sleep 0.2; done
`

/** What the watchdog is told. */
export interface Watchdog {
  /** The processes to end if the program dies now; the first is the one whose end is waited for. */
  readonly guard: (pids: ReadonlyArray<number>) => void
}

/** Watches until the scope closes; then removes the directory and is gone. */
export const make = (directory: string) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      // Detached: in a session of its own, Ctrl-C in the terminal does not reach it.
      const child = spawn("/bin/sh", ["-c", script, "sh", directory], {
        cwd: "/",
        detached: true,
        stdio: ["pipe", "ignore", "ignore"]
      })
      child.on("error", () => {}) // without a shell there is no watchdog, and scopes still clear up
      child.stdin.on("error", () => {})
      child.unref()
      const stdin = child.stdin as typeof child.stdin & { readonly unref: () => void }
      stdin.unref() // the program may end although we still watch
      return { child, guard: (pids: ReadonlyArray<number>) => void stdin.write(`${pids.join(" ")}\n`) }
    }),
    ({ child }) =>
      Effect.async<void>((resume) => {
        if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
        child.once("exit", () => resume(Effect.void))
        child.ref()
        child.stdin.end("\n")
      })
  ).pipe(Effect.map(({ guard }): Watchdog => ({ guard })))
