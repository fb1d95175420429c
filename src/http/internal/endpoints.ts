/** The paths of the health API and what is said at them. For its handlers, its OpenAPI document and its clients. */
import * as HttpApi from "@effect/platform/HttpApi"
import * as HttpApiEndpoint from "@effect/platform/HttpApiEndpoint"
import * as HttpApiGroup from "@effect/platform/HttpApiGroup"
import * as HttpApiSchema from "@effect/platform/HttpApiSchema"
import * as OpenApi from "@effect/platform/OpenApi"
import * as Schema from "effect/Schema"
import * as Prometheus from "../../telemetry/Prometheus.js"
import * as admin from "./admin.js"
import * as answers from "./answers.js"

const told = (summary: string, description: string) => OpenApi.annotations({ summary, description })

export const health = HttpApiGroup.make("health")
  .add(
    HttpApiEndpoint.get("health", "/health")
      .addSuccess(answers.Health)
      .addError(answers.Unhealthy)
      .annotateContext(
        told("Is the database well?", "By the latest health check: 503 where it failed or the status is unhealthy.")
      )
  )
  .add(
    HttpApiEndpoint.get("live", "/health/live")
      .addSuccess(answers.Live)
      .annotateContext(
        told("Is the program there?", "Always 200: it asks no database. For the probe that restarts a program.")
      )
  )
  .add(
    HttpApiEndpoint.get("ready", "/health/ready")
      .addSuccess(answers.Ready)
      .addError(answers.NotReady)
      .annotateContext(
        told(
          "Can the program serve?",
          "Follows the latest health check. For the probe that takes a program out of rotation."
        )
      )
  )
  .add(
    HttpApiEndpoint.get("metrics", "/health/metrics")
      .addSuccess(HttpApiSchema.Text({ contentType: Prometheus.contentType }))
      .annotateContext(told("All metrics, for Prometheus", "All that the program measures, out of its memory."))
  )
  .annotateContext(
    OpenApi.annotations({ title: "Health", description: "For load balancers, orchestrators and Prometheus." })
  )

export const resilience = HttpApiGroup.make("resilience")
  .add(
    HttpApiEndpoint.get("metrics", "/resilience/metrics")
      .addSuccess(answers.Metrics)
      .annotateContext(told("The figures of this moment", "Pool, circuit breaker and retry budget; the latest window."))
  )
  .add(
    HttpApiEndpoint.get("health", "/resilience/health")
      .addSuccess(answers.Standing)
      .annotateContext(told("The latest health check, whole", "With what cost how many points, and standing alerts."))
  )
  .add(
    HttpApiEndpoint.get("report", "/resilience/report")
      .addSuccess(answers.Summary)
      .addError(answers.NotAcceptable)
      .annotateContext(
        told(
          "A report",
          "`Accept` decides: `text/plain`, for people, where nothing else is asked for; or `application/json`."
        )
      )
  )
  .add(
    HttpApiEndpoint.get("poolConfig", "/resilience/pool-config")
      .addSuccess(answers.PoolConfig)
      .annotateContext(told("The pool's options", "As they are, as they might be, and why they differ."))
  )
  .add(
    HttpApiEndpoint.get("connectionTest", "/resilience/connection-test")
      .addSuccess(answers.Connection)
      .addError(answers.ConnectionFailed)
      .annotateContext(
        told(
          "Ask the database now",
          "On the connection of the health checks; callers at the same moment share one question."
        )
      )
  )
  .add(
    HttpApiEndpoint.get("events", "/resilience/events")
      .addSuccess(HttpApiSchema.Text({ contentType: "text/event-stream" }))
      .addError(answers.TooManySubscribers)
      .annotateContext(
        told(
          "What happens, as it happens",
          "Server-sent events: `event` is a tag of Message, `data` its JSON. Hello comes first, then a Tick a second, and " +
            "reports, events and notices with it. It does not end by itself."
        )
      )
  )
  .add(
    HttpApiEndpoint.get("dashboard", "/resilience/dashboard")
      .addSuccess(HttpApiSchema.Text({ contentType: "text/html; charset=utf-8" }))
      .annotateContext(told("The dashboard", "One page, without outside assets, that shows the stream of events."))
  )
  .add(
    HttpApiEndpoint.get("openapi", "/resilience/openapi.json")
      .addSuccess(Schema.Unknown)
      .annotateContext(told("This document", "OpenAPI 3.1."))
  )
  .annotateContext(
    OpenApi.annotations({
      title: "Resilience",
      description: "For operators. Names operations, hosts and databases, and no secrets: keep it inside."
    })
  )

/** What may be read. */
export const readable = HttpApi.make("effect-pg-resilience")
  .add(health)
  .add(resilience)
  .annotateContext(
    OpenApi.annotations({
      title: "Health API",
      version: "1",
      description: "How a program's PostgreSQL access is doing. Moments are milliseconds since the epoch."
    })
  )

/** What may be read, and what may be changed by whoever knows the token. */
export const all = readable.add(admin.group)
