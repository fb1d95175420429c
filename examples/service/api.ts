/** What the service offers over HTTP, as schemas: for its handlers, its OpenAPI document and typed clients. */
import { HttpApi, HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "@effect/platform"
import { Schema } from "effect"

/** What PostgreSQL's `int` can hold. */
const Id = Schema.Int.pipe(Schema.between(1, 2_147_483_647))
const IdFromString = Schema.NumberFromString.pipe(Schema.compose(Id))

const Email = Schema.String.pipe(
  Schema.maxLength(200),
  Schema.pattern(/^[^\s@\p{Cc}]+@[^\s@\p{Cc}]+$/u, { description: "An email address" })
)
const Sku = Schema.String.pipe(Schema.pattern(/^[a-z0-9-]{1,40}$/), Schema.annotations({ description: "An article" }))

export const NewUser = Schema.Struct({
  email: Email,
  name: Schema.String.pipe(Schema.pattern(/^[^\p{Cc}]{1,100}$/u, { description: "1 to 100 characters" }))
})

export const User = Schema.Struct({ id: Id, ...NewUser.fields, createdAt: Schema.Date }).annotations({
  identifier: "User"
})

export const Product = Schema.Struct({
  sku: Sku,
  name: Schema.String,
  priceCents: Schema.NonNegativeInt,
  stock: Schema.NonNegativeInt
}).annotations({ identifier: "Product" })

const Line = Schema.Struct({ sku: Sku, quantity: Schema.Int.pipe(Schema.between(1, 1000)) })

export const NewOrder = Schema.Struct({
  userId: Id,
  lines: Schema.Array(Line).pipe(
    Schema.minItems(1),
    Schema.maxItems(50),
    Schema.filter((lines) => new Set(lines.map(({ sku }) => sku)).size === lines.length || "an article is named twice")
  )
})

export const Order = Schema.Struct({
  id: Id,
  userId: Id,
  totalCents: Schema.NonNegativeInt,
  lines: Schema.Array(Schema.Struct({ ...Line.fields, priceCents: Schema.NonNegativeInt })),
  createdAt: Schema.Date
}).annotations({ identifier: "Order" })

/** Lists come in pages: those after an id, oldest first. */
const Page = Schema.Struct({
  after: Schema.optionalWith(Schema.NumberFromString.pipe(Schema.compose(Schema.NonNegativeInt)), { default: () => 0 }),
  limit: Schema.optionalWith(Schema.NumberFromString.pipe(Schema.compose(Schema.Int), Schema.between(1, 100)), {
    default: () => 20
  })
})

export class NotFound extends Schema.TaggedError<NotFound>()(
  "NotFound",
  { what: Schema.Literal("user", "order", "product"), id: Schema.String },
  HttpApiSchema.annotations({ status: 404 })
) {}

export class EmailTaken extends Schema.TaggedError<EmailTaken>()(
  "EmailTaken",
  {},
  HttpApiSchema.annotations({ status: 409 })
) {}

export class OutOfStock extends Schema.TaggedError<OutOfStock>()(
  "OutOfStock",
  { sku: Schema.String, stock: Schema.NonNegativeInt },
  HttpApiSchema.annotations({ status: 409 })
) {}

/** The key was used before, for another order. */
export class KeyReused extends Schema.TaggedError<KeyReused>()(
  "KeyReused",
  {},
  HttpApiSchema.annotations({ status: 422 })
) {}

/** The database took too long. Nothing was changed. */
export class TooSlow extends Schema.TaggedError<TooSlow>()(
  "TooSlow",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 504 })
) {}

/** Nobody knows yet whether it was done: the same request, with the same key, may be sent again, and finds out. */
export class Unclear extends Schema.TaggedError<Unclear>()(
  "Unclear",
  { message: Schema.String },
  HttpApiSchema.annotations({ status: 504 })
) {}

const users = HttpApiGroup.make("users")
  .add(
    HttpApiEndpoint.post("createUser", "/users")
      .setPayload(NewUser)
      .addSuccess(User, { status: 201 })
      .addError(EmailTaken)
      .addError(Unclear)
  )
  .add(HttpApiEndpoint.get("listUsers", "/users").setUrlParams(Page).addSuccess(Schema.Array(User)))
  .add(
    HttpApiEndpoint.get("readUser", "/users/:id")
      .setPath(Schema.Struct({ id: IdFromString }))
      .addSuccess(User)
      .addError(NotFound)
  )
  .addError(TooSlow)

const products = HttpApiGroup.make("products")
  .add(HttpApiEndpoint.get("listProducts", "/products").addSuccess(Schema.Array(Product)))
  .addError(TooSlow)

const orders = HttpApiGroup.make("orders")
  .add(
    HttpApiEndpoint.post("placeOrder", "/orders")
      .setHeaders(
        Schema.Struct({
          "idempotency-key": Schema.String.pipe(
            Schema.pattern(/^[\x21-\x7e]{8,100}$/),
            Schema.annotations({ description: "8 to 100 visible characters, chosen anew for each order" })
          )
        })
      )
      .setPayload(NewOrder)
      .addSuccess(Order, { status: 201 })
      .addError(NotFound)
      .addError(OutOfStock)
      .addError(KeyReused)
      .addError(Unclear)
  )
  .add(
    HttpApiEndpoint.get("listOrders", "/orders")
      .setUrlParams(Schema.Struct({ ...Page.fields, userId: Schema.optional(IdFromString) }))
      .addSuccess(Schema.Array(Order))
  )
  .add(
    HttpApiEndpoint.get("readOrder", "/orders/:id")
      .setPath(Schema.Struct({ id: IdFromString }))
      .addSuccess(Order)
      .addError(NotFound)
  )
  .addError(TooSlow)

export class ShopApi extends HttpApi.make("shop")
  .add(users)
  .add(products)
  .add(orders)
  .annotate(OpenApi.Title, "The shop") {}
