use super::{
    Row, Scene, UNCHANGED, check, guard_rows,
    scene::{EPOCH, error_text, fingerprint, load_sale, order_id},
};
use crate::{
    FailureReason, Items, ProductId,
    keys::{book_order, book_quota},
    link::CallError,
    queue::{Holding, Verdict},
    sale::{Epoch, Seq},
    scripts::{SETTLE_BATCH, Settlement, settle},
};

const LUA: &str = include_str!("../../../lua/settle.lua");

/// Two orders of ann in a drainer's hands, and one of bob that nobody has read.
const IN_HAND: &[&str] = &[
    "XADD queue 1-0 order @A",
    "XADD queue 2-0 order @B",
    "XADD queue 3-0 order @C",
    "XREADGROUP GROUP drain me COUNT 2 STREAMS queue >",
    "HSET book o@A P1 kann/k1 @A$1 o@B P1 kann/k2 @B$2 qann/1 3 qann/2 1",
    "HSET book o@C Q1 kbob/k1 @C$1 qbob/1 1",
    "HSET stock 1 6 2 4",
];
const CONFIRM_A: &str = "1-0 @A ann k1 $1 1x2,2x1 confirmed";
const FAIL_A: &str = "1-0 @A ann k1 $1 1x2,2x1 failed sold-out";
const A_CONFIRMED: &[&str] = &["-book o@A P1", "+book o@A Cnow", "-queue 1-0 order=@A", "-pending 1-0 of me"];
const A_FAILED: &[&str] = &[
    "-book o@A P1",
    "+book o@A Fnow sold-out",
    "-stock 1 6",
    "+stock 1 8",
    "-stock 2 4",
    "+stock 2 5",
    "-book qann/1 3",
    "+book qann/1 1",
    "-book qann/2 1",
    "+book qann/2 0",
    "-queue 1-0 order=@A",
    "-pending 1-0 of me",
];
const A_ACKNOWLEDGED: &[&str] = &["-queue 1-0 order=@A", "-pending 1-0 of me"];

/// `entry order user key fingerprint product×units,… verdict | …` or `entry order ? verdict`, where the
/// verdict is `confirmed`, `failed reason [key's order, its fingerprint]` or `parked`; answered as
/// `missing: …; given back: n`; or `raw` and the script's arguments.
async fn act(scene: &Scene, call: &str) -> Result<String, CallError> {
    if let Some(arguments) = call.strip_prefix("raw ") {
        return scene.raw(LUA, arguments).await;
    }
    let batch: Vec<_> = call.split(" | ").map(|text| settlement(scene, text)).collect();
    let settled = settle(&scene.link, &scene.keys, EPOCH, &batch).await?;
    let missing: Vec<_> = settled.missing.iter().map(|field| scene.shown(field)).collect();
    Ok(format!("missing: {}; given back: {}", missing.join(" "), settled.given_back))
}

fn settlement(scene: &Scene, text: &str) -> Settlement {
    let words: Vec<_> = text.split(' ').collect();
    let entry = super::begin::entry(scene, &words[..2].join(" "));
    let (holding, verdict) = if words[2] == "?" {
        (None, &words[3..])
    } else {
        let units = words[5].split(',').map(|line| line.split_once('x').unwrap());
        let holding = Holding {
            id: scene.order(words[1]),
            user: words[2].parse().unwrap(),
            key: words[3].parse().unwrap(),
            fingerprint: fingerprint(words[4]),
            seq: Seq(5),
            units: units.map(|(id, units)| (id.parse().unwrap(), units.parse().unwrap())).collect(),
        };
        (Some(holding), &words[6..])
    };
    let verdict = match verdict {
        ["confirmed"] => Verdict::Confirmed,
        ["parked"] => Verdict::Parked,
        ["failed", reason, holder @ ..] => Verdict::Failed {
            reason: FailureReason::parse(reason).unwrap(),
            key_holder: match holder {
                [order, of] => Some((scene.order(order), fingerprint(of))),
                _ => None,
            },
        },
        other => panic!("{other:?} is no verdict"),
    };
    Settlement { entry, holding, verdict }
}

#[tokio::test]
async fn writes_each_verdict_once() {
    const ONCE: &str = "missing: ; given back: 1";
    const NOTHING: &str = "missing: ; given back: 0";
    let rows = [
        Row("confirmed", &[], CONFIRM_A, NOTHING, A_CONFIRMED),
        Row(
            "confirmed before begin",
            &["HSET book o@A Q1"],
            CONFIRM_A,
            NOTHING,
            &["-book o@A Q1", "+book o@A Cnow", "-queue 1-0 order=@A", "-pending 1-0 of me"],
        ),
        Row(
            "confirmed, although its key was lost",
            &["HDEL book kann/k1"],
            CONFIRM_A,
            NOTHING,
            &[
                "-book o@A P1",
                "+book o@A Cnow",
                "+book kann/k1 @A$1",
                "-queue 1-0 order=@A",
                "-pending 1-0 of me",
            ],
        ),
        Row(
            "of version 1, with its id as text",
            &["XADD queue 4-0 order %A"],
            "4-0 %A ann k1 $1 1x2,2x1 confirmed",
            NOTHING,
            &["-book o@A P1", "+book o@A Cnow", "-queue 4-0 order=%A"],
        ),
        Row("failed", &[], FAIL_A, ONCE, A_FAILED),
        Row(
            "failed, never read",
            &[],
            "3-0 @C bob k1 $1 1x1 failed rejected",
            ONCE,
            &[
                "-book o@C Q1",
                "+book o@C Fnow rejected",
                "-stock 1 6",
                "+stock 1 7",
                "-book qbob/1 1",
                "+book qbob/1 0",
                "-queue 3-0 order=@C",
            ],
        ),
        Row(
            "a duplicate's key points to the first order",
            &["HSET book kann/k2 @B$2"],
            "2-0 @B ann k2 $2 1x1 failed duplicate @D $4",
            ONCE,
            &[
                "-book o@B P1",
                "+book o@B Fnow duplicate",
                "-stock 1 6",
                "+stock 1 7",
                "-book qann/1 3",
                "+book qann/1 2",
                "-book kann/k2 @B$2",
                "+book kann/k2 @D$4",
                "-queue 2-0 order=@B",
                "-pending 2-0 of me",
            ],
        ),
        Row(
            "a replayed one, without an entry",
            &["XACK queue drain 1-0", "XDEL queue 1-0"],
            "- @A ann k1 $1 1x2,2x1 confirmed",
            NOTHING,
            &["-book o@A P1", "+book o@A Cnow"],
        ),
        Row(
            "the words of it",
            &["HDEL book o@A"],
            "raw 2 7 1-0 @A o@A failed sold-out '' '' 1 1 1 qann/1 2-0 @B o@B failed rejected '' '' 1 1 1 qann/1",
            "ok [o@A] [o@B]",
            &[
                "-book o@B P1",
                "+book o@B Fnow rejected",
                "-stock 1 6",
                "+stock 1 7",
                "-book qann/1 3",
                "+book qann/1 2",
                "-queue 1-0 order=@A",
                "-pending 1-0 of me",
                "-queue 2-0 order=@B",
                "-pending 2-0 of me",
            ],
        ),
    ];
    check(IN_HAND, &rows, act).await;
}

#[tokio::test]
async fn acknowledges_what_it_does_not_judge() {
    const NOTHING: &str = "missing: ; given back: 0";
    let rows = [
        Row("parked keeps state and units", &[], "1-0 @A ann k1 $1 1x2,2x1 parked", NOTHING, A_ACKNOWLEDGED),
        Row("parked, unreadable", &[], "1-0 @A ? parked", NOTHING, A_ACKNOWLEDGED),
        Row("parked, no state", &["HDEL book o@A"], "1-0 @A ? parked", NOTHING, A_ACKNOWLEDGED),
        Row(
            "parked, an entry without an order",
            &["XADD queue 4-0 x y"],
            "4-0 - ? parked",
            NOTHING,
            &["-queue 4-0 x=y"],
        ),
        Row(
            "a final one that cannot be read",
            &["HSET book o@A C1"],
            "1-0 @A ? confirmed",
            NOTHING,
            A_ACKNOWLEDGED,
        ),
    ];
    check(IN_HAND, &rows, act).await;
}

#[tokio::test]
async fn gives_back_only_once_and_only_what_is_known() {
    const ONCE: &str = "missing: ; given back: 1";
    const NOTHING: &str = "missing: ; given back: 0";
    const MISSING: &str = "missing: o@A; given back: 0";
    let confirm_then_fail = "1-0 @A ann k1 $1 1x2,2x1 confirmed | 1-0 @A ann k1 $1 1x2,2x1 failed sold-out";
    let fail_then_confirm = "1-0 @A ann k1 $1 1x2,2x1 failed sold-out | 1-0 @A ann k1 $1 1x2,2x1 confirmed";
    let fail_twice = "1-0 @A ann k1 $1 1x2,2x1 failed sold-out | 1-0 @A ann k1 $1 1x2,2x1 failed sold-out";
    let rows = [
        Row("confirmed before", &["HSET book o@A C1"], CONFIRM_A, NOTHING, A_ACKNOWLEDGED),
        Row("confirmed before, failed now", &["HSET book o@A C1"], FAIL_A, NOTHING, A_ACKNOWLEDGED),
        Row("failed before", &["HSET book o@A F1~sold-out"], FAIL_A, NOTHING, A_ACKNOWLEDGED),
        Row(
            "failed before, confirmed now",
            &["HSET book o@A F1~sold-out"],
            CONFIRM_A,
            NOTHING,
            A_ACKNOWLEDGED,
        ),
        Row(
            "a duplicate before: its key stays",
            &["HSET book o@A F1~duplicate kann/k1 @D$4"],
            CONFIRM_A,
            NOTHING,
            A_ACKNOWLEDGED,
        ),
        Row(
            "a stock below zero is given back to",
            &["HSET stock 1 -5"],
            "2-0 @B ann k2 $2 1x1 failed over-quota",
            ONCE,
            &[
                "-book o@B P1",
                "+book o@B Fnow over-quota",
                "-stock 1 -5",
                "+stock 1 -4",
                "-book qann/1 3",
                "+book qann/1 2",
                "-queue 2-0 order=@B",
                "-pending 2-0 of me",
            ],
        ),
        Row("twice in a batch", &[], fail_twice, ONCE, A_FAILED),
        Row("failed, then confirmed, in a batch", &[], fail_then_confirm, ONCE, A_FAILED),
        Row("confirmed, then failed, in a batch", &[], confirm_then_fail, NOTHING, A_CONFIRMED),
        Row("confirmed, no state", &["HDEL book o@A"], CONFIRM_A, MISSING, A_ACKNOWLEDGED),
        Row("failed, no state", &["HDEL book o@A"], FAIL_A, MISSING, A_ACKNOWLEDGED),
        Row("a state that is none", &["HSET book o@A X1"], CONFIRM_A, MISSING, A_ACKNOWLEDGED),
        Row("failed, its stock is lost", &["HDEL stock 2"], FAIL_A, MISSING, A_ACKNOWLEDGED),
        Row("failed, its quota is no number", &["HSET book qann/1 x"], FAIL_A, MISSING, A_ACKNOWLEDGED),
        Row(
            "no state, no entry",
            &["HDEL book o@A"],
            "- @A ann k1 $1 1x2,2x1 failed sold-out",
            MISSING,
            UNCHANGED,
        ),
        Row(
            "no state, twice",
            &["HDEL book o@A"],
            fail_twice,
            "missing: o@A o@A; given back: 0",
            A_ACKNOWLEDGED,
        ),
        Row(
            "another order's entry stays",
            &[],
            "2-0 @A ann k1 $1 1x2,2x1 confirmed",
            NOTHING,
            &["-book o@A P1", "+book o@A Cnow"],
        ),
        Row(
            "an entry that is gone",
            &["XDEL queue 1-0"],
            CONFIRM_A,
            NOTHING,
            &["-book o@A P1", "+book o@A Cnow"],
        ),
        Row("an entry of no order stays", &[], "1-0 - ? parked", NOTHING, UNCHANGED),
        Row(
            "neighbours in a batch",
            &["HDEL book o@A"],
            "3-0 @C bob k1 $1 1x1 confirmed | 1-0 @A ann k1 $1 1x2,2x1 failed sold-out | 2-0 @B ? parked",
            MISSING,
            &[
                "-book o@C Q1",
                "+book o@C Cnow",
                "-queue 1-0 order=@A",
                "-queue 2-0 order=@B",
                "-queue 3-0 order=@C",
                "-pending 1-0 of me",
                "-pending 2-0 of me",
            ],
        ),
    ];
    check(IN_HAND, &rows, act).await;
    check(IN_HAND, &guard_rows(FAIL_A), act).await;
}

/// A batch is read as one stretch of the stream, which may hold what is not the batch's.
#[tokio::test]
async fn entries_in_between_are_left_to_whose_they_are() {
    let row = Row(
        "an entry in between that is another drainer's",
        &[],
        "1-0 @A ann k1 $1 1x2,2x1 confirmed | 3-0 @C bob k1 $1 1x1 confirmed",
        "missing: ; given back: 0",
        &[
            "-book o@A P1",
            "+book o@A Cnow",
            "-book o@C Q1",
            "+book o@C Cnow",
            "-queue 1-0 order=@A",
            "-queue 3-0 order=@C",
            "-pending 1-0 of me",
        ],
    );
    check(IN_HAND, &[row], act).await;
}

#[tokio::test]
async fn damage_and_nonsense_change_nothing() {
    const WRONG_TYPE: &str = "error WRONGTYPE Operation against a key holding the wrong kind of value";
    let rows = [
        Row("stock of another type", &["DEL stock", "SET stock x"], FAIL_A, WRONG_TYPE, UNCHANGED),
        Row("a book that was removed", &["DEL book"], FAIL_A, "fenced book", UNCHANGED),
        Row("a book of another type", &["SET book x"], FAIL_A, WRONG_TYPE, UNCHANGED),
        Row("a queue of another type", &["SET queue x"], FAIL_A, WRONG_TYPE, UNCHANGED),
    ];
    check(IN_HAND, &rows, act).await;

    for quantity in ["''", "0", "-1", "1.5", "0x2", "1e1", "nan", "100000", "x"] {
        let scene = Scene::open().await;
        for command in IN_HAND {
            scene.run(command).await;
        }
        let before = scene.state().await;
        // The good verdict before it is not written either.
        let call = format!(
            "2 7 2-0 @B o@B failed rejected '' '' 1 1 1 qann/1 \
             1-0 @A o@A failed sold-out '' '' 2 1 2 qann/1 2 {quantity} qann/2"
        );
        let answer = scene.raw(LUA, &call).await;
        let Err(CallError::Refused(error)) = answer else { panic!("{quantity}: {answer:?}") };
        assert_eq!(scene.show(&error_text(&error)), "error INVALID quantity of product 2", "{quantity}");
        assert_eq!(scene.state().await, before, "{quantity}");
    }
}

#[tokio::test]
async fn the_largest_batch_fits() {
    let scene = Scene::open().await;
    let lines = i64::try_from(Items::MAX_LINES).unwrap();
    let products: Vec<_> = (1..=lines).map(|id| (id, 0, 2, 500)).collect();
    load_sale(&scene.link, &scene.keys, Epoch(8), &products).await;
    let mut book = redis::cmd("HSET");
    book.arg(&scene.keys.book);
    let batch: Vec<_> = (1..=u16::try_from(SETTLE_BATCH).unwrap())
        .map(|number| {
            let id = order_id(scene.sale, number);
            let units = (1..=lines).map(|id| (ProductId::try_from(id).unwrap(), 2)).collect();
            let mut settlement = settlement(&scene, &format!("- @A user-{number} k $1 1x1 failed rejected"));
            settlement.entry.fields[1] = id.packed().to_vec();
            let holding = settlement.holding.as_mut().unwrap();
            (holding.id, holding.units) = (id, units);
            settlement
        })
        .collect();
    for holding in batch.iter().filter_map(|settlement| settlement.holding.as_ref()) {
        book.arg(book_order(holding.id)).arg(scene.bytes("P1"));
        for (product, units) in &holding.units {
            book.arg(book_quota(&holding.user, *product)).arg(units);
        }
    }
    scene.link.query::<()>(&book).await.unwrap();
    let settled = settle(&scene.link, &scene.keys, Epoch(8), &batch).await.unwrap();
    assert_eq!((settled.missing.len(), settled.given_back), (0, SETTLE_BATCH));
    let state = scene.state().await;
    assert!((1..=lines).all(|id| state.contains(&format!("stock {id} 1000"))));
    assert_eq!(
        state.iter().filter(|line| line.starts_with("book q") && line.ends_with(" 0")).count(),
        500 * 20
    );
}
