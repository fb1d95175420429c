/**
 * What OTLP can say and Effect's exporters cannot, put right on the way out.
 *
 * A metric's unit comes to them as a label and stays one beside the field that it belongs into; a port is a number in the
 * conventions, while Effect's labels are strings; and a span that failed is marked as interrupted.
 */
import * as OtlpSerialization from "@effect/opentelemetry/OtlpSerialization"
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { SERVER_PORT } from "../names.js"

interface Attribute {
  readonly key: string
  readonly value: { readonly stringValue?: string | null; readonly intValue?: number | null }
}

interface Attributed {
  attributes: ReadonlyArray<Attribute>
}

interface Points {
  readonly dataPoints: ReadonlyArray<Attributed>
}

interface Metrics {
  readonly resourceMetrics: ReadonlyArray<{
    readonly scopeMetrics: ReadonlyArray<{
      readonly metrics: ReadonlyArray<{ readonly gauge?: Points; readonly sum?: Points; readonly histogram?: Points }>
    }>
  }>
}

interface Traces {
  readonly resourceSpans: ReadonlyArray<{
    readonly scopeSpans: ReadonlyArray<{
      readonly spans: ReadonlyArray<Attributed & { readonly status: { readonly code: number } }>
    }>
  }>
}

const withoutUnit = (attributes: ReadonlyArray<Attribute>): ReadonlyArray<Attribute> =>
  attributes
    .filter(({ key }) => key !== "unit" && key !== "time_unit")
    .map((attribute) =>
      attribute.key === SERVER_PORT
        ? { key: SERVER_PORT, value: { intValue: Number(attribute.value.stringValue) } }
        : attribute
    )

/** The exporters build what they send anew each time, so that it may be changed in place. */
const conformMetrics = (data: Metrics): Metrics => {
  for (const { scopeMetrics } of data.resourceMetrics) {
    for (const { gauge, histogram, sum } of scopeMetrics.flatMap(({ metrics }) => metrics)) {
      for (const point of (gauge ?? sum ?? histogram)?.dataPoints ?? []) {
        point.attributes = withoutUnit(point.attributes)
      }
    }
  }
  return data
}

/** `STATUS_CODE_ERROR`: the span failed. One that was interrupted has the status `OK`. */
const failed = 2

const conformTraces = (data: Traces): Traces => {
  for (const { scopeSpans } of data.resourceSpans) {
    for (const span of scopeSpans.flatMap(({ spans }) => spans)) {
      if (span.status.code !== failed) continue
      span.attributes = span.attributes.filter(
        ({ key, value }) =>
          key !== "status.interrupted" && !(key === "span.label" && value.stringValue?.endsWith("Interrupted"))
      )
    }
  }
  return data
}

export const layerSerialization = (
  protocol: "http/json" | "http/protobuf"
): Layer.Layer<OtlpSerialization.OtlpSerialization> =>
  Layer.effect(
    OtlpSerialization.OtlpSerialization,
    Effect.map(OtlpSerialization.OtlpSerialization, ({ logs, metrics, traces }) => ({
      logs,
      metrics: (data) => metrics(conformMetrics(data as Metrics)),
      traces: (data) => traces(conformTraces(data as Traces))
    }))
  ).pipe(Layer.provide(protocol === "http/json" ? OtlpSerialization.layerJson : OtlpSerialization.layerProtobuf))

/**
 * Exports at once, of all signals together. A receiver that takes connections and answers nothing would otherwise collect
 * one request, and what is in it, per batch of spans.
 */
const maxExports = 8

/** Bounds each request in time, and their number; what is too much is refused like a lost connection. */
export const bounded =
  (timeoutMillis: number) =>
  (client: HttpClient.HttpClient): HttpClient.HttpClient => {
    let exporting = 0
    const refused = (request: HttpClientError.RequestError["request"], description: string) =>
      new HttpClientError.RequestError({ request, reason: "Transport", description })
    return HttpClient.transform(client, (send, request) =>
      Effect.suspend(() => {
        if (exporting >= maxExports) return Effect.fail(refused(request, `${maxExports} exports are under way`))
        exporting++
        return send.pipe(
          Effect.timeoutFail({
            duration: timeoutMillis,
            onTimeout: () => refused(request, `no answer within ${timeoutMillis} ms`)
          }),
          Effect.ensuring(Effect.sync(() => exporting--))
        )
      })
    )
  }
