/** What the proxy does to chosen messages, and how a test learns that it has happened. */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as STM from "effect/STM"
import * as TRef from "effect/TRef"
import type { FrontendMessage } from "./frontendMessages.js"

/** From the client to the server, or back. */
export type Direction = "toServer" | "toClient"

/** How the client sees the end: RST (ECONNRESET), or FIN. The server always sees FIN after what was forwarded. */
export type Ending = "reset" | "close"

export type Match = (message: FrontendMessage) => boolean

export type Action = Data.TaggedEnum<{
  /** Ends the connection instead of the message, or once the message's command is forwarded. */
  Cut: { readonly when: "before" | "after"; readonly ending: Ending }
  /** Forwards the command; when the server has answered it, forwards nothing of the answer. */
  Swallow: { readonly ending: Ending | "blackHole" }
  /** Keeps the message, and everything behind it, until the gate opens. */
  Hold: { readonly gate: Effect.Latch }
}>
export const Action = Data.taggedEnum<Action>()

/** How often something has happened, to be waited for. */
export interface Counter {
  readonly get: Effect.Effect<number>
  readonly increment: Effect.Effect<void>
  readonly reaches: (count: number) => Effect.Effect<void>
}

export const counter: Effect.Effect<Counter> = Effect.map(TRef.make(0), (ref) => ({
  get: TRef.get(ref),
  increment: TRef.update(ref, (n) => n + 1),
  reaches: (count) =>
    TRef.get(ref).pipe(
      STM.retryUntil((n) => n >= count),
      STM.asVoid
    )
}))

/** Applies to the next messages that match. */
export interface MessageRule {
  readonly match: Match
  readonly action: Action
  readonly done: Counter
  /** How many messages it still applies to. */
  left: number
}

/** Ends connections after so many bytes. */
export interface ByteRule {
  readonly direction: Direction
  readonly bytes: number
  readonly ending: Ending
  readonly done: Counter
  /** Bytes that passed since the rule was made, by connection. */
  readonly passed: WeakMap<object, number>
  /** How many connections it still applies to. */
  left: number
}

/** The first rule that wants the message; it is counted against that rule's `times`. */
export const claim = (rules: ReadonlyArray<MessageRule>, message: FrontendMessage): MessageRule | undefined => {
  const rule = rules.find((rule) => rule.left > 0 && rule.match(message))
  if (rule) rule.left--
  return rule
}

/** How many of the bytes may pass before a rule ends the connection, and that rule. */
export const admit = (
  rules: ReadonlyArray<ByteRule>,
  connection: object,
  direction: Direction,
  length: number
): readonly [number, ByteRule | undefined] => {
  let cut: readonly [number, ByteRule | undefined] = [length, undefined]
  for (const rule of rules) {
    if (rule.direction !== direction || rule.left === 0) continue
    const passed = rule.passed.get(connection) ?? 0
    if (passed + length >= rule.bytes && rule.bytes - passed <= cut[0]) cut = [rule.bytes - passed, rule]
    rule.passed.set(connection, passed + length)
  }
  if (cut[1]) cut[1].left--
  return cut
}
