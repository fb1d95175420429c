/** Rules with other thresholds, and as a table for people. Pure. */
import * as Duration from "effect/Duration"
import type { Rule } from "./alerting.js"

/** What a measure is a number of: `score` is out of 100, `flag` is 0 or 1, the others as HealthScore.ts has them. */
export type Unit = "score" | "flag" | "ms" | "share" | "count"

/**
 * The rule with another `raise`. `clear` moves along in proportion: a rule that is over at three quarters of its threshold
 * still is. Of a score the proportion is that of what is missing to 100. A threshold of 0 leaves `clear` where it is.
 */
export const moved = <M extends string>(rule: Rule<M>, raise: number, unit: Unit): Rule<M> => {
  const top = unit === "score" ? 100 : 0
  const clear = rule.raise === top ? rule.clear : top + ((raise - top) * (rule.clear - top)) / (rule.raise - top)
  return { ...rule, raise, clear: rule.when === "above" ? Math.min(clear, raise) : Math.max(clear, raise) }
}

/** Of several rules for one measure the first one gets the threshold, the others keep their distance from it. */
export const withThresholds = <M extends string>(
  rules: ReadonlyArray<Rule<M>>,
  thresholds: { readonly [K in M]?: number | undefined },
  units: { readonly [K in M]: Unit }
): ReadonlyArray<Rule<M>> =>
  rules.map((rule) => {
    const threshold = thresholds[rule.measure]
    const first = rules.find(({ measure }) => measure === rule.measure)
    if (threshold === undefined || first === undefined) return rule
    const scale = first.raise === 0 ? 1 : rule.raise / first.raise
    return moved(rule, rule === first ? threshold : threshold * scale, units[rule.measure])
  })

/** For people: rounded, and with its unit where it has one. */
export const shown = (value: number, unit: Unit): string => {
  switch (unit) {
    case "ms":
      return value < 10_000
        ? `${Math.round(value)} ms`
        : Number.isFinite(value)
          ? Duration.format(Duration.seconds(Math.round(value / 1000)))
          : "for ever"
    case "share":
      return `${Math.round(value * 1000) / 10} %`
    default:
      return String(Math.round(value * 1000) / 1000)
  }
}

const code = (text: string) => `\`${text}\``

/** As Markdown. */
export const table = <M extends string>(
  rules: ReadonlyArray<Rule<M>>,
  units: { readonly [K in M]: Unit },
  variables: { readonly [K in M]?: string | undefined }
): string =>
  [
    "| rule | severity | what it says | raised | over | threshold by |",
    "| --- | --- | --- | --- | --- | --- |",
    ...rules.map(({ clear, measure, name, raise, severity, title, when }) => {
      const unit = units[measure]
      const [raised, over] =
        unit === "flag"
          ? ["when it is so", "when it is not"]
          : [
              `${when} ${shown(raise, unit)}`,
              clear === 0 ? "at 0" : `at ${shown(clear, unit)} or ${when === "above" ? "less" : "more"}`
            ]
      const variable = variables[measure]
      return `| ${code(name)} | ${severity} | ${title} | ${raised} | ${over} | ${variable === undefined ? "" : code(variable)} |`
    })
  ].join("\n")
