import { OpenApi } from "@effect/platform"
import { api } from "../../src/http/HealthApi.js"

/** The paths of the health API, as its document has them. */
export const endpointTable = (): string =>
  [
    "| path | answers | |",
    "| --- | --- | --- |",
    ...Object.entries(OpenApi.fromApi(api).paths).flatMap(([path, item]) =>
      Object.entries(item).map(([method, { description, responses, summary }]) => {
        // Nothing is asked of those who only read that could be malformed.
        const statuses = Object.keys(responses).filter((status) => method !== "get" || status !== "400")
        return `| \`${method.toUpperCase()} ${path}\` | ${statuses.join(", ")} | ${summary}${/[.?!]$/.test(summary ?? "") ? "" : "."} ${description} |`.replace(
          "?:",
          "?"
        )
      })
    )
  ].join("\n")
