use super::{Row, Scene, UNCHANGED, check};
use crate::{
    link::CallError,
    sale::{Epoch, SaleState, Seq},
    scripts::{LoadStep, load_start, load_step},
};

const LUA: &str = include_str!("../../../lua/load.lua");

/// `epoch token start` or `epoch token number step …`, as the steps are matched below; `raw` and the
/// script's arguments.
async fn act(scene: &Scene, call: &str) -> Result<String, CallError> {
    if let Some(arguments) = call.strip_prefix("raw ") {
        return scene.raw(LUA, arguments).await;
    }
    let words: Vec<_> = call.split(' ').collect();
    let (epoch, token) = (Epoch(words[0].parse().unwrap()), words[1]);
    if words[2] == "start" {
        // `start`, or `start` and the run id of the server that was looked at.
        let own = super::scene::server(&scene.link, &scene.keys).await;
        let server = words.get(3).map_or(own, |&server| server.to_owned());
        return Ok(format!("ok {}", load_start(&scene.link, &scene.keys, epoch, token, &server).await?));
    }
    let pairs: Vec<_> = words
        .iter()
        .filter_map(|word| word.split_once('='))
        .map(|(field, value)| (scene.bytes(field), scene.bytes(value)))
        .collect();
    let entries: Vec<_> = words[4..].iter().map(|&word| word.to_owned()).collect();
    let step = match words[3..] {
        ["clear"] => LoadStep::Clear,
        ["stock", ..] => LoadStep::Fields("stock", &pairs),
        ["product", ..] => LoadStep::Fields("product", &pairs),
        ["book", ..] => LoadStep::Fields("book", &pairs),
        ["queue", ..] => LoadStep::Queue(&entries),
        ["open", state, starts_ms, ends_ms, seq] => LoadStep::Open {
            state: SaleState::parse(state).unwrap(),
            starts_ms: starts_ms.parse().unwrap(),
            ends_ms: ends_ms.parse().unwrap(),
            seq: Seq(seq.parse().unwrap()),
        },
        _ => panic!("{call:?} is no step"),
    };
    load_step(&scene.link, &scene.keys, epoch, token, words[2].parse().unwrap(), &step).await?;
    Ok("ok".to_owned())
}

#[tokio::test]
async fn start_takes_the_sale_under_a_higher_epoch() {
    const NEW: &[&str] = &[
        "+sale version 2",
        "+sale epoch 1",
        "+sale state loading",
        "+sale token t",
        "+sale chunk 0",
        "+sale run_id RUN",
    ];
    const TAKEN: &[&str] = &[
        "-sale epoch 7",
        "+sale epoch 8",
        "-sale state open",
        "+sale state loading",
        "+sale token t",
        "+sale chunk 0",
    ];
    let rows = [
        Row("another server than was looked at", &[], "8 t start 0123abc", "fenced run_id", UNCHANGED),
        Row("of a newer version", &["HSET sale version 3"], "8 t start", "fenced version", UNCHANGED),
        Row("a Redis that knows nothing", &["DEL sale stock product book queue"], "1 t start", "ok 0", NEW),
        Row(
            "a sale key of another type",
            &["DEL sale stock product book queue", "SET sale x"],
            "1 t start",
            "ok 0",
            &[
                "-sale is a string",
                "+sale version 2",
                "+sale epoch 1",
                "+sale state loading",
                "+sale token t",
                "+sale chunk 0",
                "+sale run_id RUN",
            ],
        ),
        Row("an open sale", &[], "8 t start", "ok 4", TAKEN),
        Row(
            "of another version and server",
            &["HSET sale version 1 run_id 0123abcd"],
            "8 t start",
            "ok 4",
            &[
                "-sale epoch 7",
                "+sale epoch 8",
                "-sale state open",
                "+sale state loading",
                "+sale token t",
                "+sale chunk 0",
                "-sale version 1",
                "+sale version 2",
                "-sale run_id 0123abcd",
                "+sale run_id RUN",
            ],
        ),
        Row(
            "epochs are compared as numbers",
            &["HSET sale epoch 9"],
            "10 t start",
            "ok 4",
            &[
                "-sale epoch 9",
                "+sale epoch 10",
                "-sale state open",
                "+sale state loading",
                "+sale token t",
                "+sale chunk 0",
            ],
        ),
    ];
    check(&[], &rows, act).await;
}

#[tokio::test]
async fn start_is_refused_to_an_older_load() {
    let rows = [
        Row("the same epoch", &[], "7 t start", "fenced epoch", UNCHANGED),
        Row("a lower epoch", &[], "6 t start", "fenced epoch", UNCHANGED),
        Row(
            "the same call again",
            &["HSET sale state loading token t chunk 0"],
            "7 t start",
            "ok 4",
            UNCHANGED,
        ),
        Row(
            "again, after steps of it",
            &["HSET sale state loading token t chunk 3"],
            "7 t start",
            "ok 4",
            UNCHANGED,
        ),
        Row(
            "another load under the same epoch",
            &["HSET sale state loading token u chunk 3"],
            "7 t start",
            "fenced epoch",
            UNCHANGED,
        ),
        Row(
            "a newer load takes over",
            &["HSET sale state loading token u chunk 3"],
            "8 t start",
            "ok 4",
            &[
                "-sale epoch 7",
                "+sale epoch 8",
                "-sale token u",
                "+sale token t",
                "-sale chunk 3",
                "+sale chunk 0",
            ],
        ),
    ];
    check(&[], &rows, act).await;
}

/// In the middle of a load whose step 3 was done last, of a sale that had sold something.
const LOADING: &[&str] = &[
    "HSET sale state loading token t chunk 3",
    "HSET book o@A Q1",
    "XADD queue 1-0 order @A",
    "XADD queue 2-0 order @B",
    "XREADGROUP GROUP drain me COUNT 1 STREAMS queue >",
];
const WAS: &str = "-sale chunk 3";
const IS: &str = "+sale chunk 4";

#[tokio::test]
async fn steps_write_the_sale() {
    let rows = [
        Row(
            "clear",
            &[],
            "7 t 4 clear",
            "ok",
            &[
                WAS,
                IS,
                "-stock 1 10",
                "-stock 2 5",
                "-stock changes 0",
                "-product 1 3:1000",
                "-product 2 2:2000",
                "-book o@A Q1",
            ],
        ),
        Row(
            "clear what has another type",
            &["DEL stock", "SET stock x"],
            "7 t 4 clear",
            "ok",
            &[WAS, IS, "-stock is a string", "-product 1 3:1000", "-product 2 2:2000", "-book o@A Q1"],
        ),
        Row(
            "stock",
            &[],
            "7 t 4 stock 1=-3 3=9",
            "ok",
            &[WAS, IS, "-stock 1 10", "+stock 1 -3", "+stock 3 9"],
        ),
        Row("product", &[], "7 t 4 product 3=1:5", "ok", &[WAS, IS, "+product 3 1:5"]),
        Row(
            "book",
            &[],
            "7 t 4 book kann/k1=@A$1 qann/1=2",
            "ok",
            &[WAS, IS, "+book kann/k1 @A$1", "+book qann/1 2"],
        ),
        Row(
            "the last step again, its answer was lost",
            &["HSET stock 3 9"],
            "7 t 3 stock 3=9",
            "ok",
            UNCHANGED,
        ),
        Row("the words of it", &[], "raw 2 7 t stock 4 3 9", "ok 4", &[WAS, IS, "+stock 3 9"]),
        Row(
            "open",
            &[],
            "7 t 4 open paused 5 6 9",
            "ok",
            &[
                "-sale state loading",
                "+sale state paused",
                "-sale starts_ms 1",
                "+sale starts_ms 5",
                "-sale ends_ms 4102444800000",
                "+sale ends_ms 6",
                "-sale seq 4",
                "+sale seq 9",
                "-sale token t",
                "-sale chunk 3",
            ],
        ),
    ];
    check(LOADING, &rows, act).await;
}

#[tokio::test]
async fn the_queue_is_to_be_read_from_its_beginning() {
    let rows = [
        Row(
            "everything is to be read again",
            &[],
            "7 t 4 queue",
            "ok",
            &[
                WAS,
                IS,
                "-group drain at 1-0",
                "+group drain at 0-0",
                "-consumer me of drain",
                "-pending 1-0 of me",
            ],
        ),
        Row(
            "without what is recorded",
            &[],
            "7 t 4 queue 1-0 9-0",
            "ok",
            &[
                WAS,
                IS,
                "-group drain at 1-0",
                "+group drain at 0-0",
                "-consumer me of drain",
                "-pending 1-0 of me",
                "-queue 1-0 order=@A",
            ],
        ),
        Row(
            "the group is lost",
            &["XGROUP DESTROY queue drain"],
            "7 t 4 queue",
            "ok",
            &[WAS, IS, "+group drain at 0-0"],
        ),
        Row(
            "all is lost",
            &["DEL queue"],
            "7 t 4 queue",
            "ok",
            &[WAS, IS, "+queue is a stream", "+group drain at 0-0"],
        ),
        Row(
            "another type",
            &["SET queue x"],
            "7 t 4 queue",
            "ok",
            &[WAS, IS, "-queue is a string", "+queue is a stream", "+group drain at 0-0"],
        ),
    ];
    check(LOADING, &rows, act).await;
}

#[tokio::test]
async fn steps_are_refused_out_of_turn() {
    const CLEAR: &str = "7 t 4 clear";
    let rows = [
        Row("the sale is gone", &["DEL sale"], CLEAR, "fenced missing", UNCHANGED),
        Row("another script version", &["HSET sale version 3"], CLEAR, "fenced version", UNCHANGED),
        Row("a newer epoch", &["HSET sale epoch 8"], CLEAR, "fenced epoch", UNCHANGED),
        Row("an older epoch", &["HSET sale epoch 6"], CLEAR, "fenced epoch", UNCHANGED),
        Row("another server", &["HSET sale run_id 0123abcd"], CLEAR, "fenced run_id", UNCHANGED),
        Row("the load is over", &["HSET sale state open"], CLEAR, "fenced not_loading", UNCHANGED),
        Row(
            "and its token gone",
            &["HSET sale state open", "HDEL sale token chunk"],
            CLEAR,
            "fenced not_loading",
            UNCHANGED,
        ),
        Row("another load took over", &["HSET sale token u"], CLEAR, "fenced token", UNCHANGED),
        Row("a step was left out", &[], "7 t 5 clear", "fenced chunk", UNCHANGED),
        Row("a delayed step", &[], "7 t 2 clear", "fenced chunk", UNCHANGED),
        Row("a delayed open", &[], "7 t 2 open open 1 2 3", "fenced chunk", UNCHANGED),
        Row("no such step", &[], "raw 2 7 t destroy 4", "error INVALID step destroy", UNCHANGED),
    ];
    check(LOADING, &rows, act).await;
}
