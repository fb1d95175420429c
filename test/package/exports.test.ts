import { existsSync, readdirSync, readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { assert, describe, it } from "@effect/vitest"

const root = new URL("../../", import.meta.url)
const read = (path: string) => readFileSync(new URL(path, root), "utf8")

interface Manifest {
  readonly exports: Record<string, string | { readonly types: string; readonly default: string }>
  readonly files: ReadonlyArray<string>
}

const manifest: Manifest = JSON.parse(read("package.json"))

/** `./CircuitBreaker` to `policy/CircuitBreaker`, for every import path that leads to code. */
const modules = new Map(
  Object.entries(manifest.exports).flatMap(([path, target]) =>
    typeof target === "string" ? [] : [[path, target.default.replace(/^\.\/dist\/(.*)\.js$/, "$1")] as const]
  )
)

/** `CircuitBreaker` to `policy/CircuitBreaker`, for every namespace of the barrel. */
const namespaces = new Map(
  Array.from(read("src/index.ts").matchAll(/^export \* as (\w+) from "\.\/(.*)\.js"$/gm), ([, name, file]) => [
    name!,
    file!
  ])
)

const sources = readdirSync(new URL("src/", root), { recursive: true, encoding: "utf8" })
  .map((path) => path.replaceAll("\\", "/"))
  .filter((path) => path.endsWith(".ts"))
  .map((path) => path.slice(0, -".ts".length))

describe("the package's exports", () => {
  it("lead to a source file each, by types and by code", () => {
    for (const [path, file] of modules) {
      assert.deepStrictEqual(manifest.exports[path], { types: `./dist/${file}.d.ts`, default: `./dist/${file}.js` })
      assert.include(sources, file, `${path} has no source`)
    }
  })

  it("are named as their files are", () => {
    for (const [path, file] of modules) {
      const name = file.endsWith("/index") ? file.split("/").at(-2) : file.split("/").at(-1)
      assert.strictEqual(path, path === "." ? "." : `./${name}`)
    }
  })

  it("are what the barrel exports, `testing` apart, so that no program pulls in a server by accident", () => {
    const expected = Array.from(modules).filter(([path]) => path !== "." && path !== "./testing")
    assert.deepStrictEqual(
      Array.from(namespaces, ([name, file]) => [`./${name}`, file]).sort(),
      expected.map((entry) => [...entry]).sort()
    )
  })

  it("keep internal modules closed", () => {
    const internal = sources.filter((file) => file.includes("/internal/"))
    assert.isNotEmpty(internal)
    assert.isFalse(Object.keys(manifest.exports).some((path) => path.includes("*") || path.includes("internal")))
    for (const file of internal) assert.notInclude(Array.from(modules.values()), file)
  })

  it("are in the packed files, sources included, because the declaration maps lead there, but those of the page, where none leads", () => {
    assert.sameMembers([...manifest.files], ["dist", "src", "!src/http/dashboard"])
    assert.isTrue(existsSync(new URL("LICENSE", root)))
  })

  it("are found under the package's own name in development, each from its source", async () => {
    for (const [path, file] of modules) {
      const byName: object = await import(path.replace(".", "effect-pg-resilience"))
      const bySource: object = await import(fileURLToPath(new URL(`src/${file}.ts`, root)))
      assert.isNotEmpty(Object.keys(byName))
      assert.strictEqual(byName, bySource, path)
    }
  })
})

describe("package-lock.json", () => {
  interface Locked {
    readonly version?: string
    readonly optionalDependencies?: Record<string, string>
  }
  const packages: Record<string, Locked> = JSON.parse(read("package-lock.json")).packages

  it("names no registry, so that any may serve the install", () => {
    assert.notMatch(read("package-lock.json"), /"resolved": "https?:/)
  })

  it("has the binaries of every platform, without which `npm ci` refuses it, on this platform too", () => {
    for (const [folder, { optionalDependencies = {} }] of Object.entries(packages)) {
      for (const [name, version] of Object.entries(optionalDependencies)) {
        const entry = packages[`${folder}/node_modules/${name}`] ?? packages[`node_modules/${name}`]
        assert.isDefined(entry?.version, `${folder} asks for ${name}@${version}`)
      }
    }
  })
})
