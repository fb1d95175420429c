/**
 * Prometheus' text format, version 0.0.4: families of samples in, text out. Pure.
 *
 * Sources: Prometheus documentation, "Exposition formats"; OpenTelemetry specification, "Prometheus and OpenMetrics
 * Compatibility", for names, units and labels: what is scraped here has the names that an OpenTelemetry collector exports.
 */

export type Type = "counter" | "gauge" | "histogram" | "summary" | "untyped"

export type Labels = ReadonlyArray<readonly [name: string, value: string]>

/** One line. `suffix`: `_bucket`, `_sum`, `_count` or none. `labels`: as `labelText` writes them. */
export interface Sample {
  readonly suffix: string
  readonly labels: string
  readonly value: number | bigint
}

/** The lines of one name. Names and labels are valid already. */
export interface Family {
  readonly name: string
  readonly type: Type
  readonly help: string
  readonly samples: ReadonlyArray<Sample>
}

/** Units as Prometheus spells them; what is in braces annotates a count, and is no unit. */
const units: ReadonlyMap<string, string> = new Map([
  ["s", "seconds"],
  ["ms", "milliseconds"],
  ["us", "microseconds"],
  ["ns", "nanoseconds"],
  // What Effect's own timers say.
  ["seconds", "seconds"],
  ["milliseconds", "milliseconds"],
  ["min", "minutes"],
  ["h", "hours"],
  ["d", "days"],
  ["By", "bytes"],
  ["KiBy", "kibibytes"],
  ["MiBy", "mebibytes"],
  ["%", "percent"]
])

const worded = (name: string) => {
  const word = name.replace(/[^a-zA-Z0-9:]+/g, "_").replace(/^_+|_+$/g, "")
  return word === "" ? "unnamed" : /^[0-9]/.test(word) ? `_${word}` : word
}

/** `db.client.operation.duration` in `s`: `db_client_operation_duration_seconds`. Counters end in `_total`. */
export const metricName = (name: string, type: Type, unit: string | undefined): string => {
  const total = type === "counter" ? "_total" : ""
  const base = worded(name)
  const stem = total !== "" && base.endsWith(total) ? base.slice(0, -total.length) : base
  const word = unit === "1" && type === "gauge" ? "ratio" : unit === undefined ? undefined : units.get(unit)
  const suffix = word === undefined || stem.endsWith(`_${word}`) ? "" : `_${word}`
  return `${stem}${suffix}${total}`
}

/** A name that Prometheus takes, and that it does not keep for itself. */
export const labelName = (name: string): string => {
  const word = name.replace(/[^a-zA-Z0-9_]/g, "_").replace(/^__+/, "_")
  return word === "" ? "_" : /^[0-9]/.test(word) ? `key_${word}` : word
}

/** Labels by their valid names, in order; what falls together is joined by `;`, as OpenTelemetry does. */
export const labels = (
  pairs: Iterable<readonly [name: string, value: string]>,
  reserved: ReadonlySet<string>
): Labels => {
  const joined = new Map<string, string>()
  for (const [given, value] of pairs) {
    const valid = labelName(given)
    const name = reserved.has(valid) ? `exported_${valid}` : valid
    const before = joined.get(name)
    joined.set(name, before === undefined ? value : `${before};${value}`)
  }
  return Array.from(joined).sort(([a], [b]) => (a < b ? -1 : 1))
}

const escapedHelp = (text: string) => text.replaceAll("\\", "\\\\").replaceAll(/\r?\n|\r/g, "\\n")

const escapedLabel = (text: string) => text.replaceAll("\\", "\\\\").replaceAll('"', '\\"').replaceAll("\n", "\\n")

/** As Prometheus spells numbers. */
export const number = (value: number | bigint): string =>
  value === Number.POSITIVE_INFINITY ? "+Inf" : value === Number.NEGATIVE_INFINITY ? "-Inf" : String(value)

/** What stands between the braces. */
export const labelText = (labels: Labels): string =>
  labels.map(([label, value]) => `${label}="${escapedLabel(value)}"`).join(",")

/** One label more. A number needs no escaping. */
export const withLabel = (labels: string, name: string, value: string | number): string => {
  const text = typeof value === "number" ? number(value) : escapedLabel(value)
  return labels === "" ? `${name}="${text}"` : `${labels},${name}="${text}"`
}

/** The names that a family's lines have. */
const lineNames = ({ name, type }: Pick<Family, "name" | "type">): ReadonlyArray<string> => {
  if (type === "histogram") return [name, `${name}_bucket`, `${name}_sum`, `${name}_count`]
  return type === "summary" ? [name, `${name}_sum`, `${name}_count`] : [name]
}

/**
 * The text. No name is used twice: families of one name and type become one, with the first's help; one that would take
 * another's names has its type appended to its own. A series is told once, the first time.
 */
export const render = (families: Iterable<Family>): string => {
  const taken = new Map<string, string>()
  const merged = new Map<string, { readonly family: Family; readonly samples: Array<Sample> }>()
  for (const family of families) {
    const { samples, type } = family
    const free = (name: string) =>
      lineNames({ name, type }).every((line) => {
        const owner = taken.get(line)
        return owner === undefined || owner === `${type} ${name}`
      })
    let { name } = family
    while (!free(name)) name = `${name}_${type}`
    for (const line of lineNames({ name, type })) taken.set(line, `${type} ${name}`)
    const known = merged.get(name)
    if (known === undefined) merged.set(name, { family: { ...family, name }, samples: [...samples] })
    else known.samples.push(...samples)
  }
  let text = ""
  for (const { family, samples } of merged.values()) {
    const { help, name, type } = family
    text += `# HELP ${name} ${escapedHelp(help)}\n# TYPE ${name} ${type}\n`
    const told = new Set<string>()
    for (const { labels, suffix, value } of samples) {
      const series = labels === "" ? `${name}${suffix}` : `${name}${suffix}{${labels}}`
      if (told.has(series)) continue
      told.add(series)
      text += `${series} ${number(value)}\n`
    }
  }
  return text
}
