/** How programs test their own failure handling: a server that can be broken, and a network that can. */

/** A real PostgreSQL server that can be stopped, crashed, paused and restarted on the same data. */
export * as EmbeddedPostgres from "./EmbeddedPostgres.js"

/** A TCP proxy that fails as networks fail, at the byte or message that a test chooses. */
export * as FaultProxy from "./FaultProxy.js"
