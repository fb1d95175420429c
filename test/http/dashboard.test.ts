/** The page as it is published: made from its sources, whole, and allowed nothing but what it holds. */
import { createHash } from "node:crypto"
import { readFileSync } from "node:fs"
import { assert, describe, it } from "@effect/vitest"
import { contentSecurityPolicy, html } from "../../src/http/internal/dashboard.js"
import * as dashboard from "../support/dashboard.js"

const inside = (name: string) => {
  const found = [...html.matchAll(new RegExp(`<${name}>(.*?)</${name}>`, "gs"))].map(([, text]) => text!)
  assert.lengthOf(found, 1, `one <${name}>`)
  return found[0]!
}

describe("the dashboard's page", () => {
  it("is what its sources make; `npm run dashboard` writes it anew", async () => {
    assert.strictEqual(readFileSync(dashboard.target, "utf8"), await dashboard.generate())
  })

  it("has a policy that names its own script and style, and lets in nothing else", () => {
    const directives = new Map(
      contentSecurityPolicy.split("; ").map((directive) => {
        const [name, ...values] = directive.split(" ")
        return [name!, values.join(" ")]
      })
    )
    const hash = (text: string) => `'sha256-${createHash("sha256").update(text).digest("base64")}'`
    assert.deepStrictEqual(
      directives,
      new Map([
        ["default-src", "'none'"],
        ["connect-src", "'self'"],
        ["script-src", hash(inside("script"))],
        ["style-src", hash(inside("style"))],
        ["img-src", "data:"],
        ["base-uri", "'none'"],
        ["form-action", "'none'"],
        ["frame-ancestors", "'none'"]
      ])
    )
  })

  it("asks for nothing from elsewhere, and has no attribute that runs or styles", () => {
    const addresses = [...html.matchAll(/(?:https?:)?\/\/[a-z0-9.-]+\.[a-z]+[^"'` ]*/gi)].map(([address]) => address)
    assert.sameMembers([...new Set(addresses)], ["http://www.w3.org/2000/svg"])
    const markup = html.replace(/<(script|style)>.*?<\/\1>/gs, "")
    assert.notMatch(markup, /<[^>]*\s(?:on\w+|style|src|srcset)=/i)
    assert.deepStrictEqual(
      [...markup.matchAll(/\shref="([^"]*)"/g)].map(([, href]) => href!).filter((href) => !/^(?:#|data:)/.test(href)),
      ["health", "report", "metrics"]
    )
  })

  it("puts nothing that it was told into markup", () => {
    assert.notMatch(inside("script"), /innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment/)
  })
})
