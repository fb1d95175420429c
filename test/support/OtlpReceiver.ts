/**
 * An OpenTelemetry collector as far as OTLP over HTTP goes: takes what exporters send, answers, and decodes the JSON.
 * A `silent` one takes requests and never answers.
 */
import * as Http from "node:http"
import type * as Net from "node:net"
import { Effect, Queue, Ref, type Scope } from "effect"

export interface Received {
  readonly signal: "traces" | "metrics" | "logs"
  readonly path: string
  readonly headers: Http.IncomingHttpHeaders
  readonly body: Buffer
}

export interface Value {
  readonly stringValue?: string
  readonly intValue?: number
  readonly doubleValue?: number
  readonly boolValue?: boolean
}

/** Attributes as a record. */
export type Attributes = Readonly<Record<string, string | number | boolean | undefined>>

export interface Metric {
  readonly name: string
  readonly unit: string
  readonly description: string
  readonly kind: "sum" | "monotonic sum" | "gauge" | "histogram"
  readonly points: ReadonlyArray<{
    readonly attributes: Attributes
    readonly value: number
    readonly explicitBounds?: ReadonlyArray<number>
    readonly bucketCounts?: ReadonlyArray<number>
    readonly sum?: number
  }>
}

export interface Span {
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly attributes: Attributes
  /** 0 unset, 1 OK, 2 error. */
  readonly status: number
  readonly events: ReadonlyArray<{ readonly name: string; readonly attributes: Attributes }>
  readonly resource: Attributes
}

const attributesOf = (list: ReadonlyArray<{ readonly key: string; readonly value: Value }> = []): Attributes => {
  const keys = list.map(({ key }) => key)
  if (new Set(keys).size !== keys.length) throw new Error(`attributes given twice: ${keys.join(", ")}`)
  return Object.fromEntries(
    list.map(({ key, value }) => [
      key,
      value.stringValue ?? value.intValue ?? value.doubleValue ?? value.boolValue ?? undefined
    ])
  )
}

const json = ({ body }: Received): any => JSON.parse(body.toString("utf8"))

/** The metrics of one request. */
export const metricsOf = (received: Received): ReadonlyArray<Metric> =>
  json(received).resourceMetrics.flatMap(({ scopeMetrics }: any) =>
    scopeMetrics.flatMap(({ metrics }: any) =>
      metrics.map(({ description, gauge, histogram, name, sum, unit }: any) => ({
        name,
        unit,
        description,
        kind: sum ? (sum.isMonotonic ? "monotonic sum" : "sum") : gauge ? "gauge" : "histogram",
        points: (sum ?? gauge ?? histogram).dataPoints.map(
          ({ asDouble, asInt, attributes, bucketCounts, count, explicitBounds, sum }: any) => ({
            attributes: attributesOf(attributes),
            value: asDouble ?? asInt ?? count,
            ...(histogram ? { explicitBounds, bucketCounts, sum } : {})
          })
        )
      }))
    )
  )

/** The spans of one request. */
export const spansOf = (received: Received): ReadonlyArray<Span> =>
  json(received).resourceSpans.flatMap(({ resource, scopeSpans }: any) =>
    scopeSpans.flatMap(({ spans }: any) =>
      spans.map(({ attributes, events, name, parentSpanId, spanId, status, traceId }: any) => ({
        name,
        traceId,
        spanId,
        parentSpanId,
        attributes: attributesOf(attributes),
        status: status.code,
        events: events.map((event: any) => ({ name: event.name, attributes: attributesOf(event.attributes) })),
        resource: attributesOf(resource.attributes)
      }))
    )
  )

/** What the program is, as one request says. */
export const resourceOf = (received: Received): Attributes => {
  const { resourceLogs, resourceMetrics, resourceSpans } = json(received)
  return attributesOf((resourceMetrics ?? resourceSpans ?? resourceLogs)[0].resource.attributes)
}

export interface OtlpReceiver {
  /** Where it listens, without a path. */
  readonly url: string
  /** The next request that has not been taken yet; waits for it. */
  readonly next: Effect.Effect<Received>
  /** All requests so far that have not been taken. */
  readonly received: Effect.Effect<ReadonlyArray<Received>>
  /** Requests that wait for an answer, now and at most so far. */
  readonly pending: Effect.Effect<{ readonly now: number; readonly most: number }>
}

export const make = ({
  silent = false
}: {
  readonly silent?: boolean
} = {}): Effect.Effect<OtlpReceiver, never, Scope.Scope> =>
  Effect.gen(function* () {
    const queue = yield* Queue.unbounded<Received>()
    const pending = yield* Ref.make({ now: 0, most: 0 })
    const server = Http.createServer((request, response) => {
      const chunks: Array<Buffer> = []
      request.on("data", (chunk: Buffer) => chunks.push(chunk))
      request.on("end", () => {
        const path = request.url ?? ""
        const signal = path.slice(path.lastIndexOf("/") + 1) as Received["signal"]
        Effect.runSync(
          Ref.update(pending, ({ most, now }) => ({ now: now + 1, most: Math.max(most, now + 1) })).pipe(
            Effect.zipRight(Queue.offer(queue, { signal, path, headers: request.headers, body: Buffer.concat(chunks) }))
          )
        )
        response.on("close", () => Effect.runSync(Ref.update(pending, ({ most, now }) => ({ now: now - 1, most }))))
        if (!silent) response.writeHead(200, { "content-type": "application/json" }).end("{}")
      })
    })
    yield* Effect.acquireRelease(
      Effect.async<void>((resume) => void server.listen(0, "127.0.0.1", () => resume(Effect.void))),
      () =>
        Effect.async<void>((resume) => {
          server.close(() => resume(Effect.void))
          server.closeAllConnections()
        })
    )
    return {
      url: `http://127.0.0.1:${(server.address() as Net.AddressInfo).port}`,
      next: Queue.take(queue),
      received: Effect.map(Queue.takeAll(queue), (all) => Array.from(all)),
      pending: Ref.get(pending)
    }
  })
