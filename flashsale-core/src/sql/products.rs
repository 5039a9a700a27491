//! Products: what there is, and what is sold of it.

use sqlx::PgConnection;

use super::{parsed, sale_key, unreadable};
use crate::{
    ids::{ProductId, SaleId},
    money::{Currency, Money},
    sale::Product,
};

/// What the ledger decides by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Units not sold yet.
    pub left: i64,
    /// Units that one user may hold.
    pub per_user: i64,
}

/// The limits of these products, as far as the sale sells them.
pub(crate) async fn limits(
    conn: &mut PgConnection,
    sale: SaleId,
    products: &[i64],
) -> Result<Vec<(ProductId, Limits)>, sqlx::Error> {
    let rows: Vec<(i64, i32, i32)> = sqlx::query_as(
        "SELECT id, stock - sold, per_user_limit FROM products WHERE sale_id = $1 AND id = ANY($2)",
    )
    .bind(sale_key(sale))
    .bind(products)
    .fetch_all(conn)
    .await?;
    let read = |(id, left, per_user)| {
        Ok((parsed("products.id", id)?, Limits { left: i64::from(left), per_user: i64::from(per_user) }))
    };
    rows.into_iter().map(read).collect()
}

/// Raises what is sold, once per product.
pub(crate) async fn sell(conn: &mut PgConnection, units: &[(ProductId, i64)]) -> Result<(), sqlx::Error> {
    if units.is_empty() {
        return Ok(());
    }
    let (products, units): (Vec<i64>, Vec<i64>) = units.iter().map(|(id, units)| (id.get(), *units)).unzip();
    assert_eq!(products.len(), units.len(), "UNNEST pads the shorter array with NULL");
    sqlx::query(
        "UPDATE products SET sold = (products.sold + batch.units)::integer
         FROM unnest($1::bigint[], $2::bigint[]) AS batch (id, units) WHERE products.id = batch.id",
    )
    .bind(products)
    .bind(units)
    .execute(conn)
    .await?;
    Ok(())
}

#[derive(sqlx::FromRow)]
pub(super) struct Row {
    pub sale_id: i32,
    id: i64,
    name: String,
    description: String,
    image_url: String,
    original_price: i64,
    sale_price: i64,
    stock: i32,
    sold: i32,
    per_user_limit: i32,
}

impl Row {
    pub(super) fn read(self, currency: Currency) -> Result<Product, sqlx::Error> {
        let count = |column, value: i32| u32::try_from(value).map_err(|error| unreadable(column, error));
        Ok(Product {
            id: parsed("products.id", self.id)?,
            name: self.name,
            description: self.description,
            image_url: self.image_url,
            original_price: Money::from_minor(self.original_price, currency),
            sale_price: Money::from_minor(self.sale_price, currency),
            stock: count("products.stock", self.stock)?,
            sold: count("products.sold", self.sold)?,
            per_user_limit: count("products.per_user_limit", self.per_user_limit)?,
        })
    }
}

/// The products of these sales, by id.
pub(super) async fn of_sales(conn: &mut PgConnection, sales: &[i32]) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as(
        "SELECT sale_id, id, name, description, image_url, original_price, sale_price, stock, sold, per_user_limit
         FROM products WHERE sale_id = ANY($1) ORDER BY id",
    )
    .bind(sales)
    .fetch_all(conn)
    .await
}
