/** What the scratch consumer of `check.ts` is made of. */

export interface Manifest {
  readonly name: string
  readonly version: string
  readonly exports?: Record<string, string | Record<string, string>>
  readonly dependencies?: Record<string, string>
  readonly optionalDependencies?: Record<string, string>
  readonly peerDependencies?: Record<string, string>
}

/**
 * As strict as compilers go, and without `skipLibCheck`, so that our declarations are checked as if they were sources; with
 * declarations of its own, so that whatever type of ours it infers must have a public name.
 */
export const tsconfig = JSON.stringify({
  compilerOptions: {
    target: "ES2022",
    lib: ["ES2022"],
    module: "NodeNext",
    moduleResolution: "NodeNext",
    types: ["node"],
    strict: true,
    exactOptionalPropertyTypes: true,
    noUncheckedIndexedAccess: true,
    noUnusedLocals: true,
    verbatimModuleSyntax: true,
    skipLibCheck: false,
    declaration: true,
    rootDir: ".",
    outDir: "out"
  },
  files: ["exports.ts", "program.ts"]
})

/** A program that imports every path, in types and in code, and tries one that must stay closed. */
export const importEveryPath = ({ exports = {}, name }: Manifest): string => {
  const paths = Object.keys(exports)
    .filter((path) => path !== "." && path !== "./package.json")
    .map((path) => path.slice(2))
  return `
import * as barrel from "${name}"
${paths.map((path) => `import * as ${path} from "${name}/${path}"`).join("\n")}

const modules = { ${paths.join(", ")} }
for (const [path, module] of Object.entries(modules)) {
  if (Object.keys(module).length === 0) throw new Error(path + " exports nothing")
  if (path !== "testing" && module !== barrel[path as Exclude<keyof typeof modules, "testing">]) {
    throw new Error(path + " is not what the barrel exports under this name")
  }
}
const closed = ["dist/index.js", "error/PgError", "src/index.ts", "client/internal/Connection"]
for (const path of closed) {
  const code = await import(["${name}", path].join("/")).then(() => "open", (error: { code?: string }) => error.code)
  if (code !== "ERR_PACKAGE_PATH_NOT_EXPORTED") throw new Error(path + " should be closed: " + code)
}
console.log("imported " + Object.keys(modules).length + " paths of ${name} under Node " + process.versions.node)
`
}
