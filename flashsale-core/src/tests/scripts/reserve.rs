use std::time::Duration;

use super::{
    Row, Scene, UNCHANGED, check, guard_rows,
    scene::{EPOCH, SEQ, error_text, fingerprint},
};
use crate::{
    Items, Quantity, Refusal,
    link::CallError,
    sale::{Epoch, Seq},
    scripts::{Answer, Reservation, Reserved, reserve},
};

const LUA: &str = include_str!("../../../lua/reserve.lua");
const DEADLINE: Duration = Duration::from_secs(20);

/// `[epoch=…] [seen=…] [not_after=…] | order user key fingerprint product×quantity… [request=…] | …`, answered as
/// `seq: answer | …`; or `raw` and the script's arguments.
async fn act(scene: &Scene, call: &str) -> Result<String, CallError> {
    if let Some(arguments) = call.strip_prefix("raw ") {
        return scene.raw(LUA, arguments).await;
    }
    let (mut epoch, mut seen, mut not_after) = (EPOCH, SEQ, i64::MAX);
    let mut orders = Vec::new();
    for part in call.split(" | ") {
        match part.split_once('=') {
            Some(("epoch", number)) => epoch = Epoch(number.parse().unwrap()),
            Some(("seen", number)) => seen = Seq(number.parse().unwrap()),
            Some(("not_after", us)) => not_after = us.parse().unwrap(),
            _ => orders.push(reservation(scene, part)),
        }
    }
    let orders: Vec<_> = orders.iter().collect();
    match reserve(&scene.link, &scene.keys, epoch, seen, not_after, &orders, DEADLINE).await? {
        Reserved::Late { redis_us } => Ok(format!("late {redis_us}")),
        Reserved::Decided { seq, redis_us, answers } => {
            assert_eq!(scene.show(&redis_us.to_string()), "now");
            Ok(format!("{seq}: {}", answers.iter().map(answer_text).collect::<Vec<_>>().join(" | ")))
        }
    }
}

fn reservation(scene: &Scene, text: &str) -> Reservation {
    let (text, request) = text.split_once(" request=").map_or((text, None), |(text, id)| (text, Some(id)));
    let mut words = text.split(' ');
    let mut word = || words.next().unwrap();
    let (id, user, key) = (scene.order(word()), word().parse().unwrap(), word().parse().unwrap());
    let fingerprint = fingerprint(word());
    let line = |line: &str| {
        let (product, quantity) = line.split_once('x').unwrap();
        (product.parse().unwrap(), Quantity::try_from(quantity.parse::<i64>().unwrap()).unwrap())
    };
    let request_id = request.map(|id| id.parse().unwrap());
    Reservation { id, user, key, fingerprint, items: Items::merge(words.map(line)).unwrap(), request_id }
}

fn answer_text(answer: &Answer) -> String {
    match answer {
        Answer::Admitted => "admitted".to_owned(),
        Answer::Replayed(id) => format!("replayed {id}"),
        Answer::IdTaken => "id-taken".to_owned(),
        Answer::Refused(refusal) => match refusal {
            Refusal::UnknownProduct(product) => format!("unknown-product {product}"),
            Refusal::OverQuota { product, limit, held } => format!("over-quota {product} {limit} {held}"),
            Refusal::SoldOut { product, left } => format!("sold-out {product} {left}"),
            other => other.code().to_owned(),
        },
    }
}

#[tokio::test]
async fn admits_all_or_nothing() {
    let rows = [
        Row(
            "one order of two products",
            &[],
            "@A ann k1 $1 1x2 2x1",
            "5: admitted",
            &[
                "-sale seq 4",
                "-stock 1 10",
                "-stock 2 5",
                "+sale seq 5",
                "+stock 1 8",
                "+stock 2 4",
                "+book kann/k1 @A$1",
                "+book o@A Qnow",
                "+book qann/1 2",
                "+book qann/2 1",
                "+queue new1 order=@A seq=5 epoch=7 user=ann key=/k1 lines=1:2:1000,2:1:2000",
            ],
        ),
        Row(
            "the last units, up to the limit",
            &["HSET stock 1 2", "HSET book qann/1 1", "HSET product 1 3:5"],
            "@A ann k1 $1 1x2",
            "5: admitted",
            &[
                "-sale seq 4",
                "-stock 1 2",
                "-book qann/1 1",
                "+sale seq 5",
                "+stock 1 0",
                "+book qann/1 3",
                "+book kann/k1 @A$1",
                "+book o@A Qnow",
                "+queue new1 order=@A seq=5 epoch=7 user=ann key=/k1 lines=1:2:5",
            ],
        ),
        Row(
            "the request's name goes with its entry alone",
            &[],
            "@A ann k1 $1 1x1 request=r-1:a/b | @B bob k1 $1 1x1",
            "6: admitted | admitted",
            &[
                "-sale seq 4",
                "-stock 1 10",
                "+sale seq 6",
                "+stock 1 8",
                "+book kann/k1 @A$1",
                "+book o@A Qnow",
                "+book qann/1 1",
                "+book kbob/k1 @B$1",
                "+book o@B Qnow",
                "+book qbob/1 1",
                "+queue new1 order=@A seq=5 epoch=7 user=ann key=/k1 lines=1:1:1000 request=r-1:a/b",
                "+queue new2 order=@B seq=6 epoch=7 user=bob key=/k1 lines=1:1:1000",
            ],
        ),
    ];
    check(&[], &rows, act).await;
}

#[tokio::test]
async fn refuses_and_leaves_nothing_behind() {
    const BUY: &str = "@A ann k1 $1 1x2";
    let rows = [
        Row("more than is left", &["HSET stock 1 1"], BUY, "4: sold-out 1 1", UNCHANGED),
        Row("nothing is left", &["HSET stock 1 0"], BUY, "4: sold-out 1 0", UNCHANGED),
        Row("less than nothing is left", &["HSET stock 1 -3"], BUY, "4: sold-out 1 0", UNCHANGED),
        Row(
            "the word of it",
            &["HSET stock 1 -3"],
            "raw 2 7 4 9e15 @A ann /k1 $1 '' 1:2",
            "ok 4 now [sold_out 1 -3]",
            UNCHANGED,
        ),
        Row(
            "only the second product is sold out",
            &["HSET stock 2 0"],
            "@A ann k1 $1 1x2 2x1",
            "4: sold-out 2 0",
            UNCHANGED,
        ),
        Row("above the limit at once", &[], "@A ann k1 $1 1x4", "4: over-quota 1 3 0", UNCHANGED),
        Row(
            "above the limit with what is held",
            &["HSET book qann/1 2"],
            BUY,
            "4: over-quota 1 3 2",
            UNCHANGED,
        ),
        Row(
            "only the second product is above the limit",
            &["HSET book qann/2 2"],
            "@A ann k1 $1 1x2 2x1",
            "4: over-quota 2 2 2",
            UNCHANGED,
        ),
        Row(
            "quota is told before stock",
            &["HSET stock 1 0", "HSET book qann/2 2"],
            "@A ann k1 $1 1x2 2x1",
            "4: over-quota 2 2 2",
            UNCHANGED,
        ),
        Row("a product of another sale", &[], "@A ann k1 $1 9x1", "4: unknown-product 9", UNCHANGED),
        Row(
            "only the second product is unknown",
            &["HSET stock 1 0"],
            "@A ann k1 $1 1x1 9x1",
            "4: unknown-product 9",
            UNCHANGED,
        ),
        Row("another order has this id", &["HSET book o@A F1~sold-out"], BUY, "4: id-taken", UNCHANGED),
        Row("it came too late", &[], "not_after=1 | @A ann k1 $1 1x2", "late now", UNCHANGED),
    ];
    check(&[], &rows, act).await;
}

#[tokio::test]
async fn a_key_comes_before_everything_else() {
    const HELD: &[&str] = &["HSET book kann/k1 @B$1 o@B C1 qann/1 3", "HSET stock 1 0"];
    const AGAIN: &str = "@A ann k1 $1 1x2";
    const OTHER: &str = "@A ann k1 $2 1x1";
    let rows = [
        Row("the same request again", &[], AGAIN, "4: replayed @B", UNCHANGED),
        Row("again, of a failed order", &["HSET book o@B F1~sold-out"], AGAIN, "4: replayed @B", UNCHANGED),
        Row("again, its state forgotten", &["HDEL book o@B"], AGAIN, "4: replayed @B", UNCHANGED),
        Row("again, in a paused sale", &["HSET sale state paused"], AGAIN, "4: replayed @B", UNCHANGED),
        Row("again, in a closed sale", &["HSET sale state closed"], AGAIN, "4: replayed @B", UNCHANGED),
        Row("again, after the end", &["HSET sale ends_ms 2"], AGAIN, "4: replayed @B", UNCHANGED),
        Row("again, of a product that is gone", &["HDEL product 1"], AGAIN, "4: replayed @B", UNCHANGED),
        Row("again, but too late", &[], "not_after=1 | @A ann k1 $1 1x2", "late now", UNCHANGED),
        Row("another request under the key", &[], OTHER, "4: idempotency-key-reused", UNCHANGED),
        Row(
            "another, in a closed sale",
            &["HSET sale state closed"],
            OTHER,
            "4: idempotency-key-reused",
            UNCHANGED,
        ),
        Row(
            "a key that cannot be read",
            &["HSET book kann/k1 ?"],
            AGAIN,
            "4: idempotency-key-reused",
            UNCHANGED,
        ),
        Row(
            "of which it is not known any more what it asked for",
            &["HSET book kann/k1 @B$0"],
            OTHER,
            "4: replayed @B",
            UNCHANGED,
        ),
        Row("another user's key", &["HSET stock 1 5"], "@A bob k1 $1 9x1", "4: unknown-product 9", UNCHANGED),
        Row("the word of it", &[], "raw 2 7 4 9e15 @A ann /k1 $2 '' 1:2", "ok 4 now key_reused", UNCHANGED),
    ];
    check(HELD, &rows, act).await;
}

#[tokio::test]
async fn sells_only_while_the_sale_says_so() {
    const BUY: &str = "raw 2 7 4 9e15 @A ann /k1 $1 '' 1:2";
    const FUTURE: &str = "HSET sale starts_ms 4102444799999";
    let rows = [
        Row("closed", &["HSET sale state closed"], BUY, "ok 4 now closed", UNCHANGED),
        Row("closed after the end", &["HSET sale state closed ends_ms 2"], BUY, "ok 4 now closed", UNCHANGED),
        Row(
            "closed before the start",
            &["HSET sale state closed", FUTURE],
            BUY,
            "ok 4 now closed",
            UNCHANGED,
        ),
        Row("after the end", &["HSET sale ends_ms 2"], BUY, "ok 4 now ended", UNCHANGED),
        Row("paused after the end", &["HSET sale state paused ends_ms 2"], BUY, "ok 4 now ended", UNCHANGED),
        Row("paused", &["HSET sale state paused"], BUY, "ok 4 now paused", UNCHANGED),
        Row(
            "paused before the start",
            &["HSET sale state paused", FUTURE],
            BUY,
            "ok 4 now paused",
            UNCHANGED,
        ),
        Row("before the start", &[FUTURE], BUY, "ok 4 now not_started", UNCHANGED),
        Row(
            "before a product is looked at",
            &["HDEL product 1", FUTURE],
            BUY,
            "ok 4 now not_started",
            UNCHANGED,
        ),
        Row(
            "closed, to the caller",
            &["HSET sale state closed"],
            "@A ann k1 $1 1x2",
            "4: sale-ended",
            UNCHANGED,
        ),
        Row("ended, to the caller", &["HSET sale ends_ms 2"], "@A ann k1 $1 1x2", "4: sale-ended", UNCHANGED),
        Row(
            "paused, to the caller",
            &["HSET sale state paused"],
            "@A ann k1 $1 1x2",
            "4: sale-paused",
            UNCHANGED,
        ),
        Row("too early, to the caller", &[FUTURE], "@A ann k1 $1 1x2", "4: sale-not-open", UNCHANGED),
    ];
    check(&[], &rows, act).await;
}

#[tokio::test]
async fn is_fenced() {
    const BUY: &str = "@A ann k1 $1 1x2";
    let mut rows = guard_rows(BUY);
    rows.extend([
        Row("the caller has seen more", &[], "seen=5 | @A ann k1 $1 1x2", "fenced behind", UNCHANGED),
        Row("a product without its price", &["HDEL product 1"], BUY, "fenced product", UNCHANGED),
        Row("a product without stock", &["HDEL stock 1"], BUY, "fenced product", UNCHANGED),
        Row("all stock is gone", &["DEL stock"], BUY, "fenced product", UNCHANGED),
        Row("a stock that is no number", &["HSET stock 1 many"], BUY, "fenced product", UNCHANGED),
        Row("a product that cannot be read", &["HSET product 1 3"], BUY, "fenced product", UNCHANGED),
        Row("even a late one", &["DEL sale"], "not_after=1 | @A ann k1 $1 1x2", "fenced missing", UNCHANGED),
    ]);
    check(&[], &rows, act).await;
}

#[tokio::test]
async fn orders_of_a_batch_see_each_other() {
    const A_TOOK_3: &[&str] = &[
        "-sale seq 4",
        "-stock 1 10",
        "+sale seq 5",
        "+stock 1 7",
        "+book kann/k1 @A$1",
        "+book o@A Qnow",
        "+book qann/1 3",
        "+queue new1 order=@A seq=5 epoch=7 user=ann key=/k1 lines=1:3:1000",
    ];
    let rows = [
        Row("quota", &[], "@A ann k1 $1 1x3 | @B ann k2 $1 1x1", "5: admitted | over-quota 1 3 3", A_TOOK_3),
        Row("a key", &[], "@A ann k1 $1 1x3 | @B ann k1 $1 1x3", "5: admitted | replayed @A", A_TOOK_3),
        Row(
            "a key that is reused",
            &[],
            "@A ann k1 $1 1x3 | @B ann k1 $2 1x1",
            "5: admitted | idempotency-key-reused",
            A_TOOK_3,
        ),
        Row("an id", &[], "@A ann k1 $1 1x3 | @A bob k1 $1 1x3", "5: admitted | id-taken", A_TOOK_3),
        Row(
            "what was refused has no effect on what follows",
            &[],
            "@B ann k1 $2 1x4 | @A ann k1 $1 1x3 | @C bob k1 $2 1x1 9x1",
            "5: over-quota 1 3 0 | admitted | unknown-product 9",
            A_TOOK_3,
        ),
        Row(
            "stock",
            &["HSET stock 2 3"],
            "@A ann k1 $1 2x2 | @B bob k1 $1 1x1 2x2 | @C cid k1 $1 2x1",
            "6: admitted | sold-out 2 1 | admitted",
            &[
                "-sale seq 4",
                "-stock 2 3",
                "+sale seq 6",
                "+stock 2 0",
                "+book kann/k1 @A$1",
                "+book o@A Qnow",
                "+book qann/2 2",
                "+book kcid/k1 @C$1",
                "+book o@C Qnow",
                "+book qcid/2 1",
                "+queue new1 order=@A seq=5 epoch=7 user=ann key=/k1 lines=2:2:2000",
                "+queue new2 order=@C seq=6 epoch=7 user=cid key=/k1 lines=2:1:2000",
            ],
        ),
    ];
    check(&[], &rows, act).await;
}

#[tokio::test]
async fn damage_and_nonsense_change_nothing() {
    const BUY: &str = "@A ann k1 $1 1x2";
    const WRONG_TYPE: &str = "error WRONGTYPE Operation against a key holding the wrong kind of value";
    let rows = [
        Row("a queue of another type", &["DEL queue", "SET queue x"], BUY, WRONG_TYPE, UNCHANGED),
        Row(
            "a queue that can take no entry",
            &["XADD queue 18446744073709551615-18446744073709551615 order x"],
            BUY,
            "error ERR The stream has exhausted the last possible ID, unable to add more items",
            UNCHANGED,
        ),
        Row("stock of another type", &["DEL stock", "SET stock x"], BUY, WRONG_TYPE, UNCHANGED),
        Row("a book that was removed", &["DEL book"], BUY, "fenced book", UNCHANGED),
        Row("a book of another epoch", &["HSET book epoch 6"], BUY, "fenced book", UNCHANGED),
        Row("a book of another type", &["SET book x"], BUY, WRONG_TYPE, UNCHANGED),
        Row("a sale of another type", &["DEL sale", "SET sale x"], BUY, WRONG_TYPE, UNCHANGED),
        Row("no order", &[], "raw 2 7 4 9e15", "error INVALID number of orders", UNCHANGED),
    ];
    check(&[], &rows, act).await;
}

#[tokio::test]
async fn lines_are_plain_positive_numbers() {
    let quantities =
        ["", "0", "-1", "-100", "1.5", "0x2", "1e1", "nan", "inf", "+1", "01", "100000", "1~", "x"];
    let mut nonsense: Vec<_> = quantities.map(|quantity| format!("1:1,2:{quantity}")).into();
    let others =
        ["''", "1", "1:", ":1", "x:1", "01:1", "-1:1", "1:1,", ",1:1", "1:1;2:1", "1:1,,2:1", "1:1:1"];
    nonsense.extend(others.map(str::to_owned));
    // Each line alone would be within the limit.
    nonsense.push("1:2,2:1,1:2".to_owned());
    nonsense.push((1..=21).map(|product| format!("{product}:1")).collect::<Vec<_>>().join(","));
    for lines in nonsense {
        let scene = Scene::open().await;
        let before = scene.state().await;
        // The good order before it is not admitted either.
        let call = format!("2 7 4 9e15 @A ann /k1 $1 '' 1:1 @B bob /k1 $1 '' {lines}");
        let answer = scene.raw(LUA, &call).await;
        let Err(CallError::Refused(error)) = answer else { panic!("{lines}: {answer:?}") };
        let text = scene.show(&error_text(&error));
        assert_eq!(text, "error INVALID lines of an order of user bob", "{lines}");
        assert_eq!(scene.state().await, before, "{lines}");
    }
}
