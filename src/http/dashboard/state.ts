/**
 * What the page knows of the database: pure, and bounded however long the page stays open. `Hello` replaces all of it, so
 * that nothing is shown twice after a reconnect.
 */
import type * as Model from "../Model.js"

/** As JSON has it: what is `Infinity` in the program is null here. */
export type Message = typeof Model.Message.Encoded
type Of<Tag extends Message["_tag"]> = Extract<Message, { readonly _tag: Tag }>
export type Hello = Of<"Hello">
export type Tick = Of<"Tick">["tick"]
export type Report = Of<"Report">["report"]
export type Event = Of<"Event">["event"]
export type Notice = Of<"Notice">["notice"]
export type Alert = Notice["alert"]
export type Breaker = Tick["breaker"]
export type BreakerState = Breaker["state"]
export type Status = Report["status"]

export interface State {
  readonly pool: string
  readonly monitoring: boolean
  readonly intervalMs: number | undefined
  /** Oldest first, of the last five minutes. */
  readonly ticks: ReadonlyArray<Tick>
  /** Oldest first. */
  readonly reports: ReadonlyArray<Report>
  /** Oldest first: events, and the notices that came while the page was connected. */
  readonly news: ReadonlyArray<Event | Notice>
  readonly alerts: ReadonlyArray<Alert>
}

/** What the charts span, in milliseconds. */
export const span = 300_000

/** How much is kept. The ticks are also bounded by `span`, and a few of them may fall into one second. */
export const kept = { ticks: 400, reports: 120, news: 100, alerts: 100 }

/** In its place by time: nothing stays that claims the same moment or, after a step of the server's clock, a later one. */
const appended = <A extends { readonly at: number }>(items: ReadonlyArray<A>, item: A, size: number) =>
  [...items.filter(({ at }) => at < item.at), item].slice(-size)

const isSame = (a: Event | Notice, b: Event | Notice) => a.at === b.at && JSON.stringify(a) === JSON.stringify(b)

const remember = (state: State, news: Event | Notice): State =>
  state.news.some((known) => isSame(known, news)) ? state : { ...state, news: [...state.news, news].slice(-kept.news) }

const standing = (alerts: ReadonlyArray<Alert>, notice: Notice): ReadonlyArray<Alert> => {
  const others = alerts.filter(({ id }) => id !== notice.alert.id)
  return notice._tag === "Resolved" ? others : [...others, notice.alert].slice(-kept.alerts)
}

/** Undefined until the first `Hello`. */
export const apply = (state: State | undefined, message: Message): State | undefined => {
  if (message._tag === "Hello") {
    return {
      pool: message.pool,
      monitoring: message.monitoring,
      intervalMs: message.intervalMs,
      ticks: [message.tick],
      reports: message.reports.slice(-kept.reports),
      news: message.events.slice(-kept.news),
      alerts: message.alerts.slice(-kept.alerts)
    }
  }
  if (state === undefined) return undefined
  switch (message._tag) {
    case "Tick": {
      const from = message.tick.at - span
      const ticks = appended(state.ticks, message.tick, kept.ticks)
      return { ...state, ticks: ticks.filter(({ at }) => at >= from) }
    }
    case "Report":
      return { ...state, reports: appended(state.reports, message.report, kept.reports) }
    case "Event":
      return remember(state, message.event)
    case "Notice":
      return remember({ ...state, alerts: standing(state.alerts, message.notice) }, message.notice)
  }
}

/** One moment of the charts. Rates are per second; NaN where there is nothing to tell, as in a page's very first tick. */
export interface Sample {
  readonly at: number
  readonly perSecond: number
  readonly errors: number
  readonly retries: number
  readonly timeouts: number
  readonly p50: number
  readonly p95: number
  readonly p99: number
  readonly waitMs: number
  readonly pool: Tick["pool"]
  readonly breaker: BreakerState
}

const total = (counts: Tick["errors"]) => Object.values(counts).reduce((sum, count) => sum + count, 0)

const sample = (
  from: Omit<Tick, "breaker" | "inFlight" | "seconds" | "perSecond">,
  seconds: number,
  breaker: BreakerState
): Sample => {
  const rate = (count: number) => (seconds > 0 ? count / seconds : Number.NaN)
  const latency = (ms: number) => (from.operations > 0 ? ms : Number.NaN)
  return {
    at: from.at,
    perSecond: rate(from.operations),
    errors: rate(total(from.errors)),
    retries: rate(from.retries),
    timeouts: rate(from.timeouts),
    p50: latency(from.p50Ms),
    p95: latency(from.p95Ms),
    p99: latency(from.p99Ms),
    waitMs: from.waitMs,
    pool: from.pool,
    breaker
  }
}

/** The last five minutes, oldest first: by the ticks, and before the first of them by the windows of the reports. */
export const samples = (state: State): ReadonlyArray<Sample> => {
  const [first] = state.ticks
  const last = state.ticks.at(-1)
  if (first === undefined || last === undefined) return []
  const before = state.reports
    .filter(({ at }) => at < first.at && at >= last.at - span)
    .map((report) =>
      sample({ ...report.window, at: report.at, pool: report.pool }, report.window.seconds, report.breaker.state)
    )
  return [...before, ...state.ticks.map((tick) => sample(tick, tick.seconds, tick.breaker.state))]
}

/** Between two samples with less than this in milliseconds between them a line is drawn. */
export const gap = (state: State): number => Math.max(5_000, 2.5 * (state.intervalMs ?? 0))

export interface Stretch {
  readonly state: BreakerState
  readonly from: number
  readonly to: number
}

/** The breaker's states over the last five minutes, oldest first: by its changes, and by what the last tick says. */
export const timeline = (state: State): ReadonlyArray<Stretch> => {
  const tick = state.ticks.at(-1)
  if (tick === undefined) return []
  const start = tick.at - span
  const changes = state.news.flatMap((news) => (news._tag === "BreakerChange" ? [news] : []))
  const known = changes.some(({ at }) => at === tick.breaker.since)
  const points = [
    ...changes.map(({ at, from, to }) => ({ at, from, to })),
    ...(known ? [] : [{ at: tick.breaker.since, from: changes.at(-1)?.to, to: tick.breaker.state }])
  ].sort((a, b) => a.at - b.at)
  const stretches: Array<Stretch> = []
  points.forEach((point, n) => {
    const end = Math.min(points[n + 1]?.at ?? tick.at, tick.at)
    if (n === 0 && point.from !== undefined && point.at > start) {
      stretches.push({ state: point.from, from: start, to: point.at })
    }
    if (end > start) stretches.push({ state: point.to, from: Math.max(start, point.at), to: end })
  })
  return stretches
}

export interface Failures {
  readonly tag: string
  /** In the window of the latest report; undefined where there is none. */
  readonly inWindow: number | undefined
  /** In the ticks of the last five minutes. */
  readonly seen: number
}

/** Failed attempts by tag, most first. */
export const failures = (state: State): ReadonlyArray<Failures> => {
  const seen = new Map<string, number>()
  for (const { errors } of state.ticks) {
    for (const [tag, count] of Object.entries(errors)) seen.set(tag, (seen.get(tag) ?? 0) + count)
  }
  const latest = state.reports.at(-1)?.window.errors
  const inWindow = new Map(Object.entries(latest ?? {}))
  return [...new Set([...seen.keys(), ...inWindow.keys()])]
    .map((tag) => ({
      tag,
      inWindow: latest === undefined ? undefined : (inWindow.get(tag) ?? 0),
      seen: seen.get(tag) ?? 0
    }))
    .filter((row) => row.seen > 0 || (row.inWindow ?? 0) > 0)
    .sort((a, b) => b.seen - a.seen || (b.inWindow ?? 0) - (a.inWindow ?? 0) || a.tag.localeCompare(b.tag))
}
