/** Every example, run as a reader would run it: a process of its own, ending by itself. */
import { spawn } from "node:child_process"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import {
  ATTEMPT_DELAY,
  ATTEMPT_FAILED,
  ATTEMPT_NUMBER,
  ERROR_TYPE,
  RESPONSE_STATUS_CODE
} from "../../src/telemetry/names.js"
import * as OtlpReceiver from "../support/OtlpReceiver.js"
import { root } from "../support/root.js"

/** What it wrote, once it has ended with 0. */
const output = (example: string, environment: Record<string, string> = {}) =>
  Effect.async<string>((resume) => {
    let written = ""
    const { DATABASE_URL: _, ...env } = process.env
    const child = spawn(process.execPath, ["--import", "tsx", Path.join(root, "examples", `${example}.ts`)], {
      cwd: root,
      env: { ...env, ...environment, NO_COLOR: "1" },
      stdio: ["ignore", "pipe", "pipe"]
    })
    child.stdout.on("data", (chunk) => (written += chunk))
    child.stderr.on("data", (chunk) => (written += chunk))
    child.on("close", (code) =>
      resume(code === 0 ? Effect.succeed(written) : Effect.die(new Error(`${example} ended with ${code}:\n${written}`)))
    )
    return Effect.sync(() => child.kill("SIGKILL"))
  })

describe("examples", () => {
  it.live("quickstart reads what it wrote", () =>
    Effect.map(output("quickstart"), (written) => assert.include(written, "Hallo, Hello"))
  )

  it.live("typed-errors tells the program's own failures apart", () =>
    Effect.map(output("typed-errors"), (written) => {
      assert.match(written, /registered[\s\S]*taken \(users_pkey\)[\s\S]*SqlSyntaxError 42P01 NotApplied/)
    })
  )

  it.live("transactions are all or nothing, and repeated when they meet", () =>
    Effect.map(output("transactions"), (written) => {
      assert.match(written, /after three transfers at once: 40 and 160[\s\S]*not enough money/)
      assert.match(written, /the nested one was undone[\s\S]*in the end: 45 and 160/)
    })
  )

  it.live("exactly-once pays once, whatever becomes of the answers", () =>
    Effect.map(output("exactly-once"), (written) => {
      assert.match(written, /plain: OutcomeUnknownError, 1 payment stored[\s\S]*exactly once: payment 2 of 2/)
      assert.match(written, /once: payment 3, again 3, 3 stored[\s\S]*for other work: IdempotencyKeyReusedError/)
    })
  )

  it.live("custom-policy forces the breaker and sets a limit of the server", () =>
    Effect.map(output("custom-policy"), (written) => {
      assert.match(written, /CircuitOpenError[\s\S]*lock_timeout is 1s[\s\S]*of at most 4 connections idle/)
    })
  )

  it.live("migrations are applied once by three starts, undone and applied again", () =>
    Effect.map(output("migrations"), (written) => {
      assert.match(written, /lower_emails: 2 statements, the first: UPDATE accounts SET email = lower\(email\)/)
      assert.match(written, /three starts: up 1_accounts, up 2_lower_emails, up 3_email_index\n/)
      assert.match(written, /ada@example\.com and grace[\s\S]*undone: down 3_email_index, down 2_lower_emails\n/)
      assert.match(written, /again: up 2_lower_emails, up 3_email_index\n[\s\S]*3_email_index is applied, matches/)
    })
  )

  it.scopedLive("opentelemetry exports one span per statement, one event per failed attempt, and the metrics", () =>
    Effect.gen(function* () {
      const receiver = yield* OtlpReceiver.make()
      yield* output("opentelemetry", { OTEL_EXPORTER_OTLP_ENDPOINT: receiver.url, OTEL_SERVICE_NAME: "shop" })
      const all = yield* receiver.received
      const spans = all.filter(({ signal }) => signal === "traces").flatMap(OtlpReceiver.spansOf)
      const named = (name: string) => spans.filter((span) => span.name === name)
      const below = (parents: ReadonlyArray<OtlpReceiver.Span>, name: string) =>
        spans.filter((span) => span.name === name && parents.some(({ spanId }) => spanId === span.parentSpanId))

      // three orders: a transaction each, two statements each
      assert.lengthOf(named("shop.order"), 3)
      const transactions = below(named("shop.order"), "sql.transaction")
      assert.lengthOf(transactions, 3)
      assert.lengthOf(below(transactions, "sql.execute"), 6)

      // the read whose backend was terminated: one span, although it took two attempts
      const [read, ...more] = below(named("shop.count"), "sql.execute")
      assert.lengthOf(more, 0)
      assert.deepInclude(read!.attributes, { "db.system.name": "postgresql", "server.address": "127.0.0.1" })
      assert.strictEqual(read!.resource["service.name"], "shop")
      const [failed, ...others] = read!.events.filter(({ name }) => name === ATTEMPT_FAILED)
      assert.lengthOf(others, 0)
      assert.deepInclude(failed!.attributes, {
        [ERROR_TYPE]: "ServerUnavailableError",
        [RESPONSE_STATUS_CODE]: "57P01",
        [ATTEMPT_NUMBER]: 1
      })
      assert.isAtLeast(failed!.attributes[ATTEMPT_DELAY] as number, 0)

      const metrics = all.filter(({ signal }) => signal === "metrics").flatMap(OtlpReceiver.metricsOf)
      const units = new Map(metrics.map(({ name, unit }) => [name, unit]))
      assert.strictEqual(units.get("db.client.operation.duration"), "s")
      assert.strictEqual(units.get("db.client.connection.count"), "{connection}")
      assert.strictEqual(units.get("pgresilience.retry.attempts"), "{retry}")
      const durations = metrics.filter(({ name }) => name === "db.client.operation.duration").at(-1)!
      const operations = durations.points.map(({ attributes }) => attributes["db.operation.name"])
      assert.includeMembers(operations, ["order", "count-slowly"])
      assert.include(
        durations.points.map(({ attributes }) => attributes["error.type"]),
        "ServerUnavailableError"
      )
    })
  )
})
