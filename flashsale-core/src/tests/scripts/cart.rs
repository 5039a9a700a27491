use std::{
    sync::atomic::{AtomicU16, Ordering},
    time::Duration,
};

use redis::Value;

use super::scene;
use crate::{
    UserId, keys,
    link::{CallError, Link},
    order::Quantity,
    scripts::{CartReply, KeptCart, forget_lines, read_cart, remove_from_cart, set_in_cart},
    test_support,
};

const LUA: &str = include_str!("../../../lua/cart.lua");
/// How long a cart is kept here, and what is left of it before the call.
const KEPT_FOR: Duration = Duration::from_mins(10);
const LEFT_MS: i64 = 300_000;

/// A cart, one call, the reply, and the cart then.
struct Row {
    shows: &'static str,
    given: &'static [&'static str],
    call: &'static str,
    reply: &'static str,
    then: &'static str,
    /// Its time starts anew.
    restarts: bool,
}

const fn row(
    shows: &'static str,
    given: &'static [&'static str],
    call: &'static str,
    reply: &'static str,
    then: &'static str,
    restarts: bool,
) -> Row {
    Row { shows, given, call, reply, then, restarts }
}

/// Of a buyer whom no other test of this process has.
fn fresh_user() -> UserId {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    format!("cart-table-{}", NEXT.fetch_add(1, Ordering::Relaxed)).parse().unwrap()
}

async fn redis<T: redis::FromRedisValue>(link: &Link, words: &[&str]) -> T {
    link.query(redis::cmd(words[0]).arg(&words[1..]))
        .await
        .unwrap_or_else(|error| panic!("{words:?}: {error}"))
}

async fn act(link: &Link, user: &UserId, call: &str) -> String {
    let words: Vec<_> = call.split(' ').collect();
    let reply = match words[..] {
        ["set", product, quantity, currency] => {
            let quantity = Quantity::try_from(quantity.parse::<i64>().unwrap()).unwrap();
            let (product, currency) = (product.parse().unwrap(), currency.parse().unwrap());
            set_in_cart(link, user, product, quantity, currency, KEPT_FOR).await.unwrap()
        }
        ["remove", product] => {
            remove_from_cart(link, user, product.parse().unwrap(), KEPT_FOR).await.unwrap();
            return String::new();
        }
        ["read"] => CartReply::Kept(read_cart(link, user).await.unwrap()),
        _ => {
            let mut command = redis::cmd("EVAL");
            command.arg(LUA).arg(1).arg(keys::cart(user)).arg(1_000).arg(&words[1..]);
            return match link.query::<Value>(&command).await {
                Err(CallError::Refused(error)) => scene::error_text(&error),
                other => panic!("{call}: {other:?}"),
            };
        }
    };
    match reply {
        CartReply::Kept(KeptCart { now_ms, lines }) => {
            let (seconds, _): (i64, i64) = link.query(&redis::cmd("TIME")).await.unwrap();
            assert!((seconds * 1_000 - 60_000..=(seconds + 1) * 1_000).contains(&now_ms), "{now_ms}");
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let mut lines: Vec<_> =
                lines.iter().map(|(field, value)| format!("{}={}", text(field), text(value))).collect();
            lines.sort();
            lines.join(" ")
        }
        other => format!("{other:?}"),
    }
}

/// Everything of the cart, and whether its time is that of a fresh one.
async fn state(link: &Link, key: &str) -> (String, bool) {
    let kind: String = redis(link, &["TYPE", key]).await;
    let shown = match &*kind {
        "hash" => {
            let fields: Vec<(String, String)> = redis(link, &["HGETALL", key]).await;
            let mut lines: Vec<_> = fields.iter().map(|(field, value)| format!("{field}={value}")).collect();
            lines.sort();
            lines.join(" ")
        }
        other => other.to_owned(),
    };
    let left: i64 = redis(link, &["PTTL", key]).await;
    (shown, left > LEFT_MS)
}

#[tokio::test]
async fn a_change_is_made_whole_or_not_at_all() {
    const BAD_LINE: &str = "error INVALID line of product 1";
    const TWO: &[&str] = &["HSET KEY 1 2:USD 7 1:USD"];
    const ALMOST_FULL: &[&str] =
        &["HSET KEY 1 1:USD 2 1:USD 3 1:USD 4 1:USD 5 1:USD 6 1:USD 7 1:USD 8 1:USD 9 1:USD \
         10 1:USD 11 1:USD 12 1:USD 13 1:USD 14 1:USD 15 1:USD 16 1:USD 17 1:USD 18 1:USD 19 1:USD"];
    const FULL: &[&str] = &[ALMOST_FULL[0], "HSET KEY 99 1:USD"];
    const ALL: &str = "10=1:USD 11=1:USD 12=1:USD 13=1:USD 14=1:USD 15=1:USD 16=1:USD 17=1:USD 18=1:USD 19=1:USD \
         1=1:USD 2=1:USD 3=1:USD 4=1:USD 5=1:USD 6=1:USD 7=1:USD 8=1:USD 99=1:USD 9=1:USD";
    let rows = [
        row("the first product", &[], "set 1 2 USD", "1=2:USD", "1=2:USD", true),
        row(
            "another one",
            TWO,
            "set 3 1000 USD",
            "1=2:USD 3=1000:USD 7=1:USD",
            "1=2:USD 3=1000:USD 7=1:USD",
            true,
        ),
        row("the quantity is set, not added", TWO, "set 1 5 USD", "1=5:USD 7=1:USD", "1=5:USD 7=1:USD", true),
        row("another currency", TWO, "set 3 1 EUR", "OtherCurrency", "1=2:USD 7=1:USD", false),
        row(
            "its own line is not in its way",
            &["HSET KEY 1 2:USD"],
            "set 1 1 EUR",
            "1=1:EUR",
            "1=1:EUR",
            true,
        ),
        row("a line that cannot be read", &["HSET KEY x 1"], "set 1 1 USD", "OtherCurrency", "x=1", false),
        row("the 20th", ALMOST_FULL, "set 99 1 USD", ALL, ALL, true),
        row("the 21st", FULL, "set 100 1 USD", "Full", ALL, false),
        row("one of a full cart", FULL, "set 99 1 USD", ALL, ALL, true),
        row("takes one out", TWO, "remove 1", "", "7=1:USD", true),
        row("what is not in it", TWO, "remove 3", "", "1=2:USD 7=1:USD", true),
        row("the last one", &["HSET KEY 1 2:USD"], "remove 1", "", "none", false),
        row("from no cart", &[], "remove 1", "", "none", false),
        row("another type gives way", &["SET KEY x"], "set 1 1 USD", "1=1:USD", "1=1:USD", true),
        row("not to what is refused", &["RPUSH KEY x"], "raw 1 0 USD 20", BAD_LINE, "list", false),
        row("and holds nothing to take out", &["RPUSH KEY x"], "remove 1", "", "list", true),
        row("reading", TWO, "read", "1=2:USD 7=1:USD", "1=2:USD 7=1:USD", false),
        row("reading none", &[], "read", "", "none", false),
        row("reading another type", &["SET KEY x"], "read", "", "string", false),
        row("no quantity", TWO, "raw 1 0x2 USD 20", BAD_LINE, "1=2:USD 7=1:USD", false),
        row("a negative one", TWO, "raw 1 -1 USD 20", BAD_LINE, "1=2:USD 7=1:USD", false),
        row("no currency", TWO, "raw 1 1 usd 20", BAD_LINE, "1=2:USD 7=1:USD", false),
    ];
    let link = scene::link(test_support::stack().await.redis_url());
    for Row { shows, given, call, reply, then, restarts } in rows {
        let user = fresh_user();
        let key = keys::cart(&user);
        for command in given {
            let words: Vec<_> = command
                .split_whitespace()
                .map(|word| if word == "KEY" { key.as_str() } else { word })
                .collect();
            let _: Value = redis(&link, &words).await;
        }
        let _: i64 = redis(&link, &["PEXPIRE", &key, &LEFT_MS.to_string()]).await;
        assert_eq!(act(&link, &user, call).await, reply, "the reply of: {shows}");
        assert_eq!(state(&link, &key).await, (then.to_owned(), restarts), "the cart after: {shows}");
    }
}

#[tokio::test]
async fn a_line_is_forgotten_without_restarting_the_time() {
    let link = scene::link(test_support::stack().await.redis_url());
    let (user, damaged) = (fresh_user(), fresh_user());
    let key = keys::cart(&user);
    let _: i64 = redis(&link, &["HSET", &key, "1", "2:USD", "7", "1:USD"]).await;
    let _: i64 = redis(&link, &["PEXPIRE", &key, &LEFT_MS.to_string()]).await;
    let _: String = redis(&link, &["SET", &keys::cart(&damaged), "x"]).await;
    let commands = vec![forget_lines(&damaged, &[1]), forget_lines(&user, &[1, 9])];
    let answers = link.ask_all(commands).await.unwrap();
    assert_eq!(answers[0].as_ref().unwrap_err().code(), Some("WRONGTYPE"));
    assert_eq!(answers[1], Ok(Value::Int(1)), "what is damaged stops nobody else");
    assert_eq!(state(&link, &key).await, ("7=1:USD".to_owned(), false));
}
