//! The values that many routes share, as the document describes them. They stand in for the types of the core,
//! which does its work without knowing of OpenAPI: `#[schema(value_type = schemas::Money)]`.
#![expect(dead_code, reason = "they describe values and hold none")]

use utoipa::ToSchema;

/// A sale.
#[derive(ToSchema)]
#[schema(minimum = 1, maximum = 16_777_215, format = "int32", example = 1)]
pub(crate) struct SaleId(i32);

/// A product, unique over all sales.
#[derive(ToSchema)]
#[schema(minimum = 1, format = "int64", example = 1)]
pub(crate) struct ProductId(i64);

/// A buyer: letters, digits and `._@:+-`, but neither `.` nor `..`.
// Not a look-ahead, which many generators of clients do not know: dots alone only from three on.
#[derive(ToSchema)]
#[schema(
    min_length = 1,
    max_length = 100,
    pattern = "^(\\.{3,}|\\.*[A-Za-z0-9_@:+-][A-Za-z0-9._@:+-]*)$",
    example = "alice"
)]
pub(crate) struct UserId(String);

/// The name that a client gives to one purchase, so that repeating it is safe: visible ASCII without space, `"`,
/// `{` and `}`. A random one per purchase is a good one.
#[derive(ToSchema)]
#[schema(min_length = 1, max_length = 200, pattern = "^[!#-z|~]+$", example = "3f9c1a52-checkout-1")]
pub(crate) struct IdempotencyKey(String);

/// An order: a UUID of version 8. Ids of later orders sort after earlier ones.
// It ends with its sale, in six digits that are not all zero, and two zeros.
#[derive(ToSchema)]
#[schema(
    format = "uuid",
    pattern = "^[0-9a-f]{8}-[0-9a-f]{4}-8[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{4}\
               ([1-9a-f][0-9a-f]{5}|0[1-9a-f][0-9a-f]{4}|00[1-9a-f][0-9a-f]{3}|000[1-9a-f][0-9a-f]{2}|\
               0000[1-9a-f][0-9a-f]|00000[1-9a-f])00$",
    example = "01a2030b-433f-86f7-8ef0-46ca00000100"
)]
pub(crate) struct OrderId(String);

/// Units in one line.
#[derive(ToSchema)]
#[schema(minimum = 1, maximum = 1_000, format = "int32", example = 2)]
pub(crate) struct Quantity(i32);

/// An amount of money as decimal text, with as many decimals as its currency has. Never a float.
#[derive(ToSchema)]
#[schema(pattern = "^[0-9]+(\\.[0-9]+)?$", example = "249.99")]
pub(crate) struct Money(String);

/// An ISO 4217 currency.
#[derive(ToSchema)]
#[schema(min_length = 3, max_length = 3, pattern = "^[A-Z]{3}$", example = "USD")]
pub(crate) struct Currency(String);

/// Where an order is on its way; it only moves forward. `Confirmed` and `Failed` are final.
#[derive(ToSchema)]
#[schema(example = "Confirmed")]
pub(crate) enum OrderStatus {
    Queued,
    Processing,
    Confirmed,
    Failed,
}

/// An event of an order, as `EventSource` gives it.
#[derive(ToSchema)]
pub(crate) struct OrderEvent {
    #[schema(inline)]
    event: OrderEventKind,
    /// The order's status; not with `gone`.
    id: Option<OrderStatus>,
    /// With `status`: what the status route answers. With `gone`: the `orderId`.
    #[schema(content_media_type = "application/json")]
    data: String,
}

#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
enum OrderEventKind {
    Status,
    Gone,
}

/// Why an accepted order failed. Its units went back.
#[derive(ToSchema)]
#[schema(rename_all = "kebab-case", example = "sold-out")]
pub(crate) enum FailureReason {
    SoldOut,
    OverQuota,
    Duplicate,
    UnknownProduct,
    Rejected,
    Discarded,
}
