/** A tracer whose spans keep nothing, and tell of all that is said to them. */
import { type Exit, Tracer } from "effect"

export interface Told {
  readonly started?: (span: string) => void
  readonly attribute: (span: string, key: string, value: unknown) => void
  readonly event: (span: string, name: string, attributes: Record<string, unknown>) => void
  readonly ended: (span: string, exit: Exit.Exit<unknown, unknown>) => void
}

export const telling = ({ attribute, ended, event, started = () => {} }: Told): Tracer.Tracer =>
  Tracer.make({
    span: (name, parent, context, links, startTime, kind) => {
      started(name)
      return {
        _tag: "Span",
        name,
        spanId: "span",
        traceId: "trace",
        parent,
        context,
        links,
        kind,
        sampled: true,
        status: { _tag: "Started", startTime },
        attributes: new Map(),
        attribute: (key, value) => attribute(name, key, value),
        event: (what, _, attributes = {}) => event(name, what, attributes),
        addLinks: () => {},
        end: (_, exit) => ended(name, exit)
      }
    },
    context: (run) => run()
  })
