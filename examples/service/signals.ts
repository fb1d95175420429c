/** A second SIGTERM or Ctrl-C: whoever cannot wait. */
import process from "node:process"

const numbers = { SIGINT: 2, SIGTERM: 15 }

/** Ctrl-C reaches a program that npm has started twice at once: from the terminal, and from npm. */
const oneAndTheSame = 500

/** Ends the program at the second signal. The first is for `NodeRuntime.runMain`. */
export const endAtSecond = (): void => {
  let first: number | undefined
  for (const [signal, number] of Object.entries(numbers))
    process.on(signal, () => {
      first ??= performance.now()
      if (performance.now() - first > oneAndTheSame) process.exit(128 + number)
    })
}
