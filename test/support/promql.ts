/** What a PromQL expression names: its metrics, each with the labels that are asked of it, and the labels it groups by. */
export interface Named {
  readonly metrics: ReadonlyArray<{ readonly name: string; readonly labels: ReadonlyArray<string> }>
  readonly groupedBy: ReadonlyArray<string>
}

const operators = new Set(["and", "or", "unless", "bool", "offset", "group_left", "group_right", "inf", "nan"])
const grouping = new Set(["by", "without", "on", "ignoring"])

const token = /"(?:[^"\\]|\\.)*"|\[[^\]]*\]|[a-zA-Z_:][a-zA-Z0-9_:]*|[0-9][0-9a-z.]*|[^\s\w]/g

/** Strict: throws at what it does not understand. */
export const named = (expression: string): Named => {
  const tokens: ReadonlyArray<string> = expression.match(token) ?? []
  const metrics: Array<{ name: string; labels: Array<string> }> = []
  const groupedBy: Array<string> = []
  const word = /^[a-zA-Z_:]/
  const listUntil = (close: string, from: number): number => {
    const end = tokens.indexOf(close, from)
    if (end < 0) throw new Error(`no ${close} in: ${expression}`)
    return end
  }
  for (let i = 0; i < tokens.length; i++) {
    const current = tokens[i]!
    if (!word.test(current) || operators.has(current.toLowerCase())) continue
    const next = tokens[i + 1]
    if (grouping.has(current)) {
      if (next !== "(") throw new Error(`${current} without labels in: ${expression}`)
      const end = listUntil(")", i)
      groupedBy.push(...tokens.slice(i + 2, end).filter((_) => word.test(_)))
      i = end
    } else if (next === "(" || (next !== undefined && grouping.has(next))) {
    } else {
      const labels: Array<string> = []
      if (next === "{") {
        const end = listUntil("}", i)
        const matchers = tokens.slice(i + 2, end)
        labels.push(...matchers.filter((_, at) => word.test(_) && (at === 0 || matchers[at - 1] === ",")))
        i = end
      }
      metrics.push({ name: current, labels })
    }
  }
  if (metrics.length === 0) throw new Error(`no metric in: ${expression}`)
  return { metrics, groupedBy }
}
