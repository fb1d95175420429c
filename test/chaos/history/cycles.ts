/**
 * Cycles of dependencies, each of which says that its transactions have no serial order. Kinds as in Adya's thesis (MIT,
 * 1999): G0 of `ww` alone, G1c with a `wr`, G-single with one `rw`, G2 with more.
 */
import type { Kind } from "./findings.js"
import { type Adjacency, dependencies, type Edge, type Graph } from "./graph.js"

export interface Cycle {
  readonly kind: Extract<Kind, "G0" | "G1c" | "G-single" | "G2" | "real time">
  readonly edges: ReadonlyArray<Edge>
}

/** Edges of one component from which a cycle is looked for at most; beyond them a G-single may be called G2. */
const attempts = 500

interface Components {
  /** The group of each node, -2 for one that is alone. */
  readonly of: Int32Array
  readonly groups: ReadonlyArray<ReadonlyArray<number>>
}

/** Strongly connected components of more than one node. Source: Tarjan (1972), with a stack in the place of recursion. */
const componentsOf = ({ bit, edges, nodes, starts, to }: Adjacency, mask: number): Components => {
  const order = new Int32Array(nodes)
  const low = new Int32Array(nodes)
  const of = new Int32Array(nodes).fill(-1)
  const cursor = starts.slice(0, nodes)
  const open: Array<number> = []
  const path: Array<number> = []
  const groups: Array<ReadonlyArray<number>> = []
  let time = 0
  const enter = (node: number) => {
    order[node] = low[node] = ++time
    open.push(node)
    path.push(node)
  }
  for (let root = 0; root < nodes; root++) {
    if (order[root] === 0) enter(root)
    while (path.length > 0) {
      const node = path[path.length - 1]!
      if (cursor[node]! < starts[node + 1]!) {
        const edge = edges[cursor[node]!++]!
        if ((bit[edge]! & mask) === 0) continue
        const target = to[edge]!
        if (order[target] === 0) enter(target)
        else if (of[target] === -1) low[node] = Math.min(low[node]!, order[target]!)
        continue
      }
      path.pop()
      const above = path[path.length - 1]
      if (above !== undefined) low[above] = Math.min(low[above]!, low[node]!)
      if (low[node] !== order[node]) continue
      const group = open.splice(open.lastIndexOf(node))
      for (const member of group) of[member] = group.length > 1 ? groups.length : -2
      if (group.length > 1) groups.push(group)
    }
  }
  return { of, groups }
}

/** A shortest way from one node to another over edges of the mask within their component. */
const wayWithin = ({ bit, edges, from, nodes, starts, to }: Adjacency) => {
  const seen = new Int32Array(nodes)
  const via = new Int32Array(nodes)
  let search = 0
  return (start: number, target: number, mask: number, { of }: Components): ReadonlyArray<number> | undefined => {
    search++
    seen[start] = search
    for (let frontier = [start]; frontier.length > 0; ) {
      const next: Array<number> = []
      for (const node of frontier) {
        for (let at = starts[node]!; at < starts[node + 1]!; at++) {
          const edge = edges[at]!
          const end = to[edge]!
          if ((bit[edge]! & mask) === 0 || seen[end] === search || of[end] !== of[start]) continue
          seen[end] = search
          via[end] = edge
          next.push(end)
          if (end !== target) continue
          const way: Array<number> = []
          for (let node = target; node !== start; node = from[via[node]!]!) way.push(via[node]!)
          return way.reverse()
        }
      }
      frontier = next
    }
    return undefined
  }
}

/**
 * A cycle for every group of transactions that depend on one another, and one of each kind where there are several; those
 * that only real time closes are looked for when there are no others. Time and memory grow with the edges.
 */
export const find = (graph: Graph, leftOut: (node: number) => boolean): ReadonlyArray<Cycle> => {
  const adjacency = graph.adjacency(leftOut)
  const { bit, edges, starts, to } = adjacency
  const way = wayWithin(adjacency)
  /** A cycle through one edge of a dependency, the rest of it within a mask. */
  const through = (components: Components, group: ReadonlyArray<number>, one: number, rest: number) => {
    let left = attempts
    for (const node of group) {
      for (let at = starts[node]!; at < starts[node + 1]! && left > 0; at++) {
        const edge = edges[at]!
        if (bit[edge] !== one || components.of[to[edge]!] !== components.of[node]) continue
        left--
        const back = way(to[edge]!, node, rest, components)
        if (back) return [edge, ...back].map((edge) => graph.edge(edge))
      }
    }
    return undefined
  }
  const { rt, rw, wr, ww } = dependencies
  const search = (mask: number, kinds: ReadonlyArray<readonly [Cycle["kind"], one: number, rest: number]>) => {
    const components = componentsOf(adjacency, mask)
    return components.groups.flatMap((group): ReadonlyArray<Cycle> => {
      for (const [kind, one, rest] of kinds) {
        const edges = through(components, group, one, rest)
        if (edges) return [{ kind, edges }]
      }
      return []
    })
  }
  const all = ww | wr | rw
  const found = [
    ...search(ww, [["G0", ww, ww]]),
    ...search(ww | wr, [["G1c", wr, ww | wr]]),
    ...search(all, [
      ["G-single", rw, ww | wr],
      ["G2", rw, all]
    ])
  ]
  return found.length > 0 ? found : search(all | rt, [["real time", rt, all | rt]])
}
