/**
 * Until when a major version gets releases. Source: postgresql.org, "Versioning Policy", as of November 2026: five years
 * from the first release, the last one in November of the fifth year.
 */
export const lastReleases: { readonly [major: number]: string } = {
  10: "2022-11-10",
  11: "2023-11-09",
  12: "2024-11-21",
  13: "2025-11-13",
  14: "2026-11-12",
  15: "2027-11-11",
  16: "2028-11-09",
  17: "2029-11-08",
  18: "2030-11-14"
}

/** The oldest version of which anything is known. */
export const oldest = Math.min(...Object.keys(lastReleases).map(Number))

/** Days from `at` (milliseconds since the epoch) to the last release: negative once it is over, undefined where nobody knows. */
export const daysLeft = (major: number, at: number): number | undefined => {
  if (major < oldest) return Number.NEGATIVE_INFINITY
  const last = lastReleases[major]
  return last === undefined ? undefined : (Date.parse(last) - at) / 86_400_000
}
