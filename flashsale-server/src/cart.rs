//! Carts: what a user means to buy.

use std::time::Duration;

use axum::{
    Json,
    extract::{Path, Request, State, path::ErrorKind, rejection::PathRejection},
    http::StatusCode,
};
use flashsale_core::{
    Cart, CartChange, CartLine, Currency, Error, Invalid, Money, ProductId, Quantity, Refusal, UserId,
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    app::App,
    body,
    identity::Caller,
    openapi::schemas,
    order_request::number,
    path::segment,
    problem::{Code, Problem},
};

/// How many units of a product a cart shall hold.
#[derive(ToSchema)]
#[schema(rename_all = "camelCase")]
#[expect(dead_code, reason = "it describes a body and holds none")]
struct SetCartItem {
    #[schema(value_type = schemas::ProductId)]
    product_id: ProductId,
    #[schema(value_type = schemas::Quantity)]
    quantity: Quantity,
}

/// What a user means to buy, at the prices of the sales.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Cart)]
pub(crate) struct CartBody {
    #[schema(value_type = schemas::UserId)]
    user_id: UserId,
    /// By product; of an empty cart an empty list.
    #[schema(max_items = 20)]
    items: Vec<CartItem>,
    /// The sum of the lines; `0.00` for an empty cart.
    #[schema(value_type = schemas::Money)]
    estimated_total: String,
    /// The currency of all amounts; null for an empty cart.
    #[schema(value_type = Option<schemas::Currency>, required)]
    currency: Option<Currency>,
}

/// A product in a cart.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct CartItem {
    #[schema(value_type = schemas::ProductId)]
    product_id: ProductId,
    product_name: String,
    #[schema(value_type = schemas::Quantity)]
    quantity: u32,
    /// The price of one unit in its sale.
    #[schema(value_type = schemas::Money)]
    unit_price: Money,
    #[schema(value_type = schemas::Money)]
    line_total: Money,
}

impl From<Cart> for CartBody {
    fn from(cart: Cart) -> Self {
        Self {
            user_id: cart.user,
            items: cart.lines.into_iter().map(CartItem::from).collect(),
            estimated_total: cart.total.map_or_else(|| "0.00".to_owned(), |total| total.to_string()),
            currency: cart.total.map(|total| total.currency),
        }
    }
}

impl From<CartLine> for CartItem {
    fn from(line: CartLine) -> Self {
        Self {
            product_id: line.product,
            product_name: line.product_name,
            quantity: line.quantity,
            unit_price: line.unit_price,
            line_total: line.line_total,
        }
    }
}

/// Puts a product into the caller's cart
#[utoipa::path(
    post,
    path = "/api/cart",
    operation_id = "setCartItem",
    tag = "cart",
    description = "Sets how many units of the product the cart holds; the same request again changes nothing more. \
                   The product's sale has to be open (`sale-not-open` says what it is instead) and to have so many \
                   units left. A cart reserves nothing, and the limit per user is judged when it is ordered. It \
                   holds at most 20 products, all of one currency, and is kept for two hours after its last change.",
    request_body(
        content = SetCartItem,
        description = "At most 16 KiB. Members that are not known are ignored.",
        example = json!({"productId": 1, "quantity": 2}),
    ),
    responses((status = 200, description = "The cart now", body = CartBody, example = json!({
        "userId": "alice",
        "items": [{
            "productId": 1,
            "productName": "Sony WH-1000XM5 Headphones",
            "quantity": 2,
            "unitPrice": "249.99",
            "lineTotal": "499.98",
        }],
        "estimatedTotal": "499.98",
        "currency": "USD",
    })))
)]
pub(crate) async fn set(
    State(app): State<App>,
    Caller(user): Caller,
    request: Request,
) -> Result<Json<CartBody>, Problem> {
    let (parts, body) = request.into_parts();
    let body = body::json_object(&parts.headers, body).await?;
    let product = number(&body, "productId", "productId")?;
    let quantity = number(&body, "quantity", "quantity")?;
    let _turn = app.other_turns.next().await?;
    match app.engine.set_in_cart(&user, product, quantity).await.map_err(failed)? {
        CartChange::Updated(cart) => Ok(Json(cart.into())),
        CartChange::Refused(refusal) => Err(refused(refusal)),
        CartChange::Full => Err(Problem::cart_full()),
        other => {
            tracing::error!(?other, "a change of a cart that this server does not know");
            Err(Problem::internal())
        }
    }
}

/// The caller's cart
#[utoipa::path(
    get,
    path = "/api/cart/{userId}",
    operation_id = "getCart",
    tag = "cart",
    description = "Products of sales that are over are not in it any more, and neither are those of a confirmed \
                   order. Reading it does not prolong its time.",
    params(("userId" = schemas::UserId, Path, description = "Must be the caller")),
    responses((status = 200, description = "The cart, which may be empty", body = CartBody, example = json!({
        "userId": "alice",
        "items": [{
            "productId": 1,
            "productName": "Sony WH-1000XM5 Headphones",
            "quantity": 2,
            "unitPrice": "249.99",
            "lineTotal": "499.98",
        }],
        "estimatedTotal": "499.98",
        "currency": "USD",
    })))
)]
pub(crate) async fn show(
    State(app): State<App>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<Json<CartBody>, Problem> {
    let user: UserId = segment(path, "userId")?;
    caller.must_be(&user)?;
    let _turn = app.other_turns.next().await?;
    Ok(Json(app.engine.cart(&user).await.map_err(failed)?.into()))
}

/// Takes a product out of the caller's cart
#[utoipa::path(
    delete,
    path = "/api/cart/{userId}/items/{productId}",
    operation_id = "removeCartItem",
    tag = "cart",
    description = "Whether it is in the cart or not.",
    params(
        ("userId" = schemas::UserId, Path, description = "Must be the caller"),
        ("productId" = schemas::ProductId, Path, description = "The product"),
    ),
    responses((status = 204, description = "It is not in the cart"))
)]
pub(crate) async fn remove(
    State(app): State<App>,
    caller: Caller,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let Path((user, product)) = path.map_err(|rejection| not_text(&rejection))?;
    caller.must_be(&user.parse::<UserId>()?)?;
    let product = product.parse().map_err(|invalid: Invalid| invalid.in_field("productId"))?;
    let _turn = app.other_turns.next().await?;
    app.engine.remove_from_cart(&caller.0, product).await.map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Empties the caller's cart
#[utoipa::path(
    delete,
    path = "/api/cart/{userId}",
    operation_id = "clearCart",
    tag = "cart",
    description = "Whether there is anything in it or not.",
    params(("userId" = schemas::UserId, Path, description = "Must be the caller")),
    responses((status = 204, description = "The cart is empty"))
)]
pub(crate) async fn clear(
    State(app): State<App>,
    caller: Caller,
    path: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    let user: UserId = segment(path, "userId")?;
    caller.must_be(&user)?;
    let _turn = app.other_turns.next().await?;
    app.engine.clear_cart(&user).await.map_err(failed)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Of several values in a path, the one that is not text.
fn not_text(rejection: &PathRejection) -> Problem {
    let field = match rejection {
        PathRejection::FailedToDeserializePathParams(failed) => match failed.kind() {
            ErrorKind::InvalidUtf8InPathParam { key } => key,
            _ => "path",
        },
        _ => "path",
    };
    Problem::invalid(field, "must be UTF-8")
}

/// For a cart, a sale that does not sell now is one code; the detail says why.
fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NotStarted | Refusal::Paused | Refusal::Ended => {
            Problem::new(Code::SaleNotOpen, refusal.to_string())
        }
        Refusal::ItemsSpanSales => {
            let detail = "The cart holds products of another currency; order them first, or take them out.";
            Problem::new(Code::ItemsSpanSales, detail)
        }
        other => other.into(),
    }
}

/// A change whose answer was lost may have been made, so this does not say that nothing was changed.
fn failed(error: Error) -> Problem {
    if error.is_transient() && !error.is_fenced() {
        tracing::debug!(%error, "a cart is unavailable");
        let detail = "The cart cannot be asked right now. Try again; a change may be repeated.";
        return Problem::new(Code::Unavailable, detail).retry_after(Duration::from_secs(1));
    }
    error.into()
}
