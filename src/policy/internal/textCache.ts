/**
 * What was computed from a text, kept for the texts in use.
 *
 * Two generations: a text found in the young one costs a single `Map` look-up, with no reordering as in an exact LRU. Once
 * the young one is full it becomes the old one, and what is still used moves back from there.
 */

export interface Limits {
  /** Texts kept, both generations together. */
  readonly texts: number
  /** Characters of all texts kept, both generations together. */
  readonly characters: number
  /** Characters of a single text; longer ones are computed each time. */
  readonly longest: number
}

/** Remembers `compute`, which must be a pure function of the text. */
export const make = <A extends object>(compute: (text: string) => A, limits: Limits): ((text: string) => A) => {
  const texts = limits.texts / 2
  const characters = limits.characters / 2
  let young = new Map<string, A>()
  let old = new Map<string, A>()
  let size = 0

  const miss = (text: string): A => {
    if (text.length > limits.longest) return compute(text)
    const value = old.has(text) ? old.get(text)! : compute(text)
    if (young.size >= texts || size + text.length > characters) {
      old = young
      young = new Map()
      size = 0
    }
    young.set(text, value)
    size += text.length
    return value
  }

  return (text) => young.get(text) ?? miss(text)
}
