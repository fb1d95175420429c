/**
 * The API on the shop. What the database's failures mean to a caller is decided here, once; what was certainly not done,
 * because the database is away, goes on as a defect, and is answered with 503 further out.
 */
import { HttpApiBuilder, HttpLayerRouter } from "@effect/platform"
import { Effect, Layer } from "effect"
import { PgError } from "effect-pg-resilience"
import { EmailTaken, KeyReused, ShopApi, TooSlow, Unclear } from "./api.js"
import * as Shop from "./shop.js"

const told = <A, E, R>(self: Effect.Effect<A, E, R>): Effect.Effect<A, Exclude<E, PgError.PgError> | TooSlow, R> =>
  Effect.catchIf(self as Effect.Effect<A, E | PgError.PgError, R>, PgError.isPgError, (error) =>
    error._tag === "QueryTimeoutError" || error._tag === "StatementTimeoutError" || error._tag === "LockTimeoutError"
      ? Effect.fail(new TooSlow({ message: "The database took too long. Nothing was changed." }))
      : Effect.die(error)
  )

const unclear = (look: string) => () =>
  Effect.fail(new Unclear({ message: `It is not known whether this was done. ${look}` }))

const users = HttpApiBuilder.group(ShopApi, "users", (handlers) =>
  handlers
    .handle("createUser", ({ payload }) =>
      Shop.createUser(payload).pipe(
        Effect.catchTag("UniqueViolation", () => Effect.fail(new EmailTaken())),
        Effect.catchTag("OutcomeUnknownError", unclear("Look for the user before you try again.")),
        told
      )
    )
    .handle("listUsers", ({ urlParams }) => told(Shop.listUsers(urlParams)))
    .handle("readUser", ({ path }) => told(Shop.readUser(path.id)))
)

const products = HttpApiBuilder.group(ShopApi, "products", (handlers) =>
  handlers.handle("listProducts", () => told(Shop.listProducts))
)

const orders = HttpApiBuilder.group(ShopApi, "orders", (handlers) =>
  handlers
    .handle("placeOrder", ({ headers, payload }) =>
      Shop.placeOrder(headers["idempotency-key"], payload).pipe(
        Effect.catchTag("IdempotencyKeyReusedError", () => Effect.fail(new KeyReused())),
        Effect.catchTag("OutcomeUnknownError", unclear("Send the same order again, with the same key.")),
        told
      )
    )
    .handle("listOrders", ({ urlParams }) => told(Shop.listOrders(urlParams)))
    .handle("readOrder", ({ path }) => told(Shop.readOrder(path.id)))
)

/** Among the routes of the service's server. */
export const layer = Layer.provide(HttpLayerRouter.addHttpApi(ShopApi, { openapiPath: "/openapi.json" }), [
  users,
  products,
  orders
])
