/** What a check is: a pure function from what is known of a server to what is to be said about it. */
import * as Either from "effect/Either"
import type * as PoolSizing from "../../../config/PoolSizing.js"
import type { Facts, Subjects } from "./facts.js"
import type * as Model from "./model.js"
import type { Levels, Thresholds } from "./thresholds.js"

/** What the program is, of which the server knows nothing. */
export interface Program {
  /** Connections that one instance's pool opens at most. */
  readonly maxConnections: number
  readonly instances: number
  /** For the recommendation; what is missing is assumed. */
  readonly sizing: PoolSizing.Input
  readonly ledger: { readonly schema: string; readonly table: string }
}

/** What a check says; its name is added. */
export type Said = Omit<Model.Finding, "check">

export interface Around {
  readonly facts: Facts
  readonly program: Program
  readonly thresholds: Thresholds
}

export interface Check {
  readonly name: string
  readonly run: (around: Around) => Either.Either<ReadonlyArray<Model.Finding>, Model.NotChecked>
}

type Needed<Names extends ReadonlyArray<keyof Subjects>> = { readonly [Name in Names[number]]: Subjects[Name] }

/** Says nothing unless all that it needs is known. A string is why it could not look. */
export const check = <const Names extends ReadonlyArray<keyof Subjects>>(
  name: string,
  needs: Names,
  judge: (known: Needed<Names>, around: Around) => ReadonlyArray<Said> | string
): Check => ({
  name,
  run: (around) => {
    const known: Record<string, unknown> = {}
    for (const need of needs) {
      const subject: Either.Either<unknown, string> = around.facts.subjects[need]
      if (Either.isLeft(subject)) return Either.left({ check: name, why: subject.left })
      known[need] = subject.right
    }
    const said = judge(known as Needed<Names>, around)
    return typeof said === "string"
      ? Either.left({ check: name, why: said })
      : Either.right(said.map((finding) => ({ check: name, ...finding })))
  }
})

export const ok = (title: string, found: string): Said => ({ severity: "ok", title, found, advice: "" })

export const levelOf = (value: number, { critical, warning }: Levels): "ok" | "warning" | "critical" =>
  value >= critical ? "critical" : value >= warning ? "warning" : "ok"

/** Of findings of one kind, so many are told one by one; the rest as a number. */
const told = 10

export const limited = (findings: ReadonlyArray<Said>): ReadonlyArray<Said> => {
  const rest = findings.slice(told)
  const [next] = rest
  return next === undefined
    ? findings
    : [
        ...findings.slice(0, told),
        { ...next, found: `${count(rest.length, "more")} of the same kind.`, advice: "As for those above." }
      ]
}

/** One finding each, or that there are none. */
export const each = <A>(items: ReadonlyArray<A>, say: (item: A) => Said, none: Said): ReadonlyArray<Said> =>
  items.length === 0 ? [none] : limited(items.map(say))

const plurals: { readonly [thing: string]: string } = { index: "indexes", more: "more" }

export const count = (n: number, thing: string): string =>
  `${n.toLocaleString("en")} ${n === 1 ? thing : (plurals[thing] ?? `${thing}s`)}`

export const percent = (share: number): string => `${Math.round(share * 100)} %`

/** As people say it, with the one unit that matters. */
export const span = (seconds: number): string => {
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`
  if (seconds < 120) return count(Math.round(seconds), "second")
  if (seconds < 7_200) return count(Math.round(seconds / 60), "minute")
  if (seconds < 172_800) return count(Math.round(seconds / 3_600), "hour")
  return count(Math.round(seconds / 86_400), "day")
}

export const millis = (ms: number): string => `${ms >= 10 ? Math.round(ms) : Math.round(ms * 10) / 10} ms`

const units = ["bytes", "KiB", "MiB", "GiB", "TiB", "PiB"] as const

export const size = (bytes: number): string => {
  const power = bytes < 1024 ? 0 : Math.min(units.length - 1, Math.floor(Math.log2(bytes) / 10))
  const value = bytes / 1024 ** power
  return `${value >= 10 || power === 0 ? Math.round(value) : Math.round(value * 10) / 10} ${units[power]}`
}

/** Names out of the database may hold anything; a line stays a line. */
export const clean = (text: string): string => text.replace(/\p{C}+/gu, " ")

/** Who a session is, for people. Its query may hold data, and is left out. */
export const sessionOf = (session: {
  readonly pid: number
  readonly application: string
  readonly role: string | null
  readonly database: string | null
}): string => {
  const application = session.application === "" ? "" : `"${clean(session.application)}", `
  return `pid ${session.pid} (${application}role ${clean(session.role ?? "?")}, database ${clean(session.database ?? "?")})`
}
