/**
 * How many bytes of heap a point read allocates.
 *
 * Node has no counter of what was ever allocated. What it has is the size of the heap before and after each collection
 * (`v8.GCProfiler`), and between a collection's end and the next one's beginning the heap only grows: so the growths from one
 * to the other, with those before the first and after the last, add up to all that was allocated, whether it died or stayed.
 * On objects of known size the sum is right within 3 %. It does not see what lies outside the heap, such as the driver's
 * buffers of network data, which are the same for all that are built on `pg`. Each pass is a fixed number of reads.
 */
import * as V8 from "node:v8"
import { Effect, type Redacted } from "effect"
import { enter, makers } from "./contenders.js"
import { alternate, collect, type Plan, type Tell } from "./rounds.js"
import { grown } from "./statistics.js"
import { connections, pieces } from "./work.js"

const used = () => V8.getHeapStatistics().used_heap_size

/** Bytes that `work` allocates, and in how many collections they were seen. */
export const allocated = async (work: () => Promise<void>) => {
  collect()
  const profiler = new V8.GCProfiler()
  const begin = used()
  profiler.start()
  await work()
  const end = used()
  const collections = profiler.stop().statistics.map(({ afterGC, beforeGC }) => ({
    before: beforeGC.heapStatistics.usedHeapSize,
    after: afterGC.heapStatistics.usedHeapSize
  }))
  return { bytes: grown(begin, collections, end), collections: collections.length }
}

const workers = 20

export const allocation = (url: Redacted.Redacted, plan: Plan, tell: Tell) =>
  Effect.gen(function* () {
    const contenders = yield* enter(makers, { url, connections })
    const count = plan.round * 40
    const rounds = yield* alternate(
      contenders.map(({ name }) => name),
      { rounds: plan.few, warm: Math.min(1, plan.warm) },
      (name) =>
        Effect.promise(async () => {
          const { drive } = contenders.find((_) => _.name === name)!
          const { bytes, collections } = await allocated(() => drive(workers, "read", pieces(count)))
          return { bytes: bytes / count, collections }
        })
    )
    yield* tell({
      id: "allocation",
      title: `Heap allocated for a point read, ${workers} fibers, loopback`,
      figures: ["bytes", "collections"],
      rounds
    })
  })
