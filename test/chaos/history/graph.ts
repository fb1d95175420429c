/** Who must come before whom: a graph of transactions, in columns, as a hundred thousand of them have a million edges. */

/**
 * `ww`: wrote the version before; `wr`: wrote what the other read; `rw`: read what the other replaced; `rt`: had ended
 * before the other began. Each a bit, so that several make a mask.
 */
export const dependencies = { ww: 1, wr: 2, rw: 4, rt: 8 } as const

export type Dependency = keyof typeof dependencies

export interface Edge {
  readonly from: number
  readonly to: number
  readonly dependency: Dependency
  readonly object: "list" | "register" | "time"
  readonly number: number
  readonly value: number
}

/** Edges by the node that they leave: those of `n` are `edges[starts[n]]` to `edges[starts[n + 1] - 1]`. */
export interface Adjacency {
  readonly nodes: number
  readonly starts: Int32Array
  readonly edges: Int32Array
  readonly from: ReadonlyArray<number>
  readonly to: ReadonlyArray<number>
  /** The edge's dependency as a bit. */
  readonly bit: ReadonlyArray<number>
}

export class Graph {
  readonly #from: Array<number> = []
  readonly #to: Array<number> = []
  readonly #bit: Array<number> = []
  readonly #object: Array<Edge["object"]> = []
  readonly #number: Array<number> = []
  readonly #value: Array<number> = []
  #nodes = 0

  /** An edge from a node to itself says nothing, and is left out. */
  add(from: number, to: number, dependency: Dependency, object: Edge["object"], number: number, value: number): void {
    if (from === to) return
    this.#nodes = Math.max(this.#nodes, from + 1, to + 1)
    this.#from.push(from)
    this.#to.push(to)
    this.#bit.push(dependencies[dependency])
    this.#object.push(object)
    this.#number.push(number)
    this.#value.push(value)
  }

  edge(index: number): Edge {
    const bit = this.#bit[index]
    return {
      from: this.#from[index]!,
      to: this.#to[index]!,
      dependency: bit === 1 ? "ww" : bit === 2 ? "wr" : bit === 4 ? "rw" : "rt",
      object: this.#object[index]!,
      number: this.#number[index]!,
      value: this.#value[index]!
    }
  }

  /** Without the edges from and to the nodes that are left out. */
  adjacency(leftOut: (node: number) => boolean): Adjacency {
    const kept = this.#from.flatMap((from, edge) => (leftOut(from) || leftOut(this.#to[edge]!) ? [] : [edge]))
    const starts = new Int32Array(this.#nodes + 1)
    for (const edge of kept) starts[this.#from[edge]! + 1]!++
    for (let n = 0; n < this.#nodes; n++) starts[n + 1]! += starts[n]!
    const next = starts.slice()
    const edges = new Int32Array(kept.length)
    for (const edge of kept) edges[next[this.#from[edge]!]!++] = edge
    return { nodes: this.#nodes, starts, edges, from: this.#from, to: this.#to, bit: this.#bit }
  }
}
