/** How long the page waits for its server, and before it tries again. */

/** Milliseconds. A tick comes every second: when nothing comes for `silence`, the server is lost. */
export const limits = { firstRetry: 500, lastRetry: 5_000, silence: 6_000 }

/** The delay before the n-th try, counted from 0: doubled, at most `lastRetry`, up to a fifth shorter by chance. */
export const delay = (n: number, random: number): number =>
  Math.min(limits.lastRetry, limits.firstRetry * 2 ** Math.min(n, 10)) * (1 - random / 5)
