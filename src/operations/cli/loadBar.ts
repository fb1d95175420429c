/** The progress of a load test on stderr: a bar on a terminal, else a line now and then. */
import process from "node:process"
import { line } from "../internal/load/progress.js"
import type { Progress } from "../LoadTest.js"

/** Between two lines where there is no terminal, milliseconds of the test. */
const lineEvery = 5000

const eraseLine = "\r\u001b[2K"

export const bar = (quiet: boolean): { readonly show: (progress: Progress) => void; readonly clear: () => void } => {
  const { stderr } = process
  if (quiet) return { show: () => {}, clear: () => {} }
  if (stderr.isTTY) {
    return {
      // Some terminals do not know how wide they are, and say 0.
      show: (progress) => void stderr.write(`${eraseLine}${line(progress, (stderr.columns || 80) - 1, true)}`),
      clear: () => void stderr.write(eraseLine)
    }
  }
  let next = lineEvery
  return {
    show: (progress) => {
      if (progress.elapsedMs < next) return
      next = progress.elapsedMs + lineEvery
      stderr.write(`${line(progress, 200, false)}\n`)
    },
    clear: () => {}
  }
}
