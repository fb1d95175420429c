/** The choice of a representation by a request's `Accept`. Pure. Source: RFC 9110, section 12.5.1. */

interface Range {
  readonly type: string
  readonly subtype: string
  readonly q: number
}

const qualityOf = (parameters: ReadonlyArray<string>): number => {
  const weight = parameters.map((_) => /^\s*q\s*=\s*(.*?)\s*$/i.exec(_)?.[1]).find((_) => _ !== undefined)
  if (weight === undefined) return 1
  // What is no weight asks for nothing.
  return /^(0(\.\d{0,3})?|1(\.0{0,3})?)$/.test(weight) ? Number(weight) : 0
}

const rangeOf = (text: string): ReadonlyArray<Range> => {
  const [name = "", ...parameters] = text.split(";")
  const [type, subtype, rest] = name.trim().toLowerCase().split("/")
  return type && subtype && rest === undefined ? [{ type, subtype, q: qualityOf(parameters) }] : []
}

/** The weight of the most specific range that fits; 0 where none does. */
const weightOf = (offer: string, ranges: ReadonlyArray<Range>): number => {
  const [type, subtype] = offer.split("/")
  const fitting = ranges.flatMap((range) => {
    if (range.type === type && range.subtype === subtype) return [{ specific: 2, q: range.q }]
    if (range.type === type && range.subtype === "*") return [{ specific: 1, q: range.q }]
    return range.type === "*" && range.subtype === "*" ? [{ specific: 0, q: range.q }] : []
  })
  return fitting.sort((a, b) => b.specific - a.specific || b.q - a.q)[0]?.q ?? 0
}

/** The offer that is wanted most, the earlier of equals; undefined where none is wanted. No header wants everything. */
export const choose = <const Offer extends string>(
  accept: string | undefined,
  offers: ReadonlyArray<Offer>
): Offer | undefined => {
  const ranges = (accept === undefined || accept.trim() === "" ? "*/*" : accept).split(",").flatMap(rangeOf)
  const weighed = offers.map((offer) => ({ offer, q: weightOf(offer, ranges) })).filter(({ q }) => q > 0)
  return weighed.sort((a, b) => b.q - a.q)[0]?.offer
}
