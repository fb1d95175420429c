/** Reading from values of unknown origin: revoked proxies, getters that throw and endless texts included. Never throws. */

const quietly = <A>(read: () => A): A | undefined => {
  try {
    return read()
  } catch {
    return undefined
  }
}

/** The property, or undefined where there is none or reading it throws. */
export const property = (value: unknown, key: PropertyKey): unknown =>
  (typeof value === "object" && value !== null) || typeof value === "function"
    ? quietly(() => (value as { readonly [_: PropertyKey]: unknown })[key])
    : undefined

/** A property that is a text and not empty. */
export const text = (value: unknown, key: string): string | undefined => {
  const found = property(value, key)
  return typeof found === "string" && found !== "" ? found : undefined
}

/** The first elements of a property that is an array. */
export const list = (value: unknown, key: string, max: number): ReadonlyArray<unknown> =>
  quietly(() => {
    const found = property(value, key)
    return Array.isArray(found) ? Array.from({ length: Math.min(found.length, max) }, (_, i) => found[i]) : []
  }) ?? []

/** `instanceof` for values whose prototype may not be asked for. */
export const isInstance = <A>(value: unknown, type: abstract new (...args: ReadonlyArray<any>) => A): value is A =>
  quietly(() => value instanceof type) ?? false

/** White space, control characters (line ends, terminal escapes) and marks that reverse the reading direction. */
const unprintable = /[\s\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]+/gu

/** The text on one line, at most `max` UTF-16 units long; a cut shows as `…`. */
export const oneLine = (value: string, max: number): string => {
  const line = value
    .slice(0, 2 * max)
    .replace(unprintable, " ")
    .trim()
  return line.length <= max && value.length <= 2 * max
    ? line
    : `${line.slice(0, max - 1).replace(/[\ud800-\udbff]$/, "")}…`
}
