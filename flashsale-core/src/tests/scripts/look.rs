use super::{Row, Scene, UNCHANGED, check, guard_rows, scene::EPOCH};
use crate::{
    link::CallError,
    queue::Entry,
    scripts::{audit, look},
};

/// The fields of the book; answered as what the sale says, and what follows from it.
async fn act_look(scene: &Scene, call: &str) -> Result<String, CallError> {
    let fields: Vec<_> = call.split_whitespace().map(|field| scene.bytes(field)).collect();
    let looked = look(&scene.link, &scene.keys, &fields).await?;
    assert_eq!(scene.show(&looked.now_ms.to_string()), "now");
    let Some(sale) = looked.sale else { return Ok("missing".to_owned()) };
    let mut stock: Vec<_> = sale.stock.iter().map(|(product, left)| format!("{product}={left}")).collect();
    stock.sort();
    Ok(format!(
        "epoch {} {} seq {} token {:?} sound {} version {} window {}-{} stock {} intact {} book {:?} counts {}",
        sale.epoch,
        sale.state.map_or("loading", |state| state.as_str()),
        sale.seq,
        sale.token,
        sale.sound,
        sale.version,
        sale.starts_ms,
        sale.ends_ms,
        stock.join(","),
        sale.intact,
        shown(scene, &sale.book),
        sale.counts_under(EPOCH),
    ))
}

fn shown(scene: &Scene, values: &[Vec<u8>]) -> Vec<String> {
    values.iter().map(|value| scene.shown(value)).collect()
}

#[tokio::test]
async fn look_says_what_is_there() {
    let rows = [
        Row("no sale", &["DEL sale"], "", "missing", UNCHANGED),
        Row("no epoch", &["HDEL sale epoch"], "", "missing", UNCHANGED),
        Row(
            "an open one",
            &[],
            "",
            r#"epoch 7 open seq 4 token "" sound true version 2 window 1-4102444800000 stock 1=10,2=5 intact true book [] counts true"#,
            UNCHANGED,
        ),
        Row(
            "fields of the book",
            &["HSET book o@A Q1"],
            "o@B o@A",
            r#"epoch 7 open seq 4 token "" sound true version 2 window 1-4102444800000 stock 1=10,2=5 intact true book ["", "Q1"] counts true"#,
            UNCHANGED,
        ),
        Row(
            "a paused one, below zero",
            &["HSET sale state paused", "HSET stock 2 -4"],
            "",
            r#"epoch 7 paused seq 4 token "" sound true version 2 window 1-4102444800000 stock 1=10,2=-4 intact true book [] counts true"#,
            UNCHANGED,
        ),
        Row(
            "one that is loading",
            &["HSET sale state loading token t"],
            "",
            r#"epoch 7 loading seq 4 token "t" sound true version 2 window 1-4102444800000 stock 1=10,2=5 intact true book [] counts false"#,
            UNCHANGED,
        ),
        Row(
            "loaded into another server",
            &["HSET sale run_id 0123abcd"],
            "",
            r#"epoch 7 open seq 4 token "" sound false version 2 window 1-4102444800000 stock 1=10,2=5 intact true book [] counts false"#,
            UNCHANGED,
        ),
        Row(
            "another epoch and version",
            &["HSET sale epoch 6 version 1"],
            "",
            r#"epoch 6 open seq 4 token "" sound true version 1 window 1-4102444800000 stock 1=10,2=5 intact false book [] counts false"#,
            UNCHANGED,
        ),
        Row(
            "half of one",
            &["DEL sale stock", "HSET sale epoch 7 state loading"],
            "o@A",
            r#"epoch 7 loading seq 0 token "" sound false version 0 window 0-0 stock  intact true book [""] counts false"#,
            UNCHANGED,
        ),
    ];
    check(&[], &rows, act_look).await;
}

#[tokio::test]
async fn look_says_what_is_damaged() {
    let rows = [
        Row(
            "a book of another type",
            &["SET book x"],
            "o@A",
            r#"epoch 7 open seq 4 token "" sound true version 2 window 1-4102444800000 stock 1=10,2=5 intact false book [""] counts false"#,
            UNCHANGED,
        ),
        Row(
            "a book that was removed",
            &["DEL book"],
            "o@A",
            r#"epoch 7 open seq 4 token "" sound true version 2 window 1-4102444800000 stock 1=10,2=5 intact false book [""] counts false"#,
            UNCHANGED,
        ),
        Row(
            "a book of another epoch",
            &["HSET book epoch 6"],
            "o@A",
            r#"epoch 7 open seq 4 token "" sound true version 2 window 1-4102444800000 stock 1=10,2=5 intact false book [""] counts false"#,
            UNCHANGED,
        ),
        Row(
            "stock and product of another type",
            &["DEL stock product", "SET stock x", "SET product x"],
            "",
            r#"epoch 7 open seq 4 token "" sound true version 2 window 1-4102444800000 stock  intact true book [] counts true"#,
            UNCHANGED,
        ),
        Row(
            "a queue of another type",
            &["SET queue x"],
            "",
            r#"epoch 7 open seq 4 token "" sound true version 2 window 1-4102444800000 stock 1=10,2=5 intact false book [] counts false"#,
            UNCHANGED,
        ),
        Row(
            "no queue",
            &["DEL queue"],
            "",
            r#"epoch 7 open seq 4 token "" sound true version 2 window 1-4102444800000 stock 1=10,2=5 intact false book [] counts false"#,
            UNCHANGED,
        ),
        Row(
            "a queue without its group",
            &["XGROUP DESTROY queue drain", "XGROUP CREATE queue other 0"],
            "",
            r#"epoch 7 open seq 4 token "" sound true version 2 window 1-4102444800000 stock 1=10,2=5 intact false book [] counts false"#,
            UNCHANGED,
        ),
        Row("a sale of another type", &["DEL sale", "SET sale x"], "o@A", "missing", UNCHANGED),
    ];
    check(&[], &rows, act_look).await;
}

/// `o fields of parked orders | further fields`; answered as the snapshot.
async fn act_audit(scene: &Scene, call: &str) -> Result<String, CallError> {
    let (parked, further) = call.split_once('|').unwrap();
    let fields = |text: &str| text.split_whitespace().map(|field| scene.bytes(field)).collect::<Vec<_>>();
    let seen = audit(&scene.link, &scene.keys, EPOCH, &fields(parked), &fields(further)).await?;
    let mut stock: Vec<_> = seen.stock.iter().map(|(product, left)| format!("{product}={left}")).collect();
    stock.sort();
    let entry = |(Entry { id, fields }, state): &(Entry, Vec<u8>)| {
        format!("{id} {} ({})", shown(scene, fields).join(" "), scene.shown(state))
    };
    let entries: Vec<_> = seen.entries.iter().map(entry).collect();
    Ok(format!(
        "seq {} stock {} entries {entries:?} parked {:?} further {:?}",
        seen.seq,
        stock.join(","),
        shown(scene, &seen.parked),
        shown(scene, &seen.further)
    ))
}

#[tokio::test]
async fn audit_takes_one_look() {
    let rows = [
        Row("nothing sold", &[], "|", "seq 4 stock 1=10,2=5 entries [] parked [] further []", UNCHANGED),
        Row(
            "entries with their states",
            &[
                "XADD queue 1-0 order @A user ann",
                "XADD queue 2-0 x y",
                "XADD queue 3-0 order @B",
                // Of version 1.
                "XADD queue 4-0 order %C",
                "XADD queue 5-0 order 36-bytes-that-are-no-order-id-at-all.",
                "HSET book o@A P1 o@C Q1",
                "HSET stock 1 -2",
            ],
            "|",
            r#"seq 4 stock 1=-2,2=5 entries ["1-0 order @A user ann (P1)", "2-0 x y ()", "3-0 order @B ()", "4-0 order %C (Q1)", "5-0 order 36-bytes-that-are-no-order-id-at-all. ()"] parked [] further []"#,
            UNCHANGED,
        ),
        Row(
            "fields of the book",
            &["HSET book o@A P1 qann/1 2 kann/k1 @A$1"],
            "o@A o@B | qann/1 qann/2 kann/k1",
            r#"seq 4 stock 1=10,2=5 entries [] parked ["P1", ""] further ["2", "", "@A$1"]"#,
            UNCHANGED,
        ),
        Row(
            "no queue",
            &["DEL queue"],
            "|",
            "seq 4 stock 1=10,2=5 entries [] parked [] further []",
            UNCHANGED,
        ),
    ];
    check(&[], &rows, act_audit).await;
    check(&[], &guard_rows("|"), act_audit).await;
}
