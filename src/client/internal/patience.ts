/**
 * How long a server may take to answer, in which time that our own event loop stands still does not count: after a stall
 * (a long computation, a collection of garbage, a machine that was suspended) nobody has been listening, and what lies
 * between us and the server may have stood still too.
 *
 * So the time is taken in slices, each with a timer of its own: a stall, however long, uses up one of them. And as timers
 * come before what the sockets have brought, that has its turn before the last word.
 */

const slices = 10

/**
 * Calls `over` once, after so many milliseconds of the live clock in which the event loop ran, unless what it returns is
 * called before. More than 0, and finite.
 */
export const patience = (millis: number, over: () => void): (() => void) => {
  let left = slices
  let timer: NodeJS.Timeout | undefined
  let lastTurn: NodeJS.Immediate | undefined
  const wait = () => {
    if (left-- > 0) timer = setTimeout(wait, millis / slices)
    else lastTurn = setImmediate(over)
  }
  wait()
  return () => {
    clearTimeout(timer)
    clearImmediate(lastTurn)
  }
}
