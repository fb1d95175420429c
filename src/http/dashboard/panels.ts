/** Everything but the charts: health, breaker, alerts and the tables. */
import { byId, element, figure, icon, instant, mark, none, setAttribute, setText, show, svg } from "./dom.js"
import * as format from "./format.js"
import { type BreakerState, failures, type Report, type State, span, timeline } from "./state.js"
import * as words from "./words.js"

/** Units of the drawings; they are stretched to whatever room there is. */
const width = 600
const height = 24

/** The score of each report that is known, from the oldest to the latest. */
const scoreLine = (reports: ReadonlyArray<Report>): string => {
  const first = reports[0]?.at ?? 0
  const last = reports.at(-1)?.at ?? 0
  const x = (at: number) => Math.round(((at - first) / Math.max(1, last - first)) * width)
  return `M${reports.map(({ at, score }) => `${x(at)} ${100 - score}`).join("L")}h.01`
}

const foresight = ({ trends }: Report): ReadonlyArray<string> => [
  ...(trends.poolExhaustedIn === undefined
    ? []
    : trends.poolExhaustedIn === 0
      ? ["The pool is exhausted."]
      : [`The pool will be exhausted in ${format.duration(trends.poolExhaustedIn * 1000)}, if it goes on like this.`]),
  ...(trends.pingDrift === undefined || trends.pingDrift < 2
    ? []
    : [`The round trip takes ${format.number(trends.pingDrift)} times what it took.`]),
  ...(trends.storm ? ["Connections come and go at a high rate."] : [])
]

const answer = ({ probe }: Report): string =>
  probe.ok
    ? `answered in ${format.ms(probe.pingMs)}${probe.queryMs === undefined ? "" : `, its query in ${format.ms(probe.queryMs)}`}`
    : `failed after ${format.ms(probe.afterMs)}: ${probe.error}`

const health = ({ intervalMs, monitoring, reports }: State): void => {
  const report = reports.at(-1)
  const status = byId("status")
  if (report === undefined) mark(status, "pending", monitoring ? "Not checked yet" : "Not checked")
  else mark(status, report.status, words.statuses[report.status])
  setText(byId("score"), report === undefined ? format.unknown : String(report.score))
  byId("monitoring-off").hidden = monitoring
  const every = intervalMs === undefined ? "" : `, every ${format.duration(intervalMs)}`
  setText(
    byId("checked"),
    report === undefined
      ? "No health check has ended yet."
      : `Health check at ${format.time(report.at)}${every}: ${answer(report)}.`
  )
  show(byId("deductions"), report?.deductions ?? null, () =>
    report === undefined
      ? [none(2, "Nothing is known before the first check.")]
      : report.deductions.length === 0
        ? [none(2, "Nothing costs points.")]
        : report.deductions.map(({ points, why }) => element("tr", {}, figure(`−${points}`), element("td", {}, why)))
  )
  const ahead = report === undefined ? [] : foresight(report)
  show(byId("ahead"), ahead, () => ahead.map((text) => element("li", {}, icon("warning"), text)))
  const line = byId("score-line")
  setAttribute(line, "d", reports.length === 0 ? "" : scoreLine(reports))
  const since = reports[0]?.at
  setText(byId("score-since"), since === undefined ? "" : format.time(since))
  const scores = reports.map(({ score }) => score)
  setAttribute(
    byId("score-plot"),
    "aria-label",
    report === undefined || since === undefined
      ? "Score: nothing yet."
      : `Score since ${format.time(since)}: now ${report.score}, between ${Math.min(...scores)} and ${Math.max(...scores)}.`
  )
}

/** What refuses more is higher: the shape tells the state, too. */
const heights: { readonly [S in BreakerState]: number } = {
  Closed: 4,
  ForcedClosed: 4,
  HalfOpen: 12,
  Open: 22,
  ForcedOpen: 22
}

const breaker = (state: State): void => {
  const tick = state.ticks.at(-1)
  if (tick === undefined) return
  const { at, breaker: now } = tick
  const { icon, word } = words.breakers[now.state]
  mark(byId("breaker-state"), icon, word)
  setText(byId("breaker-means"), words.breakerMeans(now, at))
  setText(byId("breaker-since"), `${format.duration(at - now.since)} (${words.reason(now.reason)})`)
  setText(byId("breaker-failures"), format.number(now.failures))
  setText(byId("breaker-trips"), format.count(now.trips, "time"))
  setText(byId("breaker-waiting"), format.number(now.waiting))
  setText(byId("breaker-cause"), now.cause.length === 0 ? "nothing" : now.cause.join(", "))
  const stretches = timeline(state)
  const x = (moment: number) => Math.round(((moment - at + span) / span) * width * 10) / 10
  byId("breaker-stretches").replaceChildren(
    ...stretches.map(({ from, state, to }) =>
      svg("rect", {
        class: words.breakers[state].icon,
        x: String(x(from)),
        width: String(Math.max(1.5, x(to) - x(from))),
        y: String(height - heights[state]),
        height: String(heights[state])
      })
    )
  )
  const told = stretches.map(({ from, state, to }) => `${words.breakers[state].word} for ${format.duration(to - from)}`)
  setAttribute(
    byId("breaker-plot"),
    "aria-label",
    `The circuit breaker over the last five minutes: ${told.join(", ")}.`
  )
}

const gravity = { critical: 0, warning: 1, info: 2 }

const alerts = ({ alerts, monitoring }: State): void => {
  setText(byId("alerts-count"), alerts.length === 0 ? "" : String(alerts.length))
  const sorted = [...alerts].sort((a, b) => gravity[a.severity] - gravity[b.severity] || b.raisedAt - a.raisedAt)
  show(byId("alerts-list"), [sorted, monitoring], () =>
    sorted.length === 0
      ? [
          element(
            "li",
            { class: "none" },
            monitoring ? "No alert stands." : "Without health checks there are no alerts."
          )
        ]
      : sorted.map((alert) =>
          element(
            "li",
            {},
            icon(alert.severity),
            element(
              "div",
              {},
              element("strong", {}, alert.title),
              element(
                "p",
                { class: "detail" },
                element("span", { class: `severity ${alert.severity}` }, alert.severity),
                ` · ${[words.alert(alert), "since "].filter((part) => part !== "").join(" · ")}`,
                instant(alert.raisedAt, format.time(alert.raisedAt, Date.now()))
              )
            )
          )
        )
  )
}

const roughly = (millis: number) => format.duration(millis < 60_000 ? millis : Math.floor(millis / 60_000) * 60_000)

const tables = (state: State): void => {
  const report = state.reports.at(-1)
  const seen = (state.ticks.at(-1)?.at ?? 0) - (state.ticks[0]?.at ?? 0)
  setText(byId("errors-seen"), `Last ${roughly(seen)}`)
  const window = report === undefined ? "" : `${roughly(report.window.seconds * 1000)} `
  setText(byId("errors-window"), `${window}before check`)
  const failed = failures(state)
  show(byId("errors-rows"), failed, () =>
    failed.length === 0
      ? [none(3, "No attempt has failed.")]
      : failed.map(({ inWindow, seen, tag }) =>
          element(
            "tr",
            {},
            element("th", { scope: "row" }, tag),
            figure(format.number(seen)),
            figure(inWindow === undefined ? format.unknown : format.number(inWindow))
          )
        )
  )
  const slowest = report?.window.slowest ?? []
  show(byId("slow-rows"), slowest, () =>
    slowest.length === 0
      ? [none(3, report === undefined ? "Told by health checks." : "None took over a second.")]
      : slowest.map(({ averageMs, count, operation }) =>
          element(
            "tr",
            {},
            element("th", { scope: "row" }, operation),
            figure(format.number(count)),
            figure(format.ms(averageMs))
          )
        )
  )
}

const events = ({ news }: State): void =>
  show(byId("events-list"), news, () =>
    news.length === 0
      ? [element("li", { class: "none" }, "Nothing has happened yet.")]
      : [...news].reverse().map((item) => {
          const { icon: name, kind, text } = words.news(item)
          return element(
            "li",
            {},
            instant(item.at, format.time(item.at, Date.now())),
            element("span", { class: "kind" }, icon(name), kind),
            element("span", { class: "what" }, text)
          )
        })
  )

export const draw = (state: State): void => {
  setText(byId("pool-name"), state.pool)
  health(state)
  breaker(state)
  alerts(state)
  tables(state)
  events(state)
}
