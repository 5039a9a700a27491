//! One private Redis and PostgreSQL for all tests of this process, and a database for each test.

use std::sync::atomic::{AtomicUsize, Ordering};

use flashsale_stack::{Stack, StackOptions};
use tokio::sync::OnceCell;

/// Never dropped: its servers end with this process.
static STACK: OnceCell<Stack> = OnceCell::const_new();

/// The stack of this process. It lives on a thread of its own, so that it may be started by whichever test
/// comes first and outlive that test's runtime.
pub(crate) async fn stack() -> &'static Stack {
    STACK.get_or_init(|| async { Stack::start(StackOptions::default()).await.expect("a stack") }).await
}

/// The URL of a new database with the current schema.
pub(crate) async fn database() -> String {
    static MADE: AtomicUsize = AtomicUsize::new(0);
    let name = format!("test_{}", MADE.fetch_add(1, Ordering::Relaxed));
    let url = stack().await.create_database(&name).await.expect("a database");
    let pool = sqlx::PgPool::connect(&url).await.expect("PostgreSQL");
    crate::sql::migrate(&pool).await.expect("the migrations");
    pool.close().await;
    url
}

/// Makes this database's sale ids differ from those of all others on the shared Redis.
pub(crate) async fn spread_sale_ids(pool: &sqlx::PgPool) {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let first = i64::try_from(NEXT.fetch_add(100, Ordering::Relaxed)).expect("a small number");
    sqlx::query("SELECT setval(pg_get_serial_sequence('sales', 'id'), $1)")
        .bind(first)
        .execute(pool)
        .await
        .expect("setval");
}

/// A rule of the database that the decision does not know: orders of this user get no items.
pub(crate) async fn refuse_user(pool: &sqlx::PgPool, user: &str) {
    let rule = format!(
        "CREATE FUNCTION refuse_user() RETURNS trigger LANGUAGE plpgsql AS $$
         BEGIN
             IF EXISTS (SELECT FROM orders WHERE id = NEW.order_id AND user_id = '{user}') THEN
                 RAISE EXCEPTION 'not for {user}';
             END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER refuse_user BEFORE INSERT ON order_items FOR EACH ROW EXECUTE FUNCTION refuse_user();"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(rule)).execute(pool).await.expect("the rule");
}
