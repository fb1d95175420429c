/**
 * A queue that anybody may leave. Joining, leaving and being next take constant time on average, and what has left is referred
 * to by nothing here: a `Set` would do, but for the tables that it leaves behind at every turn, each of which keeps the next
 * one alive until the garbage collector's long round.
 */

/** A place in the line. */
export interface Place<A> {
  value: A | undefined
}

export class Line<A> {
  private places: Array<Place<A> | undefined> = []
  private head = 0
  /** Those in the line. */
  size = 0

  join(value: A): Place<A> {
    const place = { value }
    this.places.push(place)
    this.size++
    return place
  }

  /** Of no effect on one that has left. */
  leave(place: Place<A>): void {
    if (place.value === undefined) return
    place.value = undefined
    this.size--
    if (this.places.length - this.head > 2 * this.size + 16) this.compact()
  }

  /** Takes whoever came first. */
  next(): A | undefined {
    while (this.head < this.places.length) {
      const place = this.places[this.head]!
      this.places[this.head++] = undefined
      const { value } = place
      if (value === undefined) continue
      place.value = undefined
      this.size--
      if (this.head > 32 && this.head * 2 > this.places.length) this.compact()
      return value
    }
    this.compact()
    return undefined
  }

  /** Whoever came first. */
  first(): A | undefined {
    for (let i = this.head; i < this.places.length; i++) {
      const value = this.places[i]?.value
      if (value !== undefined) return value
    }
    return undefined
  }

  /** Whoever came first among those that qualify. */
  find(qualifies: (value: A) => boolean): A | undefined {
    for (let i = this.head; i < this.places.length; i++) {
      const value = this.places[i]?.value
      if (value !== undefined && qualifies(value)) return value
    }
    return undefined
  }

  /** Takes whoever came first among those that qualify. */
  remove(qualifies: (value: A) => boolean): A | undefined {
    for (let i = this.head; i < this.places.length; i++) {
      const place = this.places[i]
      const value = place?.value
      if (place === undefined || value === undefined || !qualifies(value)) continue
      this.leave(place)
      return value
    }
    return undefined
  }

  private compact(): void {
    this.places = this.places.slice(this.head).filter((place) => place?.value !== undefined)
    this.head = 0
  }
}
