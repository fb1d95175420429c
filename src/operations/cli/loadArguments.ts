/** What `load` reads out of the words on its command line. Pure. */
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import type * as LoadTest from "../LoadTest.js"

const units: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000 }

/** `500ms`, `1.5s`, `5m`, `2h`, with or without a space; the left says what is wrong. */
export const duration = (text: string): Either.Either<Duration.Duration, string> => {
  const [, value, unit = ""] = /^\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*$/.exec(text) ?? []
  const factor = Object.hasOwn(units, unit) ? units[unit] : undefined
  return value === undefined || factor === undefined
    ? Either.left(`${JSON.stringify(text)} is not a time: write a number and ms, s, m or h, such as 500ms or 1.5m`)
    : Either.right(Duration.millis(Number(value) * factor))
}

type Weights = Pick<LoadTest.MixOptions, "read" | "write" | "transaction">

const kinds = ["read", "write", "transaction"] as const

/** `read=70,write=20,transaction=10`; what is not named is left out. */
export const mixOf = (text: string): Either.Either<Weights, string> => {
  const weights: { [Kind in (typeof kinds)[number]]?: number } = {}
  for (const part of text.split(",")) {
    const [, name, value] = /^\s*(\w+)\s*=\s*(\d+(?:\.\d+)?)\s*$/.exec(part) ?? []
    const kind = kinds.find((kind) => kind === name)
    if (kind === undefined) {
      return Either.left(
        `${JSON.stringify(part.trim())} is not a weight: write read=70,write=20,transaction=10, each with a number of 0 or more`
      )
    }
    if (weights[kind] !== undefined) return Either.left(`${kind} is named twice`)
    weights[kind] = Number(value)
  }
  return Object.values(weights).every((weight) => weight === 0)
    ? Either.left("all weights are 0, and nothing would be done")
    : Either.right(weights)
}
