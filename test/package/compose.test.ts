import { spawnSync } from "node:child_process"
import { existsSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"

const root = new URL("../../", import.meta.url)
const file = fileURLToPath(new URL("docker-compose.yml", root))
const text = readFileSync(file, "utf8")
const settings = Object.fromEntries(
  Array.from(text.matchAll(/^ +- --(\w+)=(.+)$/gm), ([, name, value]) => [name!, value!])
)

layer(EmbeddedPostgres.layer({ settings }), { excludeTestServices: true, timeout: "60 seconds" })(
  "docker-compose.yml's settings",
  (it) => {
    it.effect("are taken by a server of the same major version, and mean what is recommended", () =>
      Effect.gen(function* () {
        const server = yield* EmbeddedPostgres.EmbeddedPostgres
        const rows = yield* server.query<{ name: string; value: string }>(
          "SELECT name, current_setting(name) AS value FROM pg_settings WHERE name = ANY ($1) ORDER BY name",
          [Object.keys(settings)]
        )
        assert.deepStrictEqual(Object.fromEntries(rows.map(({ name, value }) => [name, value])), {
          effective_cache_size: "768MB",
          idle_in_transaction_session_timeout: "30s",
          lock_timeout: "10s",
          log_connections: "on",
          log_disconnections: "on",
          log_lock_waits: "on",
          log_min_duration_statement: "1s",
          max_connections: "40",
          shared_buffers: "256MB",
          statement_timeout: "30s",
          superuser_reserved_connections: "3",
          work_mem: "4MB"
        })
        const [version] = yield* server.query<{ major: number }>(
          "SELECT current_setting('server_version_num')::int / 10000 AS major"
        )
        assert.include(text, `image: postgres:${version?.major}-alpine\n`)
      })
    )
  }
)

const compose = ["docker compose", "docker-compose"].find(
  (command) => spawnSync(`${command} version`, { shell: true, stdio: "ignore" }).status === 0
)

/** The text of each service. */
const services = new Map(
  text
    .slice(text.indexOf("\nservices:\n"), text.indexOf("\nvolumes:\n"))
    .split(/^ {2}(?=[a-z-]+:$)/m)
    .slice(1)
    .map((service) => [service.slice(0, service.indexOf(":")), service] as const)
)

/** Those that watch. */
const watching = ["otel-collector", "prometheus", "grafana", "jaeger"]

/** The file as data, by whatever is there that reads YAML. */
const yaml = [
  "yq -o json .",
  "yq .",
  "python3 -c 'import json, sys, yaml; print(json.dumps(yaml.safe_load(sys.stdin)))'"
].find(
  (command) =>
    spawnSync(command, { shell: true, input: "a: {b: 1}", encoding: "utf8" }).stdout.replace(/\s/g, "") ===
    '{"a":{"b":1}}'
)

describe("docker-compose.yml", () => {
  it("starts PostgreSQL alone, and what watches a program with the profile observability", () => {
    assert.deepStrictEqual([...services.keys()], ["postgres", ...watching])
    for (const [name, service] of services)
      assert.strictEqual(service.includes("\n    profiles: [observability]\n"), name !== "postgres", name)
  })

  it("pins each image to a version, keeps each port on this machine, and gives each volume a name", () => {
    const [, volumes = ""] = text.split("\nvolumes:\n")
    for (const [name, service] of services) {
      assert.match(service, name === "postgres" ? /image: postgres:\d+-alpine\n/ : /image: [\w/-]+:v?\d+\.\d+\.\d+\n/)
      const ports = /^ {4}ports:\n((?: {6}- .*\n)+)/m.exec(service)?.[1] ?? ""
      for (const port of ports.trimEnd().split("\n"))
        assert.match(port, /^ {6}- "127\.0\.0\.1:\$\{\w+:-\d+\}:\d+"$/, name)
      const mounts = /^ {4}volumes:\n((?: {6}.*\n)+)/m.exec(service)?.[1] ?? ""
      for (const [, source] of mounts.matchAll(/^ {6}- ([^:]+):/gm))
        if (source!.startsWith("./")) assert.isTrue(existsSync(new URL(source!, root)), `${name}: ${source}`)
        else assert.match(volumes, new RegExp(`^ {2}${source}:$`, "m"), name)
    }
    const published = Array.from(text.matchAll(/:-(\d+)\}:\d+"$/gm), ([, port]) => port)
    assert.strictEqual(
      new Set([...published, "3000"]).size,
      published.length + 1,
      "one port for each, 3000 for the service"
    )
  })

  it("says of each when it is healthy, but of the collector, whose image has nothing to ask with", () => {
    for (const [name, service] of services)
      assert.strictEqual(service.includes("\n    healthcheck:\n"), name !== "otel-collector", name)
    for (const [, needed] of text.matchAll(/^ {6}([a-z-]+):\n {8}condition: service_healthy$/gm))
      assert.include(services.get(needed!), "\n    healthcheck:\n", needed!)
  })

  it("leads from the service by way of the collector to Prometheus and Jaeger, and from them to Grafana", () => {
    const file = (path: string) => readFileSync(new URL(`examples/observability/${path}`, root), "utf8")
    const collector = file("otel-collector.yaml")
    assert.match(services.get("otel-collector")!, /:-4318\}:4318"/)
    assert.match(collector, /http:\n +endpoint: 0\.0\.0\.0:4318\n/)
    assert.match(collector, /endpoint: jaeger:4317\n/)
    const [, exported] = /prometheus:\n +endpoint: 0\.0\.0\.0:(\d+)\n/.exec(collector)!
    assert.include(file("prometheus.yml"), `targets: ["otel-collector:${exported}"]`)
    assert.match(
      file("prometheus.yml"),
      /metrics_path: \/health\/metrics\n[\s\S]*targets: \["host\.docker\.internal:3000"\]/
    )
    assert.include(services.get("prometheus")!, "host.docker.internal:host-gateway")
    const sources = file("grafana/provisioning/datasources/prometheus.yml")
    assert.include(sources, "url: http://prometheus:9090\n")
    assert.include(sources, "url: http://jaeger:16686\n")
    const [, path] = /path: (\S+)\n/.exec(file("grafana/provisioning/dashboards/files.yml"))!
    assert.include(services.get("grafana")!, `./examples/observability/grafana/dashboards:${path}:ro\n`)
  })

  it.skipIf(yaml === undefined)("is YAML, like all that it mounts (skipped where nothing reads that)", () => {
    const files = Array.from(text.matchAll(/^ {6}- (\.\/[^\s:]+\.ya?ml):/gm), ([, path]) => path!)
    for (const path of ["docker-compose.yml", ...files]) {
      const { status, stderr } = spawnSync(yaml!, {
        shell: true,
        input: readFileSync(new URL(path, root)),
        encoding: "utf8"
      })
      assert.strictEqual(status, 0, `${path}: ${stderr}`)
    }
    assert.lengthOf(files, 3)
  })

  it("keeps the data in a volume, the port on this machine and to be chosen, and says when the server is ready", () => {
    assert.match(text, /- "127\.0\.0\.1:\$\{POSTGRES_PORT:-5432\}:5432"/)
    assert.match(text, /- data:\/var\/lib\/postgresql\n[\s\S]*^volumes:\n {2}data:/m)
    assert.match(text, /healthcheck:\n[\s\S]*"pg_isready"/)
  })

  it.skipIf(compose === undefined)("is understood by Docker Compose (skipped where that is not installed)", () => {
    const { status, stderr, stdout } = spawnSync(
      `${compose} --file "${file}" --profile observability config --format json`,
      {
        shell: true,
        encoding: "utf8",
        env: { ...process.env, POSTGRES_PORT: "15432" }
      }
    )
    assert.strictEqual(status, 0, stderr)
    const { postgres, ...others } = JSON.parse(stdout).services
    assert.sameMembers(Object.keys(others), watching)
    assert.strictEqual(postgres.ports[0].published, "15432")
    assert.strictEqual(postgres.command.length, Object.keys(settings).length + 1)
  })
})
