/** Copies of errors that hold no data: what an error, a log or a span may carry. */
import { isInstance, property, text } from "./read.js"
import type { Observed } from "./recognise.js"

const maxFrames = 20

/** One of V8's frames. */
const frame = /^\s+at \S.{0,400}(:\d+:\d+\)?|\(<anonymous>\)|\(native\)|\(index \d+\))$/

/** What V8 writes before the message: the name, and in Node's own errors the code. */
const heading = /^[\w$]+(?: \[\w+\])?(?:: )?$/

/**
 * Where an error was made: the frames at the end of its stack, without the message that V8 puts before them. None, if the
 * stack does not begin with the message that the error has now: then it holds another one, and nobody knows where it ends.
 */
const frames = (error: unknown, message: string): ReadonlyArray<string> => {
  const stack = isInstance(error, Error) ? text(error, "stack") : undefined
  if (stack === undefined) return []
  const end = message === "" ? stack.indexOf("\n") : stack.indexOf(`${message}\n`) + message.length
  if (end < message.length || !heading.test(stack.slice(0, end - message.length))) return []
  const lines = stack.slice(end + 1).split("\n")
  return lines.slice(lines.findLastIndex((line) => !frame.test(line)) + 1).slice(0, maxFrames)
}

/** Names that say nothing but the kind of a failure; any other name may be data. */
const names = new Set([
  "AggregateError",
  "EvalError",
  "RangeError",
  "ReferenceError",
  "SyntaxError",
  "TypeError",
  "URIError"
])

/** The kind of a value that was thrown. */
export const kindOf = ({ error, sqlState }: Observed): string => {
  if (sqlState !== undefined) return "DatabaseError"
  if (typeof error !== "object" || error === null) return typeof error
  const name = property(error, "name")
  return typeof name === "string" && names.has(name) ? name : "Error"
}

/** What is left of a driver's error: the names of things, and where it was made. */
export class Sanitised extends Error {
  constructor(observed: Observed) {
    const { code, error, fields, message, target } = observed
    super([code ?? "without a code", target, fields.routine].filter((part) => part !== undefined).join(" "))
    Object.defineProperty(this, "name", { value: kindOf(observed), configurable: true })
    Object.assign(this, code === undefined ? fields : { code, ...fields })
    Object.defineProperty(this, "stack", {
      value: [`${this.name}: ${this.message}`, ...frames(error, message)].join("\n"),
      configurable: true,
      writable: true
    })
  }
}
