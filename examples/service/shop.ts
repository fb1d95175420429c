/** The shop in the database: its tables, users and orders. Failures are tags: the shop's own, and those of `PgError`. */
import { createHash } from "node:crypto"
import { SqlClient, SqlSchema } from "@effect/sql"
import { Effect, type Option, ParseResult, Schedule, Schema } from "effect"
import { Operation, Transaction } from "effect-pg-resilience"
import { type NewOrder, NewUser, NotFound, Order, OutOfStock, Product, User } from "./api.js"

/** What the service stores is in a schema of its own. */
export const schema = "effect_pg_shop"

/** Any number that nobody else uses for an advisory lock. */
const creating = 0x5340b

/**
 * Creates what is not there and leaves what is: also when two services start at once, of which one waits for the other.
 * Waits for the database for as long as that is away.
 */
export const createTables = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`SELECT pg_advisory_xact_lock(${creating})`
  yield* sql`CREATE SCHEMA IF NOT EXISTS ${sql(schema)}`
  yield* Transaction.ledgerMigration({ schema })
  yield* sql`CREATE TABLE IF NOT EXISTS users (
    id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    email text NOT NULL UNIQUE,
    name text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
  )`
  yield* sql`CREATE TABLE IF NOT EXISTS products (
    sku text PRIMARY KEY,
    name text NOT NULL,
    price_cents int NOT NULL CHECK (price_cents >= 0),
    stock int NOT NULL CHECK (stock >= 0)
  )`
  yield* sql`CREATE TABLE IF NOT EXISTS orders (
    id int PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    user_id int NOT NULL REFERENCES users,
    total_cents int NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
  )`
  yield* sql`CREATE INDEX IF NOT EXISTS orders_of_user ON orders (user_id, id)`
  yield* sql`CREATE TABLE IF NOT EXISTS order_lines (
    order_id int NOT NULL REFERENCES orders,
    sku text NOT NULL REFERENCES products,
    quantity int NOT NULL CHECK (quantity > 0),
    price_cents int NOT NULL,
    PRIMARY KEY (order_id, sku)
  )`
  yield* sql`INSERT INTO products ${sql.insert([
    { sku: "book", name: "A book about databases", priceCents: 3_900, stock: 1_000 },
    { sku: "pen", name: "A pen", priceCents: 250, stock: 100_000 },
    { sku: "globe", name: "A globe", priceCents: 12_000, stock: 20 }
  ])} ON CONFLICT DO NOTHING`
}).pipe(
  (body) => Transaction.run(body, { name: "create-tables", retry: true }),
  Effect.tapError(({ message }) => Effect.logWarning(`The tables are not there yet: ${message}`)),
  Effect.retry({
    // Done twice it is done once.
    while: ({ _tag, transient }) => transient || _tag === "OutcomeUnknownError",
    schedule: Schedule.spaced("1 second")
  })
)

// What comes out of the database is decoded: `User` and not its JSON.
const UserRow = Schema.typeSchema(User)
const OrderRow = Schema.typeSchema(Order)
const Page = Schema.Struct({ after: Schema.Int, limit: Schema.Int, userId: Schema.optional(Schema.Int) })
type Page = typeof Page.Type

/** A row that is not what its schema says is a mistake in this file. */
const sound = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, Exclude<E, ParseResult.ParseError>, R> =>
  Effect.catchIf(self as Effect.Effect<A, E | ParseResult.ParseError, R>, ParseResult.isParseError, Effect.die)

const orNotFound =
  (what: NotFound["what"], id: number) =>
  <A>(found: Option.Option<A>): Effect.Effect<A, NotFound> =>
    Effect.mapError(found, () => new NotFound({ what, id: String(id) }))

/** Repeated when its answer was lost, and stored once: the address is refused when it was there before, not by ourselves. */
export const createUser = (user: typeof NewUser.Type) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    SqlSchema.single({
      Request: NewUser,
      Result: UserRow,
      execute: (user) => sql`INSERT INTO users ${sql.insert(user).returning("*")}`
    })(user)
  ).pipe(
    sound,
    Effect.catchTag("NoSuchElementException", Effect.die),
    Operation.named("create-user", { exactlyOnce: true })
  )

export const readUser = (id: number) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    SqlSchema.findOne({
      Request: Schema.Int,
      Result: UserRow,
      execute: (id) => sql`SELECT * FROM users WHERE id = ${id}`
    })(id)
  ).pipe(sound, Effect.flatMap(orNotFound("user", id)), Operation.named("read-user"))

export const listUsers = (page: Page) =>
  Effect.flatMap(SqlClient.SqlClient, (sql) =>
    SqlSchema.findAll({
      Request: Page,
      Result: UserRow,
      execute: ({ after, limit }) => sql`SELECT * FROM users WHERE id > ${after} ORDER BY id LIMIT ${limit}`
    })(page)
  ).pipe(sound, Operation.named("list-users"))

export const listProducts = Effect.flatMap(SqlClient.SqlClient, (sql) =>
  SqlSchema.findAll({
    Request: Schema.Void,
    Result: Product,
    execute: () => sql`SELECT * FROM products ORDER BY sku`
  })()
).pipe(sound, Operation.named("list-products"))

const selectOrders = Effect.map(
  SqlClient.SqlClient,
  (sql) => sql`SELECT id, user_id, total_cents, created_at, (
      SELECT json_agg(json_build_object('sku', sku, 'quantity', quantity, 'priceCents', price_cents) ORDER BY sku)
      FROM order_lines WHERE order_id = orders.id
    ) AS lines FROM orders`
)

const orderById = (id: number) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const select = yield* selectOrders
    const find = SqlSchema.findOne({
      Request: Schema.Int,
      Result: OrderRow,
      execute: (id) => sql`${select} WHERE id = ${id}`
    })
    return yield* Effect.flatMap(sound(find(id)), orNotFound("order", id))
  })

export const readOrder = (id: number) => orderById(id).pipe(Operation.named("read-order"))

export const listOrders = (page: Page) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const select = yield* selectOrders
    return yield* SqlSchema.findAll({
      Request: Page,
      Result: OrderRow,
      execute: ({ after, limit, userId }) => sql`${select}
        WHERE id > ${after} AND ${userId === undefined ? sql`true` : sql`user_id = ${userId}`} ORDER BY id LIMIT ${limit}`
    })(page)
  }).pipe(sound, Operation.named("list-orders"))

/** In a transaction: takes the articles from the stock, or nothing at all. */
const place = ({ lines, userId }: typeof NewOrder.Type) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const [user] = yield* sql`SELECT 1 FROM users WHERE id = ${userId}`
    if (user === undefined) return yield* new NotFound({ what: "user", id: String(userId) })

    // Locked in one order by all, so that two orders of the same articles wait for each other and do not deadlock.
    const products = yield* sql<typeof Product.Type>`
      SELECT * FROM products WHERE sku IN ${sql.in(lines.map(({ sku }) => sku))} ORDER BY sku FOR UPDATE`
    const taken = yield* Effect.forEach(lines, ({ quantity, sku }) =>
      Effect.gen(function* () {
        const product = products.find((product) => product.sku === sku)
        if (product === undefined) return yield* new NotFound({ what: "product", id: sku })
        if (product.stock < quantity) return yield* new OutOfStock({ sku, stock: product.stock })
        return { sku, quantity, priceCents: product.priceCents }
      })
    )
    const totalCents = taken.reduce((sum, { priceCents, quantity }) => sum + priceCents * quantity, 0)
    yield* Effect.forEach(
      taken,
      ({ quantity, sku }) => sql`UPDATE products SET stock = stock - ${quantity} WHERE sku = ${sku}`
    )
    const [order] = yield* sql<{ id: number }>`INSERT INTO orders ${sql.insert({ userId, totalCents }).returning("id")}`
    yield* sql`INSERT INTO order_lines ${sql.insert(taken.map((line) => ({ orderId: order!.id, ...line })))}`
    return yield* orderById(order!.id)
  })

/** The same request, whatever its key. */
const fingerprint = ({ lines, userId }: typeof NewOrder.Type) =>
  createHash("sha256")
    .update(JSON.stringify([userId, ...lines.map(({ quantity, sku }) => [sku, quantity]).sort()]))
    .digest("base64url")

/** Once for its key: an order that is sent again, to this service or to another one, is the order that there is. */
export const placeOrder = (key: string, order: typeof NewOrder.Type) =>
  Transaction.once(`order/${key}`, Order, place(order), {
    name: "place-order",
    fingerprint: fingerprint(order),
    timeout: "10 seconds"
  }).pipe(sound)
