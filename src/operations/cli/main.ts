#!/usr/bin/env node
/** The command `effect-pg-resilience`. What it stands on are optional peers: a program that does not use it does without. */
import process from "node:process"

const needed = "@effect/cli @effect/platform-node @effect/printer @effect/printer-ansi"

import("./app.js").then(
  ({ main }) => main(process.argv),
  (error: { readonly code?: string; readonly message?: string }) => {
    if (error.code !== "ERR_MODULE_NOT_FOUND") throw error
    process.stderr.write(
      `The command effect-pg-resilience needs packages that are not installed (${error.message?.split(" imported from ")[0]}). Install them:\n  npm install --save-dev ${needed}\n`
    )
    process.exitCode = 3
  }
)
