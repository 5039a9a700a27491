//! Creating a sale: all of it or nothing, and nothing if it is there already.

use sqlx::{PgConnection, PgPool};

use super::{actions, parsed, sale_key};
use crate::{
    Created,
    error::{Error, Result},
    ids::SaleId,
    sale::{NewProduct, NewSale},
};

/// Creates a sale with its products. One whose slug exists is left as it is.
pub(crate) async fn create_sale(pool: &PgPool, sale: &NewSale, actor: &str) -> Result<Created> {
    sale.validate()?;
    let mut tx = pool.begin().await?;
    // One at a time: the ids that are asked for and the ids that are made must not meet.
    sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('flashsale: create sale', 0))")
        .execute(&mut *tx)
        .await?;
    let exists: Option<i32> = sqlx::query_scalar("SELECT id FROM sales WHERE slug = $1")
        .bind(&sale.slug)
        .fetch_optional(&mut *tx)
        .await?;
    if let Some(id) = exists {
        return Ok(Created::Exists(parsed("sales.id", i64::from(id))?));
    }
    let id: i32 = sqlx::query_scalar(
        "INSERT INTO sales (slug, name, currency, starts_at, ends_at) VALUES ($1, $2, $3, $4, $5) RETURNING id",
    )
    .bind(&sale.slug)
    .bind(&sale.name)
    .bind(sale.currency.code())
    .bind(sale.starts_at)
    .bind(sale.ends_at)
    .fetch_one(&mut *tx)
    .await?;
    let id = parsed("sales.id", i64::from(id))?;
    refuse_taken_ids(&mut tx, &sale.products).await?;
    for product in &sale.products {
        insert_product(&mut tx, id, product).await?;
    }
    let units: u64 = sale.products.iter().map(|product| u64::from(product.stock)).sum();
    let detail = format!("{}: {units} units of {} products", sale.slug, sale.products.len());
    actions::note(&mut tx, actor, "create", Some(id), &detail).await?;
    tx.commit().await?;
    Ok(Created::New(id))
}

async fn refuse_taken_ids(conn: &mut PgConnection, products: &[NewProduct]) -> Result<()> {
    let asked: Vec<i64> = products.iter().filter_map(|product| product.id).map(i64::from).collect();
    let taken: Option<(i64, i32)> =
        sqlx::query_as("SELECT id, sale_id FROM products WHERE id = ANY($1) ORDER BY id LIMIT 1")
            .bind(&asked)
            .fetch_optional(&mut *conn)
            .await?;
    if let Some((product, sale)) = taken {
        let why = format!(
            "product {product} belongs to sale {sale} already; a product id stands for one product in one sale"
        );
        return Err(Error::refused(why));
    }
    // The ids that the database makes continue above those that were chosen by hand.
    sqlx::query(
        "SELECT setval(pg_get_serial_sequence('products', 'id'), asked.highest)
         FROM (SELECT max(id) AS highest FROM unnest($1::bigint[]) AS id) AS asked
         WHERE asked.highest > (SELECT last_value FROM products_id_seq)",
    )
    .bind(&asked)
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert_product(conn: &mut PgConnection, sale: SaleId, product: &NewProduct) -> Result<()> {
    sqlx::query(
        "INSERT INTO products (id, sale_id, name, description, image_url, original_price, sale_price, stock,
             per_user_limit)
         VALUES (COALESCE($1, nextval('products_id_seq')), $2, $3, $4, $5, $6, $7, $8, $9)",
    )
    .bind(product.id.map(i64::from))
    .bind(sale_key(sale))
    .bind(&product.name)
    .bind(&product.description)
    .bind(&product.image_url)
    .bind(product.original_price.minor)
    .bind(product.sale_price.minor)
    // Validated: at most ten million, and a thousand.
    .bind(product.stock.cast_signed())
    .bind(product.per_user_limit.cast_signed())
    .execute(conn)
    .await?;
    Ok(())
}
