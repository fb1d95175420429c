/**
 * A strict reader of Prometheus' text format, version 0.0.4: takes what is valid and well formed, and throws, with the line,
 * at anything else. Stricter than Prometheus: every family has its HELP and TYPE before its samples, and is told once.
 */
export interface Sample {
  readonly name: string
  readonly labels: Readonly<Record<string, string>>
  readonly value: number
}

export interface Family {
  readonly type: string
  readonly help: string
  readonly samples: ReadonlyArray<Sample>
}

const metricName = "[a-zA-Z_:][a-zA-Z0-9_:]*"
const helpLine = new RegExp(`^# HELP (${metricName}) ((?:[^\\\\]|\\\\\\\\|\\\\n)*)$`)
const typeLine = new RegExp(`^# TYPE (${metricName}) (counter|gauge|histogram|summary|untyped)$`)
const sampleLine = new RegExp(
  `^(${metricName})(?:\\{([^\\n]+)\\})? ([+-]Inf|NaN|-?[0-9]+(?:\\.[0-9]+)?(?:e[+-]?[0-9]+)?)$`
)
const label = /^([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(,|$)/

const numberOf = (text: string) => Number(text.replace("Inf", "Infinity"))

const unescaped = (text: string) => text.replace(/\\(.)/g, (_, char: string) => (char === "n" ? "\n" : char))

const parseLabels = (text: string, fail: (why: string) => never): Record<string, string> => {
  const labels: Record<string, string> = {}
  let rest = text
  while (rest !== "") {
    const [all, name, value, comma] = label.exec(rest) ?? fail("malformed label")
    if (name!.startsWith("__")) fail(`label ${name} is reserved`)
    if (Object.hasOwn(labels, name!)) fail(`label ${name} twice`)
    labels[name!] = unescaped(value!)
    rest = rest.slice(all.length)
    if (comma === "," && rest === "") fail("comma without a label")
  }
  return labels
}

const suffixes: Readonly<Record<string, ReadonlyArray<string>>> = {
  counter: [""],
  gauge: [""],
  untyped: [""],
  histogram: ["_bucket", "_sum", "_count"],
  summary: ["", "_sum", "_count"]
}

const without = (labels: Sample["labels"], left: string) =>
  JSON.stringify(
    Object.entries(labels)
      .filter(([name]) => name !== left)
      .sort()
  )

const checkHistogram = (name: string, samples: ReadonlyArray<Sample>) => {
  for (const series of new Set(samples.map(({ labels }) => without(labels, "le")))) {
    const own = samples.filter(({ labels }) => without(labels, "le") === series)
    const fail = (why: string) => {
      throw new Error(`histogram ${name} ${series}: ${why}`)
    }
    const buckets = own.filter((sample) => sample.name === `${name}_bucket`)
    const count = own.find((sample) => sample.name === `${name}_count`)
    if (count === undefined || !own.some((sample) => sample.name === `${name}_sum`)) return fail("no sum or no count")
    const last = buckets.at(-1)
    if (last?.labels["le"] !== "+Inf") fail("its last bucket is not +Inf")
    if (last?.value !== count.value) fail("its last bucket is not its count")
    buckets.forEach((bucket, i) => {
      const before = buckets[i - 1]
      if (bucket.labels["le"] === undefined) fail("a bucket without le")
      if (before === undefined) return
      if (!(numberOf(before.labels["le"]!) < numberOf(bucket.labels["le"]!))) fail("bounds do not rise")
      if (!(before.value <= bucket.value)) fail("buckets are not cumulative")
    })
  }
}

/** The families by name. */
export const parse = (text: string): ReadonlyMap<string, Family> => {
  const families = new Map<string, { type: string; help: string; samples: Array<Sample> }>()
  const told = new Set<string>()
  let help: readonly [name: string, text: string] | undefined
  let current: string | undefined
  if (text !== "" && !text.endsWith("\n")) throw new Error("the last line does not end")
  const lines = text === "" ? [] : text.slice(0, -1).split("\n")
  for (const [i, line] of lines.entries()) {
    const fail: (why: string) => never = (why) => {
      throw new Error(`line ${i + 1}: ${why}: ${line}`)
    }
    if (line.startsWith("# HELP ")) {
      const [, name, helped] = helpLine.exec(line) ?? fail("malformed HELP")
      if (families.has(name!)) fail("told twice")
      if (help !== undefined) fail("HELP without TYPE before")
      if (helped === "") fail("no help")
      help = [name!, unescaped(helped!)]
    } else if (line.startsWith("# TYPE ")) {
      const [, name, type] = typeLine.exec(line) ?? fail("malformed TYPE")
      if (help === undefined || help[0] !== name) fail("TYPE without its HELP")
      families.set(name!, { type: type!, help: help[1], samples: [] })
      current = name
      help = undefined
    } else {
      const [, name, labelText, value] = sampleLine.exec(line) ?? fail("malformed sample")
      const family = families.get(current ?? "")
      if (family === undefined || help !== undefined) fail("sample without a family")
      if (!suffixes[family.type]!.some((suffix) => name === `${current}${suffix}`))
        fail(`not of ${family.type} ${current}`)
      const labels = parseLabels(labelText ?? "", fail)
      const series = JSON.stringify([name, Object.entries(labels).sort()])
      if (told.has(series)) fail("series told twice")
      told.add(series)
      const sample = { name: name!, labels, value: numberOf(value!) }
      if (family.type === "counter" && !(sample.value >= 0)) fail("counter below zero")
      if (family.type === "counter" && !name!.endsWith("_total")) fail("counter without _total")
      family.samples.push(sample)
    }
  }
  if (help !== undefined) throw new Error("HELP at the end")
  const names = new Set<string>()
  for (const [name, { samples, type }] of families) {
    if (samples.length === 0) throw new Error(`${name} has no samples`)
    if (type === "histogram") checkHistogram(name, samples)
    for (const line of suffixes[type]!.map((suffix) => `${name}${suffix}`)) {
      if (names.has(line)) throw new Error(`${line} belongs to two families`)
      names.add(line)
    }
  }
  return families
}
