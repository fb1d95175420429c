import { Buffer } from "node:buffer"
import * as Crypto from "node:crypto"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Redacted, Scope } from "effect"
import { FaultProxy } from "effect-pg-resilience/testing"
import * as Tcp from "../support/Tcp.js"
import { eventually } from "../support/TestPg.js"

/** A server, a proxy in front of it, and a connection through both. */
const path = Effect.gen(function* () {
  const upstream = yield* Tcp.server
  const proxy = yield* FaultProxy.make({ upstream })
  const connect = Effect.gen(function* () {
    const client = yield* Tcp.connect(proxy.port)
    return { client, server: yield* upstream.next }
  })
  return { upstream, proxy, connect, ...(yield* connect) }
})

const received = (peer: Tcp.Peer, text: string) =>
  eventually(
    Effect.sync(() => peer.received().toString()),
    (seen) => seen === text,
    { message: `not received: ${text}` }
  )
const saw = (peer: Tcp.Peer, event: string) =>
  eventually(
    Effect.sync(() => peer.events),
    (events) => events.includes(event),
    { message: `no ${event}` }
  )
/** Carried both ways by a connection made now: whatever was sent earlier elsewhere has had its turn. */
const roundTrip = ({ client, server }: { readonly client: Tcp.Peer; readonly server: Tcp.Peer }) =>
  Effect.gen(function* () {
    const mark = Crypto.randomUUID()
    const arrived = (peer: Tcp.Peer) =>
      eventually(
        Effect.sync(() => peer.received().includes(mark)),
        (found) => found
      )
    client.socket.write(mark)
    yield* arrived(server)
    server.socket.write(mark)
    yield* arrived(client)
  })
/** A word in one direction only. */
const word = (from: Tcp.Peer, to: Tcp.Peer) =>
  Effect.zipRight(
    Effect.sync(() => from.socket.write("hello")),
    received(to, "hello")
  )
const open = (proxy: typeof FaultProxy.FaultProxy.Service, count: number) =>
  eventually(
    Effect.map(proxy.stats, ({ open }) => open),
    (open) => open === count
  )

describe("FaultProxy", () => {
  it.scopedLive("carries every byte both ways, also when both sides send more than any buffer holds", () =>
    Effect.gen(function* () {
      const { client, proxy, server } = yield* path
      const size = 24 * 1024 * 1024
      const [up, down] = [Crypto.randomBytes(size), Crypto.randomBytes(size)]
      client.socket.write(up)
      server.socket.write(down)
      const full = (peer: Tcp.Peer) =>
        eventually(
          Effect.sync(() => peer.socket.bytesRead),
          (bytes) => bytes === size
        )
      yield* Effect.zipRight(full(client), full(server))
      assert.isTrue(server.received().equals(up))
      assert.isTrue(client.received().equals(down))
      const { bytesToClient, bytesToServer } = yield* proxy.stats
      assert.deepStrictEqual([bytesToServer, bytesToClient], [size, size])
    })
  )

  it.scopedLive("passes FIN on in each direction by itself, and forgets a connection that both sides ended", () =>
    Effect.gen(function* () {
      const { client, proxy, server } = yield* path
      client.socket.end("last words")
      yield* received(server, "last words")
      yield* saw(server, "end")
      server.socket.end("the answer")
      yield* received(client, "the answer")
      yield* saw(client, "close")
      yield* open(proxy, 0)
      assert.deepInclude(yield* proxy.stats, { closed: 1, attempted: 1, total: 1 })
      assert.deepStrictEqual(client.events, ["end", "close"])
    })
  )

  it.scopedLive("passes RST on", () =>
    Effect.gen(function* () {
      const { client, proxy, server } = yield* path
      client.socket.resetAndDestroy()
      yield* saw(server, "ECONNRESET")
      yield* open(proxy, 0)
    })
  )

  it.scopedLive("refuses new connections, keeps old ones, and listens on the same port again", () =>
    Effect.gen(function* () {
      const { connect, proxy, ...old } = yield* path
      yield* proxy.refuse
      assert.strictEqual(yield* Effect.flip(Tcp.connect(proxy.port)), "ECONNREFUSED")
      yield* roundTrip(old)
      yield* proxy.accept
      yield* roundTrip(yield* connect)
      yield* proxy.refuse
      yield* proxy.heal
      yield* roundTrip(yield* connect)
    })
  )

  it.scopedLive("shows a refusing server as a reset connection", () =>
    Effect.gen(function* () {
      const gone = yield* Effect.scoped(Tcp.server)
      const proxy = yield* FaultProxy.make({ upstream: gone })
      const client = yield* Tcp.connect(proxy.port)
      yield* saw(client, "ECONNRESET")
      yield* open(proxy, 0)
      assert.deepInclude(yield* proxy.stats, { attempted: 1, total: 0 })
    })
  )

  it.scopedLive("resets both sides of every connection", () =>
    Effect.gen(function* () {
      const { client, connect, proxy, server } = yield* path
      yield* proxy.reset
      yield* saw(client, "ECONNRESET")
      yield* saw(server, "ECONNRESET")
      yield* roundTrip(yield* connect)
    })
  )

  it.scopedLive("half-closes towards the client, who can still send", () =>
    Effect.gen(function* () {
      const { client, proxy, server } = yield* path
      yield* proxy.halfClose()
      yield* saw(client, "end")
      client.socket.write("still here")
      yield* received(server, "still here")
      assert.deepStrictEqual(server.events, [])
    })
  )

  it.scopedLive("half-closes towards the server, who can still send", () =>
    Effect.gen(function* () {
      const { client, proxy, server } = yield* path
      yield* proxy.halfClose("server")
      yield* saw(server, "end")
      server.socket.write("still here")
      yield* received(client, "still here")
      assert.deepStrictEqual(client.events, [])
    })
  )

  it.scopedLive("black-holes existing connections: no byte, FIN or RST comes through until it is lifted", () =>
    Effect.gen(function* () {
      const { client, connect, proxy, server } = yield* path
      const second = yield* connect
      yield* proxy.blackHole({ existing: true })
      client.socket.end("lost?")
      server.socket.write("lost too?")
      second.client.socket.resetAndDestroy()
      // A connection made later carries bytes there and back, so the proxy had time for the others.
      yield* roundTrip(yield* connect)
      assert.strictEqual(server.received().length + client.received().length, 0)
      assert.deepStrictEqual([client.events, server.events, second.server.events], [[], [], []])
      yield* proxy.heal
      yield* received(server, "lost?")
      yield* received(client, "lost too?")
      yield* saw(server, "end")
      yield* saw(second.server, "ECONNRESET")
    })
  )

  it.scopedLive("black-holes what it has already read and what is due later", () =>
    Effect.gen(function* () {
      const { client, connect, proxy, server } = yield* path
      const other = yield* connect
      yield* proxy.latency({ delay: 300, direction: "toServer" })
      client.socket.end()
      // The proxy has been idle since, so it has read this.
      yield* word(other.server, other.client)
      yield* proxy.blackHole({ existing: true })
      yield* roundTrip(yield* connect) // takes as long as the latency, and starts later
      assert.deepStrictEqual([server.received().length, server.events], [0, []])
      yield* proxy.heal
      yield* saw(server, "end")
    })
  )

  it.scopedLive("black-holes new connections only, which reach the server once it is lifted", () =>
    Effect.gen(function* () {
      const { proxy, upstream, ...old } = yield* path
      yield* proxy.blackHole({ new: true })
      const client = yield* Tcp.connect(proxy.port)
      client.socket.write("anybody there?")
      yield* roundTrip(old)
      yield* roundTrip(old)
      assert.strictEqual(yield* upstream.waiting, 0)
      assert.deepInclude(yield* proxy.stats, { attempted: 2, total: 1, open: 2 })
      yield* proxy.heal
      yield* received(yield* upstream.next, "anybody there?")
    })
  )

  it.scopedLive("can reset what it has black-holed", () =>
    Effect.gen(function* () {
      const { client, proxy, server } = yield* path
      yield* proxy.blackHole({ existing: true })
      yield* proxy.reset
      yield* saw(client, "ECONNRESET")
      yield* saw(server, "ECONNRESET")
      yield* open(proxy, 0)
    })
  )

  it.scopedLive("delays what it carries, in order whatever the jitter", () =>
    Effect.gen(function* () {
      const { client, proxy, server } = yield* path
      const [delay, jitter] = [150, 100]
      yield* proxy.latency({ delay, jitter, seed: "seed", direction: "toServer" })
      const words = Array.from({ length: 40 }, (_, index) => `${index} `)
      const start = yield* Clock.currentTimeMillis
      for (const word of words) {
        client.socket.write(word)
        yield* Effect.yieldNow()
        yield* Effect.async<void>((resume) => void setImmediate(() => resume(Effect.void)))
      }
      yield* received(server, words.join(""))
      assert.isAtLeast((yield* Clock.currentTimeMillis) - start, delay - jitter)
      const back = yield* Clock.currentTimeMillis
      yield* proxy.latency({ delay: 400, direction: "toClient" })
      server.socket.write("answer")
      yield* received(client, "answer")
      assert.isAtLeast((yield* Clock.currentTimeMillis) - back, 399)
    })
  )

  it.scopedLive("delays without narrowing: what is sent together arrives together", () =>
    Effect.gen(function* () {
      const { client, proxy, server } = yield* path
      yield* proxy.latency({ delay: 200 })
      const bytes = Crypto.randomBytes(2 * 1024 * 1024)
      const start = yield* Clock.currentTimeMillis
      client.socket.write(bytes)
      yield* eventually(
        Effect.sync(() => server.socket.bytesRead),
        (read) => read === bytes.length
      )
      // At least 32 chunks of 64 KB: one after the other they would take 6.4 s and more.
      assert.isBelow((yield* Clock.currentTimeMillis) - start, 5_000)
      assert.isTrue(server.received().equals(bytes))
    })
  )

  it.scopedLive("limits bandwidth in one direction and not in the other", () =>
    Effect.gen(function* () {
      const { client, proxy, server } = yield* path
      yield* proxy.bandwidth(20_000, "toServer")
      const start = yield* Clock.currentTimeMillis
      client.socket.write(Buffer.alloc(10_000, "x"))
      server.socket.write(Buffer.alloc(1_000_000, "y"))
      yield* eventually(
        Effect.sync(() => client.socket.bytesRead),
        (read) => read === 1_000_000
      )
      assert.isBelow(server.socket.bytesRead, 10_000)
      yield* received(server, "x".repeat(10_000))
      assert.isAtLeast((yield* Clock.currentTimeMillis) - start, 450)
    })
  )

  it.scopedLive("ends a connection after exactly the n-th byte, in either direction, as often as told", () =>
    Effect.gen(function* () {
      const { connect, proxy, ...first } = yield* path
      const up = yield* proxy.dropAfterBytes({ bytes: 7, direction: "toServer" })
      yield* word(first.server, first.client)
      first.client.socket.write("1234")
      first.client.socket.write("567890")
      yield* saw(first.client, "ECONNRESET")
      yield* saw(first.server, "end")
      assert.strictEqual(first.server.received().toString(), "1234567")
      yield* up.happened()
      const second = yield* connect
      yield* roundTrip(second)
      const down = yield* proxy.dropAfterBytes({ bytes: 3, direction: "toClient", ending: "close", times: 2 })
      for (const { client, server } of [second, yield* connect]) {
        const before = client.received().length
        server.socket.write("abcdef")
        yield* saw(client, "end")
        assert.strictEqual(client.received().toString().slice(before), "abc")
      }
      yield* down.happened(2)
      yield* roundTrip(yield* connect)
    })
  )

  it.scopedLive("rewrites the host and port of a connection URL and nothing else", () =>
    Effect.gen(function* () {
      const { proxy } = yield* path
      const url = proxy.url(Redacted.make("postgresql://some%40one:p%2Fw@db.example:6543/name?application_name=x"))
      assert.strictEqual(
        Redacted.value(url),
        `postgresql://some%40one:p%2Fw@127.0.0.1:${proxy.port}/name?application_name=x`
      )
    })
  )

  it.live("destroys every socket and frees its port when the scope closes, black-holed or not", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const upstream = yield* Tcp.server
        const scope = yield* Scope.make()
        const proxy = yield* Scope.extend(FaultProxy.make({ upstream }), scope)
        const client = yield* Tcp.connect(proxy.port)
        const server = yield* upstream.next
        yield* proxy.blackHole({ existing: true, new: true })
        const another = yield* Tcp.connect(proxy.port)
        yield* Scope.close(scope, Exit.void)
        for (const peer of [client, another]) {
          peer.socket.write("x")
          yield* eventually(
            Effect.sync(() => peer.events.length),
            (count) => count > 0
          )
        }
        yield* saw(server, "end")
        assert.strictEqual(yield* Effect.flip(Tcp.connect(proxy.port)), "ECONNREFUSED")
        yield* FaultProxy.make({ upstream, port: proxy.port })
        yield* Tcp.connect(proxy.port)
      })
    )
  )
})
