/** Whose words a server's answer gives out. What is not the server's own may hold data in any of its fields. */
import * as Struct from "effect/Struct"
import { text } from "./read.js"
import type { Observed } from "./recognise.js"

/**
 * Functions in the server that pass on what a function of the program says, in fields of its choice: PL/pgSQL's RAISE and
 * ASSERT, PL/Lua's errors.
 */
const raise = /^(exec_stmt_(raise|assert)$|pllua_)/

/**
 * Sources of the other languages: `plpy_elog.c`, `plperl.c`, `pltcl.c`, `plv8.cc`, PL/Java's `JNICalls.c`. What they raise
 * is the function's own, or an error of the server that went through its hands. Not PL/pgSQL's sources (`pl_exec.c`),
 * where all but RAISE and ASSERT is the server's word, nor the planner's (`plancache.c`, `placeholder.c`).
 */
const language = /^(pl(?!_|an|aceholder)|JNICalls\.c$)/

/** Functions that pass on what another server says, or the way to it. */
const foreign = /^(pgfdw_|dblink_|connect_pg_server$)/

type Origin = "server" | "function" | "foreign server" | "unknown"

const originOf = ({ error, fields: { routine } }: Observed): Origin => {
  // PostgreSQL always names the place in its source.
  if (routine === undefined) return "unknown"
  if (raise.test(routine) || language.test(text(error, "file") ?? "")) return "function"
  return foreign.test(routine) ? "foreign server" : "server"
}

/** Who chose the words, if not the server itself: a function of the program, or another server. */
export const chosenBy = (observed: Observed): "function" | "foreign server" | undefined => {
  const origin = originOf(observed)
  return origin === "function" || origin === "foreign server" ? origin : undefined
}

/**
 * Who speaks, if not the server of its own session. Both are an ERROR, whatever word the server's language has for it;
 * only in a trigger on login does RAISE end the session.
 */
export const speakerOf = (observed: Observed): "function" | "foreign server" | undefined =>
  observed.fields.severity === "FATAL" ? undefined : chosenBy(observed)

/**
 * What is left when nothing of the program's may be shown: the names of schema, table, column, constraint and type only
 * where the server's own code gave them, out of its catalog. `RAISE … USING CONSTRAINT = email` gives what it likes.
 */
export const withoutData = (observed: Observed): Observed =>
  originOf(observed) === "server"
    ? observed
    : { ...observed, fields: Struct.pick(observed.fields, "severity", "routine", "position") }
