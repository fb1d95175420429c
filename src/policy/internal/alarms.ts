/**
 * One timer for all that waits by the machine's own time, set for whatever is due first.
 *
 * 1. Nothing rings early, nor more than a millisecond or two late while the process is not busy.
 * 2. What is cancelled is referred to by nothing here from then on; setting and cancelling create no timer, as a rule.
 * 3. With nothing set no timer keeps the process alive.
 */

export interface Alarm {
  /** Milliseconds of `performance.now`, which never jumps. */
  readonly at: number
  readonly ring: () => void
  /** Its place in the heap, -1 outside. */
  place: number
}

/** The longest that a timer can be set for. What is due later is looked at in between. */
const longest = 2 ** 31 - 1

/** A heap, whatever is due first at its top. */
const heap: Array<Alarm> = []
let timer: NodeJS.Timeout | undefined
/** When the timer goes off, and by whose `setTimeout`: a test may put its own in the place of the real one, and back. */
let timerAt = 0
let timerBy: typeof setTimeout | undefined

const put = (alarm: Alarm, place: number): void => {
  heap[place] = alarm
  alarm.place = place
}

/** Puts an alarm where it belongs, at this place or nearer to the top. */
const rise = (alarm: Alarm, from: number): void => {
  let place = from
  while (place > 0) {
    const above = (place - 1) >> 1
    if (heap[above]!.at <= alarm.at) break
    put(heap[above]!, place)
    place = above
  }
  put(alarm, place)
}

/** Puts an alarm where it belongs, at this place or farther from the top. */
const sink = (alarm: Alarm, from: number): void => {
  let place = from
  for (;;) {
    let below = 2 * place + 1
    if (below >= heap.length) break
    if (below + 1 < heap.length && heap[below + 1]!.at < heap[below]!.at) below++
    if (heap[below]!.at >= alarm.at) break
    put(heap[below]!, place)
    place = below
  }
  put(alarm, place)
}

const remove = (alarm: Alarm): void => {
  const { place } = alarm
  alarm.place = -1
  const last = heap.pop()!
  if (last === alarm) return
  if (place > 0 && last.at < heap[(place - 1) >> 1]!.at) rise(last, place)
  else sink(last, place)
}

const arm = (now: number): void => {
  const first = heap[0]
  if (first === undefined) return
  if (timer !== undefined && timerBy === setTimeout) clearTimeout(timer)
  timerAt = Math.min(first.at, now + longest)
  timerBy = setTimeout
  const armed = setTimeout(() => armed === timer && ring(), Math.max(1, Math.ceil(timerAt - now)))
  timer = armed
}

const ring = (): void => {
  timer = undefined
  let now = performance.now()
  // Node may call up to a millisecond early, and is asked again. Earlier yet it calls only if somebody made the time pass.
  if (timerAt - now > 1) now = timerAt
  for (let first = heap[0]; first !== undefined && first.at <= now; first = heap[0]) {
    remove(first)
    first.ring()
  }
  if (timer === undefined) arm(now)
}

/** Rings once after so many milliseconds, unless cancelled before. */
export const set = (millis: number, ring: () => void): Alarm => {
  const now = performance.now()
  const alarm: Alarm = { at: now + millis, ring, place: -1 }
  if (heap.length === 0) timer?.ref()
  heap.push(alarm)
  rise(alarm, heap.length - 1)
  if (timer === undefined || alarm.at < timerAt || timerBy !== setTimeout) arm(now)
  return alarm
}

/** Of no effect on one that rang. */
export const cancel = (alarm: Alarm): void => {
  if (alarm.place < 0) return
  remove(alarm)
  if (heap.length === 0) timer?.unref()
}
