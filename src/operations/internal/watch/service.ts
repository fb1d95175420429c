/** A running program, as its health API tells it: the stream of events made into views. */

import type * as HttpClient from "@effect/platform/HttpClient"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Stream from "effect/Stream"
import * as HealthApi from "../../../http/HealthApi.js"
import type * as Model from "../../../http/Model.js"
import { clean, millis, percent } from "../doctor/check.js"
import { alarming, bar, clock, type Line, row, spark, type View } from "./line.js"

type Hello = Extract<Model.Message, { readonly _tag: "Hello" }>
type Report = Hello["reports"][number]
type Alert = Hello["alerts"][number]
type Event = Hello["events"][number]

/** What is known by now. */
export interface State {
  readonly pool: string
  readonly tick: Model.Tick | undefined
  readonly report: Report | undefined
  readonly alerts: ReadonlyArray<Alert>
  /** The latest, oldest first. */
  readonly events: ReadonlyArray<Event>
  /** Operations per second, oldest first. */
  readonly rates: ReadonlyArray<number>
  /** Why nothing is heard at the moment, since when. */
  readonly lost: { readonly at: number; readonly why: string } | undefined
}

export const initial: State = {
  pool: "",
  tick: undefined,
  report: undefined,
  alerts: [],
  events: [],
  rates: [],
  lost: undefined
}

const remembered = 120
const shown = 6

export type Heard = Model.Message | { readonly _tag: "Lost"; readonly at: number; readonly why: string }

export const next = (state: State, heard: Heard): State => {
  switch (heard._tag) {
    case "Lost":
      return { ...state, lost: { at: heard.at, why: heard.why } }
    case "Hello":
      return {
        pool: heard.pool,
        tick: heard.tick,
        report: heard.reports.at(-1),
        alerts: heard.alerts,
        events: heard.events.slice(-shown),
        rates: state.rates,
        lost: undefined
      }
    case "Tick":
      return { ...state, tick: heard.tick, rates: [...state.rates, heard.tick.perSecond].slice(-remembered) }
    case "Report":
      return { ...state, report: heard.report }
    case "Event":
      return { ...state, events: [...state.events, heard.event].slice(-shown) }
    case "Notice": {
      const { alert } = heard.notice
      const others = state.alerts.filter(({ id }) => id !== alert.id)
      return { ...state, alerts: heard.notice._tag === "Raised" ? [...others, alert] : others }
    }
  }
}

const eventText = (event: Event): string => {
  switch (event._tag) {
    case "StatusChange":
      return `${event.from} → ${event.to}, score ${event.score}`
    case "BreakerChange":
      return `circuit breaker ${event.from} → ${event.to} (${event.reason})`
    case "ProbeFailed":
      return `health check failed: ${event.error}`
    case "ProbeRecovered":
      return `health check succeeds again, after ${millis(event.downMs)}`
  }
}

const colours = { healthy: "green", degraded: "yellow", unhealthy: "red" } as const

export const view = (state: State, url: string): View => {
  const { alerts, events, lost, rates, report, tick } = state
  if (lost !== undefined || tick === undefined) {
    const why = lost?.why ?? "nothing heard yet"
    const at = lost?.at ?? 0
    return {
      lines: () => [[["bold", url]], [], [["red", `No answer, ${clock(at)}`]], [why], [], ["q quits"]],
      line: `${new Date(at).toISOString()} no answer: ${why}`
    }
  }
  const { breaker, pool } = tick
  const share = pool.max === 0 ? 0 : (pool.total - pool.idle) / pool.max
  const errors = Object.values(tick.errors).reduce((sum, n) => sum + n, 0)
  const health = report === undefined ? "not checked yet" : `${report.status}, score ${report.score}`
  const perSecond = Math.round(tick.perSecond * 10) / 10
  return {
    line: [
      new Date(tick.at).toISOString(),
      health,
      `pool ${pool.total - pool.idle}/${pool.max} waiting ${pool.waiting}`,
      `breaker ${breaker.state}`,
      `${perSecond}/s`,
      `errors ${errors}`,
      `retries ${tick.retries}`,
      `p95 ${millis(tick.p95Ms)}`,
      `alerts ${alerts.length}`
    ].join("  "),
    lines: (width): ReadonlyArray<Line> => [
      [["bold", `${clean(state.pool)}  ${url}`], `  ${clock(tick.at)}  q quits`],
      [],
      row("Health", report === undefined ? health : [colours[report.status], health]),
      ...(report?.deductions ?? []).slice(0, 3).map(({ points, why }): Line => row("", `${points} points: ${why}`)),
      row(
        "Pool",
        alarming(`${bar(share)} ${pool.total - pool.idle} of ${pool.max} in use, ${percent(share)}`, share >= 1)
      ),
      row(
        "",
        `${pool.idle} idle, ${pool.connecting} connecting, `,
        alarming(`${pool.waiting} waiting`, pool.waiting > 0)
      ),
      row("Breaker", alarming(breaker.state, breaker.state !== "Closed")),
      row(
        "Operations",
        `${perSecond}/s, ${tick.inFlight} in flight, `,
        alarming(`${errors} errors`, errors > 0),
        `, ${tick.retries} retries, ${tick.timeouts} timeouts`
      ),
      row("", ["cyan", spark(rates, Math.min(60, width - 15))]),
      row(
        "Latency",
        `p50 ${millis(tick.p50Ms)}, p95 ${millis(tick.p95Ms)}, p99 ${millis(tick.p99Ms)}; wait for a connection ${millis(tick.waitMs)}`
      ),
      row("Alerts", alerts.length === 0 ? "none" : ""),
      ...alerts.map(
        ({ raisedAt, severity, title }): Line =>
          row("", [
            severity === "critical" ? "red" : "yellow",
            `${severity}: ${clean(title)}, since ${clock(raisedAt)}`
          ])
      ),
      row("Events", events.length === 0 ? "none" : ""),
      ...events.map((event): Line => row("", `${clock(event.at)}  ${clean(eventText(event))}`))
    ]
  }
}

/** Between two tries to reach a program that is away. */
const pause = "1 second"

/** All that the program tells, for ever: a program that is away is tried again, and is told as lost meanwhile. */
export const heard = (
  url: string,
  explain: (error: unknown) => string
): Stream.Stream<Heard, never, HttpClient.HttpClient> =>
  HealthApi.messages({ url }).pipe(
    Stream.map((message): Heard => message),
    Stream.catchAll((error) =>
      Stream.fromEffect(Effect.map(Clock.currentTimeMillis, (at): Heard => ({ _tag: "Lost", at, why: explain(error) })))
    ),
    Stream.repeat(Schedule.spaced(pause))
  )
