/**
 * A program with a server, which a test ends in every way a program can end. It prints the pid of the postmaster and its
 * directory once the server answers, then waits, or leaves by itself. First argument: how it runs. Second: a package with
 * PostgreSQL's programs, in place of the installed one.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Effect from "effect/Effect"
import * as EmbeddedPostgres from "../../../src/testing/EmbeddedPostgres.js"

const [how = "runMain", binaries] = process.argv.slice(2)

const program = Effect.gen(function* () {
  const server = yield* EmbeddedPostgres.make({ binaries })
  yield* Effect.addFinalizer(() =>
    server
      .query("SELECT")
      .pipe(Effect.match({ onFailure: ({ message }) => console.log(message), onSuccess: () => console.log("answers") }))
  )
  if (how === "paused") yield* server.pause
  console.log(JSON.stringify({ pid: yield* server.pid, dataDir: server.dataDir }))
  if (how === "return") return
  if (how === "exit") process.exit(7)
  if (how === "throw")
    setTimeout(() => {
      throw new Error("nobody catches this")
    })
  yield* Effect.never
}).pipe(Effect.scoped)

if (how === "runMain" || how === "return") NodeRuntime.runMain(program)
else Effect.runFork(program)
