import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { defineConfig } from "vitest/config"

interface Manifest {
  readonly exports: Record<string, string | { readonly default: string }>
}

const manifest: Manifest = JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8"))

/** The package under its own name, every path that it exports, from the sources instead of from the build. */
const self = Object.entries(manifest.exports).flatMap(([path, target]) =>
  typeof target === "string"
    ? []
    : [
        {
          find: new RegExp(`^${path.replace(".", "effect-pg-resilience")}$`),
          replacement: fileURLToPath(
            new URL(target.default.replace("./dist/", "./src/").replace(/js$/, "ts"), import.meta.url)
          )
        }
      ]
)

/** Files that need no server and leave nothing behind: they share processes, as loading the modules takes longer than they do. */
const pure = ["test/{policy,config,error,health}/**/*.test.ts", "test/**/*.pure.test.ts"]
const live = ["test/**/*.live.test.ts"]
/** Programs that are started and ended, browsers, minutes of trouble, servers that are destroyed: `npm run test:long`. */
const long = ["test/**/*.long.test.ts"]

export default defineConfig({
  resolve: { alias: self },
  test: {
    projects: [
      { extends: true, test: { name: "pure", include: pure, exclude: [...live, ...long], isolate: false } },
      { extends: true, test: { name: "server", include: ["test/**/*.test.ts"], exclude: [...pure, ...live, ...long] } },
      { extends: true, test: { name: "live", include: live } },
      { extends: true, test: { name: "long", include: long } }
    ],
    // Each file starts at most two PostgreSQL servers, and mostly waits for them: three files at a time suit two cores.
    maxWorkers: 3,
    minWorkers: 1,
    testTimeout: 120_000,
    hookTimeout: 120_000,
    retry: 0
  }
})
