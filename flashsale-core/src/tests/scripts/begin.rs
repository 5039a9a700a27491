use super::{
    Row, Scene, UNCHANGED, check, guard_rows,
    scene::{EPOCH, order_id},
};
use crate::{
    OrderId,
    keys::book_order,
    link::CallError,
    queue::Entry,
    scripts::{Begun, begin},
};

/// `entry order | …`, `-` for what it does not have; answered as `word | …`.
async fn act(scene: &Scene, call: &str) -> Result<String, CallError> {
    let entries: Vec<_> = call.split(" | ").map(|text| entry(scene, text)).collect();
    let begun = begin(&scene.link, &scene.keys, EPOCH, &entries).await?;
    let words: Vec<_> = begun.iter().map(|begun| format!("{begun:?}").to_lowercase()).collect();
    Ok(words.join(" | "))
}

pub(super) fn entry(scene: &Scene, text: &str) -> Entry {
    let (id, order) = text.split_once(' ').unwrap();
    let fields = if order == "-" { vec![] } else { vec![b"order".to_vec(), scene.bytes(order)] };
    Entry { id: if id == "-" { String::new() } else { id.to_owned() }, fields }
}

#[tokio::test]
async fn says_where_each_order_stands() {
    const QUEUED: &[&str] = &[
        "XADD queue 1-0 order @A",
        "XADD queue 2-0 order @B",
        "HSET book o@A Q1 o@B P1 o@C C1 o@D F1~sold-out",
    ];
    const BEGUN: &[&str] = &["-book o@A Q1", "+book o@A Pnow"];
    let rows = [
        Row("a queued order", &[], "1-0 @A", "processing", BEGUN),
        Row("one in another drainer's hands", &[], "2-0 @B", "processing", UNCHANGED),
        Row("a confirmed one", &["XADD queue 3-0 order @C"], "3-0 @C", "confirmed", UNCHANGED),
        Row("a failed one", &["XADD queue 3-0 order @D"], "3-0 @D", "failed", UNCHANGED),
        Row("an entry that was deleted", &["XDEL queue 1-0"], "1-0 @A", "gone", UNCHANGED),
        Row("an entry that holds another order now", &[], "2-0 @A", "gone", UNCHANGED),
        Row("an entry that holds no order now", &["XADD queue 3-0 x y"], "3-0 @A", "gone", UNCHANGED),
        Row("a queue that is lost", &["DEL queue"], "1-0 @A", "gone", UNCHANGED),
        Row("no state", &["HDEL book o@A"], "1-0 @A", "missing", UNCHANGED),
        Row("a state that is none", &["HSET book o@A X1"], "1-0 @A", "missing", UNCHANGED),
        Row("no book", &["DEL book"], "1-0 @A | 2-0 @B", "fenced book", UNCHANGED),
        Row("a book of another epoch", &["HSET book epoch 6"], "1-0 @A", "fenced book", UNCHANGED),
        Row("an entry without an order", &["XADD queue 3-0 x y"], "3-0 -", "missing", UNCHANGED),
        Row("an entry whose order is no id", &["XADD queue 3-0 order x"], "3-0 x", "missing", UNCHANGED),
        Row("a parked order, begun", &[], "- @B", "processing", UNCHANGED),
        Row("a parked order, recovered as queued", &["XDEL queue 1-0"], "- @A", "processing", BEGUN),
        Row("a parked order that is final", &[], "- @C | - @D", "confirmed | failed", UNCHANGED),
        Row("a parked order that is lost", &[], "- @E", "missing", UNCHANGED),
        Row(
            "a batch keeps its order",
            &[],
            "- @D | 2-0 @A | - @E | 1-0 @A | - @C | 2-0 @B",
            "failed | gone | missing | processing | confirmed | processing",
            BEGUN,
        ),
        Row(
            "of version 1, with its id as text",
            &["XADD queue 3-0 order %A", "XADD queue 4-0 order %C"],
            "3-0 %A | 4-0 %C | 3-0 %B",
            "processing | confirmed | gone",
            BEGUN,
        ),
        Row(
            "others' entries in between",
            &["XADD queue 3-0 order @B", "XADD queue 4-0 order @C", "XADD queue 5-0 order @D"],
            "1-0 @A | 5-0 @D | 4-0 @C | 4-0 @D",
            "processing | failed | confirmed | gone",
            BEGUN,
        ),
        Row("one order twice", &[], "1-0 @A | 1-0 @A", "processing | processing", BEGUN),
    ];
    check(QUEUED, &rows, act).await;
    check(QUEUED, &guard_rows("1-0 @A"), act).await;
}

#[tokio::test]
async fn the_largest_batch_fits() {
    let scene = Scene::open().await;
    let mut states = redis::cmd("HSET");
    states.arg(&scene.keys.book);
    let orders: Vec<_> = (1..=1000).map(|number| order_id(scene.sale, number)).collect();
    for order in &orders {
        states.arg(book_order(*order)).arg(scene.bytes("Q1"));
    }
    scene.link.query::<()>(&states).await.unwrap();
    let entry = |order: &OrderId| Entry {
        id: String::new(),
        fields: vec![b"order".to_vec(), order.packed().to_vec()],
    };
    let entries: Vec<_> = orders.iter().map(entry).collect();
    let begun = begin(&scene.link, &scene.keys, EPOCH, &entries).await.unwrap();
    assert_eq!(begun, vec![Begun::Processing; 1000]);
    let state = scene.state().await;
    let begun = |order: &OrderId| format!("book {} Pnow", scene.shown(&book_order(*order)));
    assert!(orders.iter().all(|order| state.contains(&begun(order))));
}
