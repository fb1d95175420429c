/**
 * The dashboard: listens to the stream of events beside its own URL, and shows what it hears. Everything is drawn anew from
 * the state (state.ts), at most once a frame, and only while somebody can see it.
 */
import * as charts from "./charts.js"
import * as connections from "./connection.js"
import { byId, mark, setText } from "./dom.js"
import * as format from "./format.js"
import * as panels from "./panels.js"
import { apply, type State } from "./state.js"
import * as words from "./words.js"

let state: State | undefined
let connection: connections.Connection = { _tag: "Connecting" }
let drawing = false

const drawCharts = charts.make()

const unsaid: Array<string> = []

/** For screen readers: changes of status, breaker, alerts and connection; what comes at once is said in one breath. */
const announce = (text: string) => {
  if (unsaid.push(text) === 1) setTimeout(() => setText(byId("announcement"), unsaid.splice(0).join(" ")), 250)
}

const showConnection = () => {
  const lost = byId("lost")
  const last = state?.ticks.at(-1)?.at
  document.documentElement.dataset["connection"] = connection._tag
  switch (connection._tag) {
    case "Connecting":
      return mark(byId("connection"), "pending", "Connecting")
    case "Live":
      lost.hidden = true
      return mark(byId("connection"), "live", "Live")
    case "Lost": {
      lost.hidden = false
      mark(byId("connection"), "lost-icon", "Connection lost")
      const since = format.time(connection.since)
      const known =
        last === undefined ? "No data yet" : `Last data at ${format.time(last)}; what is shown below is of then`
      return setText(byId("lost-text"), `Connection lost since ${since}. ${known}. Trying again by itself.`)
    }
  }
}

/** What a tab in the background has to say. */
const showTitle = () => {
  if (state === undefined) return
  const report = state.reports.at(-1)
  const word =
    connection._tag === "Lost"
      ? "Connection lost"
      : report === undefined
        ? "Not checked"
        : `${words.statuses[report.status]} ${report.score}`
  const title = `${word} · ${state.pool}`
  if (document.title !== title) document.title = title
}

const draw = () => {
  drawing = false
  if (state === undefined) return
  panels.draw(state)
  drawCharts(state)
  const last = state.ticks.at(-1)
  if (last !== undefined) setText(byId("last-data"), format.time(last.at))
  byId("content").removeAttribute("aria-busy")
}

const redraw = () => {
  if (drawing) return
  drawing = true
  requestAnimationFrame(draw)
}

connections.open(new URL("events", location.href), {
  message: (message) => {
    const before = state
    state = apply(state, message)
    if (state === undefined) return
    if (message._tag === "Hello") announce("Connected.")
    const said = words.changes(before, state)
    if (said !== undefined) announce(said)
    showTitle()
    redraw()
  },
  connection: (now) => {
    const before = connection
    connection = now
    if (now._tag === "Lost" && before._tag !== "Lost") announce("Connection lost. Trying again.")
    showConnection()
    showTitle()
  }
})
