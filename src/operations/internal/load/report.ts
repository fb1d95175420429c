/** A result as one HTML file: no script, and nothing that has to be fetched. Pure; what comes from outside is escaped. */
import { compare, figureName } from "./compare.js"
import { figures } from "./figures.js"
import { milliseconds, quantity, share, time } from "./format.js"
import { escape, scroll, table } from "./plot.js"
import { type Figures, percentiles, type Result } from "./result.js"
import { comparisonCells, notes, settings } from "./text.js"

/** The colours of the dashboard. Contrast of text is 4.5 and more on both grounds. */
const style = `
:root { --ground: #f4f5f7; --panel: #fff; --text: #1a2029; --quiet: #55606f; --line: #dadfe6; --accent: #1d5fbf;
  --accent-soft: #1d5fbf24; --good: #1a7444; --bad: #b3261e; color-scheme: light dark;
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; font-variant-numeric: tabular-nums }
@media (prefers-color-scheme: dark) { :root { --ground: #0e1116; --panel: #161b22; --text: #e3e8ef; --quiet: #9ba7b6;
  --line: #2b323c; --accent: #74a9ff; --accent-soft: #74a9ff2b; --good: #5ac98d; --bad: #ff8f85 } }
* { box-sizing: border-box }
body { margin: 0; background: var(--ground); color: var(--text); overflow-wrap: anywhere }
header, main, footer { max-width: 1560px; margin: 0 auto; padding: 16px }
h1 { font-size: 20px; margin: 0 0 4px } h2 { font-size: 15px; margin: 0 0 8px } p { margin: 0 0 4px }
.quiet, footer { color: var(--quiet) } .good { color: var(--good) } .bad { color: var(--bad) } .verdict { font-size: 16px; font-weight: 600 }
section, figure { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 14px 16px; margin: 0 0 12px }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 480px), 1fr)); gap: 12px; margin-bottom: 12px } .plots figure { margin: 0 }
figcaption { font-weight: 600 }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0 16px; margin: 0 0 4px; padding: 0; color: var(--quiet); font-size: 13px }
.swatch { width: 20px; height: 10px; margin-right: 6px } .plot { display: block; width: 100%; height: auto }
.tick { fill: var(--quiet); font-size: 12px } .grid { stroke: var(--line); fill: none }
.series { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round }
.series.area { fill: var(--accent-soft); stroke-width: 1.5 } .series.dashed { stroke-dasharray: 6 4 } .series.dotted { stroke-dasharray: 1.5 4; stroke-linecap: round }
.series.quiet { stroke: var(--quiet) } .series.bad { stroke: var(--bad) } .series.bars { stroke-width: 3 }
summary { cursor: pointer; color: var(--quiet); font-size: 13px; margin-top: 6px }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px }
.scroll { overflow-x: auto } details .scroll { max-height: 320px; overflow-y: auto }
table { border-collapse: collapse; width: 100%; font-size: 13px } caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%) }
th, td { padding: 4px 10px 4px 0; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap } th[scope=row], th:first-child { text-align: left }
td.words { text-align: left; white-space: normal } th[scope=col] { color: var(--quiet); font-weight: 600 } th[scope=row] { font-weight: 400 }
@media (max-width: 600px) { .tick { font-size: 15px } .series { stroke-width: 3 } }
@media print { :root { --ground: #fff } figure, section { break-inside: avoid } }`

const names = [...(Object.keys(percentiles) as Array<keyof typeof percentiles>), "max"] as const

const row = (name: string, { failed, rate, response, succeeded }: Figures): ReadonlyArray<string> => [
  name,
  quantity(succeeded),
  quantity(failed),
  quantity(rate),
  ...(["mean", ...names] as const).map((key) => (response === null ? "–" : milliseconds(response[key])))
]

const figuresTable = ({ operations, settings, total }: Result): string => {
  const from = settings.model === "open" ? "from when they were due" : "from beginning to end"
  const service =
    total.service === null ? [] : [row("all, from their beginning", { ...total, response: total.service })]
  return `<section><h2>Operations</h2>${table(
    `Operations and their latencies, ${from}`,
    ["", "succeeded", "failed", "a second", "mean", ...names.map(figureName)],
    [
      row(operations.length > 1 ? "all" : (operations[0]?.name ?? "all"), total),
      ...service,
      ...(operations.length > 1 ? operations.map((one) => row(one.name, one)) : [])
    ]
  )}<p class="quiet">Latencies are those of what succeeded, ${from}.</p></section>`
}

const thresholdsTable = ({ thresholds }: Result): string =>
  thresholds.length === 0
    ? ""
    : `<section><h2>Thresholds</h2>${scroll("Thresholds")}
<thead><tr><th scope="col">threshold</th><th scope="col">found</th><th scope="col">verdict</th></tr></thead><tbody>${thresholds
        .map(
          ({ found, ok, threshold }) =>
            `<tr><th scope="row"><code>${escape(threshold)}</code></th><td>${escape(found)}</td><td class="${ok ? "good" : "bad"}">${ok ? "✓ holds" : "✗ failed"}</td></tr>`
        )
        .join("\n")}</tbody></table></div></section>`

const errorsTable = ({ errors, outcomes, total }: Result): string =>
  errors.length === 0
    ? ""
    : `<section><h2>Errors</h2>${scroll("Errors by operation and tag")}
<thead><tr><th scope="col">error</th><th scope="col">operation</th><th scope="col">count</th><th scope="col">of all</th><th scope="col">the first of them</th></tr></thead><tbody>${errors
        .map(
          ({ count, message, operation, tag }) =>
            `<tr><th scope="row">${escape(tag)}</th><td>${escape(operation)}</td><td>${quantity(count)}</td><td>${share(count / (total.succeeded + total.failed))}</td><td class="words">${escape(message)}</td></tr>`
        )
        .join("\n")}</tbody></table></div>
<p class="quiet">Certainly not applied: ${quantity(outcomes.NotApplied)}. Unknown whether applied: ${quantity(outcomes.Unknown)}.</p></section>`

const comparisonTable = (result: Result, before: Result | undefined): string => {
  if (before === undefined) return ""
  const compared = compare(before, result)
  const different = compared.differences.map((text) => `<p class="bad">Not the same test: ${escape(text)}</p>`).join("")
  const title = `Compared with ${before.label ?? "the test"} of ${before.startedAt}`
  return `<section><h2>${escape(title)}</h2>${different}${table(
    title,
    ["", "before", "now", "difference"],
    comparisonCells(compared)
  )}</section>`
}

const verdict = ({ complete, thresholds }: Result): string => {
  const failed = thresholds.filter(({ ok }) => !ok).length
  if (!complete) return `<p class="verdict bad">Stopped before its end</p>`
  if (thresholds.length === 0) return `<p class="verdict">No thresholds were set</p>`
  return failed === 0
    ? `<p class="verdict good">✓ Passed: all ${thresholds.length} thresholds hold</p>`
    : `<p class="verdict bad">✗ Failed: ${failed} of ${thresholds.length} thresholds</p>`
}

export const html = (result: Result, before?: Result | undefined): string => {
  const title = `Load test${result.label === null ? "" : ` of ${result.label}`}`
  const measured = result.measuredMs < 120_000 ? milliseconds(result.measuredMs) : time(result.measuredMs)
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>${escape(title)}</title>
<style>${style}
</style>
</head>
<body>
<header>
<h1>${escape(title)}</h1>
${verdict(result)}
<p>${escape(settings(result.settings, result.operations))}</p>
<p class="quiet">Started <time datetime="${escape(result.startedAt)}">${escape(result.startedAt)}</time>, measured for ${measured}</p>
${notes(result)
  .map((note) => `<p class="bad">${escape(note)}</p>`)
  .join("\n")}
</header>
<main>
${thresholdsTable(result)}
${figuresTable(result)}
<div class="plots">
${figures(result, before)}
</div>
${errorsTable(result)}
${comparisonTable(result, before)}
</main>
<footer>effect-pg-resilience</footer>
</body>
</html>
`
}
