/**
 * Makes src/http/internal/dashboard.ts out of src/http/dashboard: one page with everything inside, as a string, and the
 * policy that lets a browser run just that. `npm run dashboard` writes it; test/http/dashboard.test.ts proves it current.
 */
import { createHash } from "node:crypto"
import { readFileSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import * as esbuild from "esbuild"
import { root } from "./root.js"

const sources = join(root, "src", "http", "dashboard")

export const target = join(root, "src", "http", "internal", "dashboard.ts")

const options: esbuild.BuildOptions & { readonly write: false } = {
  bundle: true,
  minify: true,
  write: false,
  legalComments: "none",
  charset: "utf8",
  target: ["chrome109", "firefox115", "safari16"]
}

const bundled = async (file: string): Promise<string> => {
  const { outputFiles } = await esbuild.build({
    ...options,
    entryPoints: [join(sources, file)],
    format: "iife",
    // Nothing of the machine's own settings may show in what is checked in.
    tsconfigRaw: {}
  })
  const text = outputFiles[0]!.text.trim()
  if (/<\/(?:script|style)|<!--/i.test(text)) throw new Error(`${file} would end its own element`)
  return text
}

const hash = (text: string) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`

const literal = (text: string) => `\`${text.replace(/[\\`]|\$\{/g, "\\$&")}\``

/** The generated module's text. */
export const generate = async (): Promise<string> => {
  const [script, style] = await Promise.all([bundled("client.ts"), bundled("style.css")])
  const html = readFileSync(join(sources, "page.html"), "utf8")
    .replaceAll(/<!-- biome-ignore .*? -->\n/g, "")
    .replace("<!-- style -->", () => `<style>${style}</style>`)
    .replace("<!-- script -->", () => `<script>${script}</script>`)
  const policy = [
    "default-src 'none'",
    "connect-src 'self'",
    `script-src ${hash(script)}`,
    `style-src ${hash(style)}`,
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'"
  ].join("; ")
  return `/** The dashboard. Made by \`npm run dashboard\` from src/http/dashboard; changes belong there. */

/** What a browser may do with the page: run its own script and style, and listen to the server that it came from. */
export const contentSecurityPolicy: string =
  ${JSON.stringify(policy)}

/** The page, whole: it asks for nothing but \`events\` beside its own URL. */
export const html: string = ${literal(html)}
`
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) writeFileSync(target, await generate())
