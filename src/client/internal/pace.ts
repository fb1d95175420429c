/**
 * How long statements take at the server, learned by their text: what decides whether one may share a connection.
 *
 * 1. Our own event loop's doings count for nothing: an answer may lie there unread for as long as it is busy. So the time that
 *    a statement takes is the time that the loop stood idle meanwhile; and long is what was not answered although the loop has
 *    gone round for `tickMillis` at least, however busy it was.
 * 2. The way to the server and back counts for nothing either: of two statements the second may well be sent while the first is
 *    on its way. It is taken to be as long as the fastest answer of late.
 * 3. Short is a text of which 95 of 100 have lately not been long. One that has become long is short again only when 97.5 are.
 */
import * as textCache from "../../policy/internal/textCache.js"

/** The step of the clock that tells long from short, milliseconds: with less than this nobody is told apart. */
export const tickMillis = 5
/** Steps that prove nothing: the loop may have been busy since before the first of them, and read no answer. */
const idleTicks = 2

/** Runs of a text on connections of its own before anything is known of it. */
const unknown = 8
/** Weights of the last run in the moving averages. */
const weight = { slow: 1 / 64, millis: 1 / 16 }
/** Shares of long runs, to lose the name of short by, and to regain it. */
const share = { most: 0.05, again: 0.025 }
/** Of the fastest answer, how much of what others take longer it forgets with each of them. */
const forgetting = 1 / 1024

/** What is known of one text. */
export class Pace {
  private runs = 0
  private slow = 0
  private millis = 0
  private short = true

  /** One was answered, after so many milliseconds of the server's time. */
  ran(millis: number, long: boolean): void {
    this.runs++
    this.slow += ((long ? 1 : 0) - this.slow) * weight.slow
    this.millis += (millis - this.millis) * Math.max(weight.millis, 1 / this.runs)
    this.short = this.slow <= (this.short ? share.most : share.again)
  }

  /** Milliseconds that one is likely to keep the server busy; undefined when it is long, or not known well enough. */
  get expected(): number | undefined {
    return this.short && this.runs >= unknown ? this.millis : undefined
  }
}

/** When one was sent, or the one before it on the same connection was answered. */
export interface Mark {
  readonly idle: number
  readonly tick: number
}

const later = (sent: Mark, before: Mark | undefined): Mark =>
  before !== undefined && before.tick > sent.tick ? before : sent

const limits: textCache.Limits = { texts: 1_000, characters: 4_000_000, longest: 8_192 }

/** The paces of one client's statements, and the clock that they are told by: it stands still while nothing is under way. */
export class Paces {
  readonly of: (text: string) => Pace = textCache.make(() => new Pace(), limits)
  private underway = 0
  private tick = 0
  private timer: NodeJS.Timeout | undefined = undefined
  private now: Mark | undefined = undefined
  private readonly turned = () => {
    this.now = undefined
  }
  /** Milliseconds to the server and back. */
  private way = Number.POSITIVE_INFINITY

  /** `afterwards`: when this turn of the event loop is over. */
  constructor(private readonly afterwards: (then: () => void) => void = process.nextTick) {}

  begin(): Mark {
    this.underway++
    this.timer ??= setInterval(() => this.onTick(), tickMillis).unref()
    return this.mark()
  }

  end(): void {
    this.underway--
  }

  /** Now. The loop does not stand idle before this turn of it is over, so that one mark serves all that happens in it. */
  mark(): Mark {
    if (this.now === undefined) {
      this.now = { idle: performance.eventLoopUtilization().idle, tick: this.tick }
      this.afterwards(this.turned)
    }
    return this.now
  }

  /** Has it been under way for long? `from`: the later one of its marks. */
  isLong({ tick }: Mark): boolean {
    return this.tick - tick >= idleTicks + (this.way === Number.POSITIVE_INFINITY ? 0 : this.way / tickMillis)
  }

  /** Answered, `elapsed` milliseconds after it was sent; `before`: when the one ahead of it was. */
  ran(pace: Pace, elapsed: number, sent: Mark, before: Mark | undefined): void {
    this.way = elapsed < this.way ? elapsed : this.way + (elapsed - this.way) * forgetting
    const { idle } = this.mark()
    const from = Math.max(sent.idle + this.way, before?.idle ?? 0)
    pace.ran(Math.max(0, idle - from), this.isLong(later(sent, before)))
  }

  /** Given up, or refused: how long it would have taken is not known, but that it was long may be. */
  failed(pace: Pace, sent: Mark, before: Mark | undefined): void {
    if (this.isLong(later(sent, before))) pace.ran(tickMillis, true)
  }

  private onTick(): void {
    this.tick++
    if (this.underway > 0) return
    clearInterval(this.timer)
    this.timer = undefined
  }
}
