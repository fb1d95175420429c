/** The defaults and the rules of the retry budget's options. */
import * as validate from "../../config/internal/validate.js"

export const defaults = { ratio: 0.2, min: 3 } as const

export const rule = validate.struct({
  ratio: validate.defaulted(validate.number({ max: 1 }), defaults.ratio),
  min: validate.defaulted(validate.integer({ infinity: true }), defaults.min)
})
