import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it, layer } from "@effect/vitest"
import { Effect } from "effect"
import { EmbeddedPostgres } from "effect-pg-resilience/testing"

const file = fileURLToPath(new URL("../../docker-compose.yml", import.meta.url))
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

describe("docker-compose.yml", () => {
  it("keeps the data in a volume, the port on this machine and to be chosen, and says when the server is ready", () => {
    assert.match(text, /- "127\.0\.0\.1:\$\{POSTGRES_PORT:-5432\}:5432"/)
    assert.match(text, /- data:\/var\/lib\/postgresql\n[\s\S]*^volumes:\n {2}data:/m)
    assert.match(text, /healthcheck:\n[\s\S]*"pg_isready"/)
  })

  it.skipIf(compose === undefined)("is understood by Docker Compose (skipped where that is not installed)", () => {
    const { status, stderr, stdout } = spawnSync(`${compose} --file "${file}" config --format json`, {
      shell: true,
      encoding: "utf8",
      env: { ...process.env, POSTGRES_PORT: "15432" }
    })
    assert.strictEqual(status, 0, stderr)
    const { postgres } = JSON.parse(stdout).services
    assert.strictEqual(postgres.ports[0].published, "15432")
    assert.strictEqual(postgres.command.length, Object.keys(settings).length + 1)
  })
})
