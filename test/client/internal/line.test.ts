import { assert, describe, it } from "@effect/vitest"
import { FastCheck as fc } from "effect"
import { Line, type Place } from "../../../src/client/internal/line.js"

type Step =
  | { readonly do: "join" }
  | { readonly do: "next" }
  | { readonly do: "leave" | "remove"; readonly who: number }

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 4, arbitrary: fc.constant({ do: "join" } as const) },
  { weight: 2, arbitrary: fc.constant({ do: "next" } as const) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("leave" as const), who: fc.nat(200) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("remove" as const), who: fc.nat(200) }) }
)

/** Anything but undefined. */
interface Guest {
  readonly name: number
}

describe("Line", () => {
  it("is an array that anybody may leave", () => {
    fc.assert(
      fc.property(fc.array(step, { maxLength: 400 }), (steps) => {
        const line = new Line<Guest>()
        const places: Array<Place<Guest>> = []
        let model: Array<number> = []
        for (const step of steps) {
          if (step.do === "join") {
            model.push(places.length)
            places.push(line.join({ name: places.length }))
          } else if (step.do === "next") {
            assert.strictEqual(line.next()?.name, model.shift())
          } else if (step.do === "leave") {
            const place = places[step.who]
            if (place !== undefined) line.leave(place)
            model = model.filter((name) => name !== step.who)
          } else {
            const qualifies = (name: number) => name % 3 === step.who % 3
            assert.strictEqual(line.find(({ name }) => qualifies(name))?.name, model.find(qualifies))
            const first = model.find(qualifies)
            assert.strictEqual(line.remove(({ name }) => qualifies(name))?.name, first)
            model = model.filter((name) => name !== first)
          }
          assert.strictEqual(line.size, model.length)
        }
        for (const name of model) assert.strictEqual(line.next()?.name, name)
        assert.isUndefined(line.next())
      })
    )
  })

  it("takes whoever comes during its emptying to the end", () => {
    const line = new Line<Guest>()
    for (let name = 0; name < 100; name++) line.join({ name })
    for (let name = 0; name < 1_000; name++) {
      assert.strictEqual(line.next()?.name, name)
      line.join({ name: name + 100 })
    }
    assert.strictEqual(line.size, 100)
  })
})
