/** Figures as people read them. */

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 })
const tenths = new Intl.NumberFormat("en", { maximumFractionDigits: 1 })
const hundredths = new Intl.NumberFormat("en", { maximumFractionDigits: 2 })

/** For what is not known. */
export const unknown = "–"

/** Two significant digits and more, with separators: 0.25, 7.3, 1,240. */
export const number = (value: number): string =>
  Number.isNaN(value)
    ? unknown
    : (Math.abs(value) >= 10 ? whole : Math.abs(value) >= 1 ? tenths : hundredths).format(value)

export const ms = (value: number): string =>
  Number.isNaN(value) ? unknown : value < 1000 ? `${number(value)} ms` : `${hundredths.format(value / 1000)} s`

export const perSecond = (value: number): string => (Number.isNaN(value) ? unknown : `${number(value)}/s`)

export const percent = (share: number): string => `${number(share * 100)} %`

/** `one` or `many` of something: "1 fiber", "3 fibers". */
export const count = (n: number, one: string, many = `${one}s`): string => `${whole.format(n)} ${n === 1 ? one : many}`

/** How long something has lasted, from milliseconds. */
export const duration = (millis: number): string => {
  const seconds = Math.max(0, Math.round(millis / 1000))
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return seconds % 60 === 0 ? `${minutes} min` : `${minutes} min ${seconds % 60} s`
  const hours = Math.floor(minutes / 60)
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} days`
}

const clock = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" })
const dayAndClock = new Intl.DateTimeFormat("en-GB", {
  day: "numeric",
  month: "short",
  hour: "2-digit",
  minute: "2-digit",
  second: "2-digit"
})

/** A moment in the reader's own time zone, with the day where it is not that of `now`. */
export const time = (at: number, now: number = at): string =>
  (new Date(at).toDateString() === new Date(now).toDateString() ? clock : dayAndClock).format(at)

/** 1, 2 or 5 times a power of ten: the first that is not below the value, and at least `least`. */
export const roundUp = (value: number, least: number): number => {
  const wanted = Math.max(value, least)
  const power = 10 ** Math.floor(Math.log10(wanted))
  return ([1, 2, 5].find((step) => step * power >= wanted * 0.999_999) ?? 10) * power
}
