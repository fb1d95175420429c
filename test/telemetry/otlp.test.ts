import { assert, describe, it } from "@effect/vitest"
import { Array, Config, ConfigProvider, Deferred, Effect, Exit, Fiber, Layer, Redacted, Scope, TestClock } from "effect"
import * as Metrics from "../../src/telemetry/Metrics.js"
import { ATTEMPT_DELAY, ATTEMPT_FAILED, ATTEMPT_NUMBER, ERROR_TYPE } from "../../src/telemetry/names.js"
import * as Telemetry from "../../src/telemetry/Telemetry.js"
import * as OtlpReceiver from "../support/OtlpReceiver.js"

/** Nothing goes out before the scope closes. */
const atTheEnd = { metricsInterval: "1 hour", tracesInterval: "1 hour", serviceName: "shop" } as const

/** Runs the program under telemetry, closes the telemetry, and returns what the receiver got. */
const receivedFrom = (program: Effect.Effect<unknown>, options: Telemetry.Options = {}) =>
  Effect.gen(function* () {
    const receiver = yield* OtlpReceiver.make()
    yield* program.pipe(
      Effect.exit,
      Effect.provide(Telemetry.layerOtlp({ ...atTheEnd, endpoint: receiver.url, ...options }))
    )
    return yield* receiver.received
  })

const the = (signal: OtlpReceiver.Received["signal"], all: ReadonlyArray<OtlpReceiver.Received>) => {
  const found = all.filter((one) => one.signal === signal)
  assert.lengthOf(found, 1, `requests with ${signal}`)
  return found[0]!
}

const span = (name: string) => Effect.withSpan(Effect.void, name)

describe("layerOtlp", () => {
  it.scopedLive("exports the metrics with their names, units, kinds, attributes and buckets", () =>
    Effect.gen(function* () {
      const metrics = Metrics.forPool({
        poolName: "exported",
        namespace: "shop",
        address: "db.internal",
        port: 6432,
        min: 1,
        max: 8
      })
      metrics.pool({ idle: 3, used: 2, pending: 1 })
      metrics.operation("get-user", 0.004, undefined)
      metrics.operation("get-user", 0.06, undefined)
      metrics.operation("get-user", 20, "QueryTimeoutError")
      metrics.retry("DeadlockError")
      metrics.acquireTimeout()

      const all = OtlpReceiver.metricsOf(the("metrics", yield* receivedFrom(Effect.void)))
      const pool = { "db.client.connection.pool.name": "exported" }
      const own = (name: string) => {
        const metric = all.find((metric) => metric.name === name)
        assert.isDefined(metric, name)
        return {
          ...metric!,
          points: metric!.points.filter(({ attributes }) => attributes["db.client.connection.pool.name"] === "exported")
        }
      }

      const count = own("db.client.connection.count")
      assert.deepInclude(count, { unit: "{connection}", kind: "sum" })
      assert.sameDeepMembers(
        [...count.points],
        [
          { attributes: { ...pool, "db.client.connection.state": "idle" }, value: 3 },
          { attributes: { ...pool, "db.client.connection.state": "used" }, value: 2 }
        ]
      )
      assert.deepInclude(own("db.client.connection.timeouts"), {
        unit: "{timeout}",
        kind: "monotonic sum",
        points: [{ attributes: pool, value: 1 }]
      })
      assert.deepInclude(own("db.client.connection.max"), {
        unit: "{connection}",
        kind: "sum",
        points: [{ attributes: pool, value: 8 }]
      })
      assert.deepInclude(own("pgresilience.retry.attempts"), {
        unit: "{retry}",
        kind: "monotonic sum",
        points: [{ attributes: { ...pool, "error.type": "DeadlockError" }, value: 1 }]
      })

      const duration = own("db.client.operation.duration")
      assert.deepInclude(duration, { unit: "s", kind: "histogram" })
      const attributes = {
        ...pool,
        "db.system.name": "postgresql",
        "db.namespace": "shop",
        "server.address": "db.internal",
        "server.port": 6432,
        "db.operation.name": "get-user"
      }
      const explicitBounds = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10]
      assert.sameDeepMembers(
        [...duration.points],
        [
          { attributes, value: 2, sum: 0.064, explicitBounds, bucketCounts: [0, 1, 0, 0, 1, 0, 0, 0, 0, 0] },
          {
            attributes: { ...attributes, "error.type": "QueryTimeoutError" },
            value: 1,
            sum: 20,
            explicitBounds,
            bucketCounts: [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]
          }
        ]
      )
      // Every metric of the library has its unit and description, and no attribute that only carried the unit.
      for (const { description, name, points, unit } of all.filter(({ name }) => /^(db|pgresilience)\./.test(name))) {
        const defined = Object.values(Metrics.metrics).find((metric) => metric.name === name)
        assert.isDefined(defined, name)
        assert.strictEqual(unit, defined!.tags[0]!.value)
        assert.isNotEmpty(description, name)
        for (const { attributes } of points) assert.notProperty(attributes, "unit")
      }
      metrics.close()
    })
  )

  it.scopedLive("exports a span with its attributes, its events and its place in the trace", () =>
    Effect.gen(function* () {
      const statement = Effect.gen(function* () {
        const span = yield* Effect.orDie(Effect.currentSpan)
        span.event(ATTEMPT_FAILED, 1n, { [ERROR_TYPE]: "DeadlockError", [ATTEMPT_NUMBER]: 1, [ATTEMPT_DELAY]: 0.02 })
      }).pipe(Effect.withSpan("sql.execute", { kind: "client", attributes: { "db.namespace": "shop" } }))
      const spans = OtlpReceiver.spansOf(
        the("traces", yield* receivedFrom(Effect.withSpan(statement, "request"), { attributes: { region: "eu" } }))
      )
      const [child, parent] = ["sql.execute", "request"].map((name) => spans.find((span) => span.name === name)!)
      assert.deepInclude(child!, {
        attributes: { "db.namespace": "shop" },
        status: 1,
        events: [
          {
            name: "pgresilience.attempt.failed",
            attributes: {
              "error.type": "DeadlockError",
              "pgresilience.attempt.number": 1,
              "pgresilience.attempt.delay": 0.02
            }
          }
        ],
        parentSpanId: parent!.spanId,
        traceId: parent!.traceId,
        resource: { "service.name": "shop", region: "eu" }
      })
    })
  )

  it.scopedLive("does not call a span that failed interrupted", () =>
    Effect.gen(function* () {
      const failing = Effect.withSpan(Effect.fail(new Error("no such table")), "failing")
      const [sent] = OtlpReceiver.spansOf(the("traces", yield* receivedFrom(Effect.ignore(failing))))
      assert.strictEqual(sent?.status, 2)
      assert.deepStrictEqual(
        Object.keys(sent?.attributes ?? {}).filter((key) => /label|interrupted/.test(key)),
        []
      )
      assert.strictEqual(sent?.events[0]?.attributes["exception.message"], "no such table")
    })
  )

  it.scopedLive("exports again and again while the program runs", () =>
    Effect.gen(function* () {
      const receiver = yield* OtlpReceiver.make()
      const layer = Telemetry.layerOtlp({
        endpoint: receiver.url,
        metricsInterval: "10 millis",
        tracesInterval: "10 millis"
      })
      yield* Effect.gen(function* () {
        const spans = new Set<string>()
        let metrics = 0
        for (let n = 0; spans.size < 5 || metrics < 5; n++) {
          yield* span(`span ${n}`)
          const received = yield* receiver.next
          if (received.signal === "metrics") metrics++
          else for (const { name } of OtlpReceiver.spansOf(received)) spans.add(name)
        }
      }).pipe(Effect.provide(layer))
    })
  )

  it.scopedLive("sends log lines only when asked to", () =>
    Effect.gen(function* () {
      const program = Effect.logInfo("said")
      assert.notInclude(
        (yield* receivedFrom(program)).map(({ signal }) => signal),
        "logs"
      )
      const logs = the("logs", yield* receivedFrom(program, { logs: true }))
      assert.include(logs.body.toString("utf8"), '"said"')
      assert.deepStrictEqual(OtlpReceiver.resourceOf(logs), { "service.name": "shop" })
    })
  )

  it.scopedLive("sends headers, below the path of the endpoint", () =>
    Effect.gen(function* () {
      const receiver = yield* OtlpReceiver.make()
      yield* Effect.provide(
        span("any"),
        Telemetry.layerOtlp({
          ...atTheEnd,
          endpoint: `${receiver.url}/otlp/`,
          headers: { "api-key": Redacted.make("s3cret") }
        })
      )
      const sent = yield* receiver.received
      assert.sameMembers(
        sent.map(({ path }) => path),
        ["/otlp/v1/traces", "/otlp/v1/metrics"]
      )
      for (const { headers } of sent) assert.strictEqual(headers["api-key"], "s3cret")
    })
  )

  it.scopedLive("speaks protobuf too", () =>
    Effect.gen(function* () {
      const metrics = Metrics.forPool({ namespace: "shop", address: "protobuf", port: 5432, min: 0, max: 1 })
      metrics.operation("in-protobuf", 0.1, undefined)
      const sent = yield* receivedFrom(span("a span in protobuf"), { protocol: "http/protobuf" })
      for (const { headers } of sent) assert.strictEqual(headers["content-type"], "application/x-protobuf")
      const { body } = the("metrics", sent)
      // Field 1, a name, then field 3, a unit; the attribute that carried it is gone.
      const name = "db.client.operation.duration"
      const at = body.indexOf(Buffer.concat([Buffer.from([0x0a, name.length]), Buffer.from(name)]))
      assert.isAbove(at, 0)
      assert.isAbove(body.indexOf(Buffer.from("\x1a\x01s"), at), at)
      assert.isAbove(body.indexOf("in-protobuf"), 0)
      assert.strictEqual(body.indexOf(Buffer.from("\x0a\x04unit")), -1)
      assert.isAbove(the("traces", sent).body.indexOf("a span in protobuf"), 0)
      metrics.close()
    })
  )

  it.scopedLive("names the service after the attributes, or else admits that it does not know it", () =>
    Effect.gen(function* () {
      const { serviceName: _, ...options } = atTheEnd
      const resource = (attributes: Record<string, string>) =>
        Effect.gen(function* () {
          const receiver = yield* OtlpReceiver.make()
          yield* Effect.provide(Effect.void, Telemetry.layerOtlp({ ...options, endpoint: receiver.url, attributes }))
          return OtlpReceiver.resourceOf(the("metrics", yield* receiver.received))
        })
      assert.deepStrictEqual(yield* resource({ "service.name": "till" }), { "service.name": "till" })
      assert.deepStrictEqual(yield* resource({}), { "service.name": "unknown_service:node" })
    })
  )
})

describe("a receiver that", () => {
  const closed = Effect.scoped(Effect.map(OtlpReceiver.make(), ({ url }) => url))

  it.scopedLive("is not there costs the program nothing, and holds up its end no longer than allowed", () =>
    Effect.gen(function* () {
      const endpoint = yield* closed
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(
        Telemetry.layerOtlp({
          endpoint,
          metricsInterval: "10 millis",
          tracesInterval: "10 millis",
          shutdownTimeout: "100 millis"
        }),
        scope
      )
      assert.strictEqual(yield* Effect.as(span("one"), "done"), "done")
      const start = performance.now()
      const closing = yield* Scope.close(scope, Exit.void).pipe(Effect.timeoutOption("10 seconds"))
      assert.strictEqual(closing._tag, "Some", "still closing")
      console.log(`closed in ${Math.round(performance.now() - start)} ms with nobody listening`)
    })
  )

  it.scopedLive("is silent gets a bounded number of requests, however much there is to send", () =>
    Effect.gen(function* () {
      const receiver = yield* OtlpReceiver.make({ silent: true })
      yield* Effect.gen(function* () {
        // A batch is 1,000 spans.
        yield* Effect.forEach(Array.range(1, 40), () => Effect.repeatN(span("one of many"), 1_000), { discard: true })
        yield* receiver.next
      }).pipe(
        Effect.provide(Telemetry.layerOtlp({ ...atTheEnd, endpoint: receiver.url, shutdownTimeout: "100 millis" })),
        Effect.timeoutFail({ duration: "20 seconds", onTimeout: () => "held up by telemetry" })
      )
      assert.isAtMost((yield* receiver.pending).most, 8)
    })
  )

  it.scoped("is not there keeps no test on TestClock from ending", () =>
    Effect.gen(function* () {
      const endpoint = yield* closed
      const ended = yield* Deferred.make<void>()
      const program = yield* Effect.zipRight(span("one"), TestClock.adjust("1 hour")).pipe(
        Effect.provide(Telemetry.layerOtlp({ endpoint, shutdownTimeout: "100 millis" })),
        Effect.ensuring(Deferred.succeed(ended, undefined)),
        Effect.fork
      )
      yield* Deferred.await(ended)
      assert.isTrue(Exit.isSuccess(yield* Fiber.await(program)))
    })
  )
})

describe("the options", () => {
  it.effect("are refused all at once, by name, and without the headers' values", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        Layer.launch(
          Telemetry.layerOtlp({
            endpoint: "collector:4318",
            headers: { "api-key": 42 as never, other: "s3cret" },
            serviceName: "",
            metricsInterval: -1,
            timeout: 0,
            protocol: "grpc" as never,
            intervall: 3
          } as Telemetry.Options)
        )
      )
      assert.sameMembers(
        error.faults.map(({ field }) => field),
        [
          "telemetry.endpoint",
          "telemetry.headers",
          "telemetry.serviceName",
          "telemetry.metricsInterval",
          "telemetry.timeout",
          "telemetry.protocol",
          "telemetry.intervall"
        ]
      )
      assert.notInclude(error.message, "s3cret")
    })
  )

  const environment = (variables: Record<string, string>) =>
    Config.unwrap(Telemetry.env).pipe(
      Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(variables))))
    )

  it.effect("come from OpenTelemetry's environment variables", () =>
    Effect.gen(function* () {
      const { headers, ...options } = yield* environment({
        OTEL_EXPORTER_OTLP_ENDPOINT: "https://collector.internal:4318",
        OTEL_EXPORTER_OTLP_HEADERS: "api-key=a%3Db,x=1=2",
        OTEL_EXPORTER_OTLP_PROTOCOL: "http/protobuf",
        OTEL_EXPORTER_OTLP_TIMEOUT: "2500",
        OTEL_SERVICE_NAME: "shop",
        OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=production, service.version=1.2%2C3",
        OTEL_METRIC_EXPORT_INTERVAL: "60000",
        OTEL_BSP_SCHEDULE_DELAY: "1000"
      })
      assert.deepStrictEqual(options, {
        endpoint: "https://collector.internal:4318",
        protocol: "http/protobuf",
        timeout: 2500,
        serviceName: "shop",
        attributes: { "deployment.environment.name": "production", "service.version": "1.2,3" },
        metricsInterval: 60_000,
        tracesInterval: 1_000,
        enabled: true
      })
      const values = Object.entries(headers ?? {}).map(([key, value]) => [key, Redacted.value(Redacted.make(value))])
      assert.lengthOf(values, 2)
    })
  )

  it.effect("are the defaults where a variable is missing or empty", () =>
    Effect.gen(function* () {
      const options = yield* environment({ OTEL_SERVICE_NAME: "", OTEL_EXPORTER_OTLP_HEADERS: "" })
      assert.deepStrictEqual(
        Object.entries(options).filter(([, value]) => value !== undefined),
        [["enabled", true]]
      )
    })
  )

  it.effect("name the variable that is malformed, and do not show a secret", () =>
    Effect.gen(function* () {
      for (const [name, value] of [
        ["OTEL_EXPORTER_OTLP_TIMEOUT", "soon"],
        ["OTEL_EXPORTER_OTLP_TIMEOUT", "-5"],
        ["OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"],
        ["OTEL_EXPORTER_OTLP_HEADERS", "s3cret"],
        ["OTEL_RESOURCE_ATTRIBUTES", "a=%zz"]
      ] as const) {
        const error = yield* Effect.flip(environment({ [name]: value }))
        assert.include(String(error), name)
        assert.include(String(error), "expected")
        assert.notInclude(String(error), "s3cret")
      }
    })
  )

  it.scopedLive("switch everything off with OTEL_SDK_DISABLED", () =>
    Effect.gen(function* () {
      const receiver = yield* OtlpReceiver.make()
      yield* Effect.provide(span("unseen"), Telemetry.layerOtlpEnv).pipe(
        Effect.withConfigProvider(
          ConfigProvider.fromMap(
            new Map([
              ["OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url],
              ["OTEL_SDK_DISABLED", "true"]
            ])
          )
        )
      )
      assert.isEmpty(yield* receiver.received)
    })
  )
})
