import type { Result } from "./loadResult.js"
export const html = (_result: Result, _before?: Result | undefined): string => ""
