use super::{
    Row, Scene, UNCHANGED, check, guard_rows,
    scene::{EPOCH, error_text},
};
use crate::{
    link::CallError,
    scripts::{Carried, Carry, change_stock},
};

const LUA: &str = include_str!("../../../lua/stock.lua");

/// `add|take number product units`
async fn act(scene: &Scene, call: &str) -> Result<String, CallError> {
    let words: Vec<_> = call.split(' ').collect();
    let units = words[3].parse().unwrap();
    let carry = if words[0] == "add" { Carry::Add(units) } else { Carry::Take(units) };
    let (number, product) = (words[1].parse().unwrap(), words[2].parse().unwrap());
    let carried = change_stock(&scene.link, &scene.keys, EPOCH, number, product, carry).await?;
    let word = match carried {
        Carried::Applied => "applied",
        Carried::Refused => "refused",
        Carried::Known => "known",
        Carried::Early => "early",
    };
    Ok(word.to_owned())
}

#[tokio::test]
async fn applies_each_change_once_and_in_order() {
    const ADDED: &[&str] =
        &["-stock 1 10", "-stock changes 3", "+stock 1 15", "+stock changes 4", "+stock outcome applied"];
    let rows = [
        Row("more", &[], "add 4 1 5", "applied", ADDED),
        Row(
            "more, of which some are owed",
            &["HSET stock 1 -7"],
            "add 4 1 5",
            "applied",
            &["-stock 1 -7", "-stock changes 3", "+stock 1 -2", "+stock changes 4", "+stock outcome applied"],
        ),
        Row(
            "fewer, that the record has already, whatever is left",
            &[],
            "add 4 1 -12",
            "applied",
            &["-stock 1 10", "-stock changes 3", "+stock 1 -2", "+stock changes 4", "+stock outcome applied"],
        ),
        Row(
            "one that the record refused is passed over",
            &[],
            "add 4 1 0",
            "applied",
            &["-stock changes 3", "+stock changes 4", "+stock outcome applied"],
        ),
        Row(
            "all that is left",
            &[],
            "take 4 1 10",
            "applied",
            &["-stock 1 10", "-stock changes 3", "+stock 1 0", "+stock changes 4", "+stock outcome applied"],
        ),
        Row(
            "more than is left",
            &[],
            "take 4 1 11",
            "refused",
            &["-stock changes 3", "+stock changes 4", "+stock outcome refused"],
        ),
        Row(
            "from what is owed",
            &["HSET stock 1 -1"],
            "take 4 1 1",
            "refused",
            &["-stock changes 3", "+stock changes 4", "+stock outcome refused"],
        ),
        Row("again: more", &["HSET stock changes 4 outcome applied"], "add 4 1 5", "applied", UNCHANGED),
        Row("again: taken", &["HSET stock changes 4 outcome applied"], "take 4 1 5", "applied", UNCHANGED),
        Row(
            "again: refused, though there are units now",
            &["HSET stock changes 4 outcome refused"],
            "take 4 1 5",
            "refused",
            UNCHANGED,
        ),
        Row("the last one that a load has brought", &[], "add 3 1 5", "known", UNCHANGED),
        Row("late", &[], "add 2 1 5", "known", UNCHANGED),
        Row("late: a taking", &[], "take 2 1 5", "known", UNCHANGED),
        Row("one before it is missing", &[], "add 5 1 5", "early", UNCHANGED),
        Row("one before it is missing: a taking", &[], "take 5 1 5", "early", UNCHANGED),
        Row("no word of changes", &["HDEL stock changes"], "add 1 1 5", "fenced changes", UNCHANGED),
        Row("no stock of it", &["HDEL stock 1"], "add 4 1 5", "fenced changes", UNCHANGED),
        Row("a product that there is not", &[], "add 4 9 5", "fenced changes", UNCHANGED),
        Row(
            "paused, closed or over does not matter",
            &["HSET sale state closed ends_ms 2"],
            "add 4 1 5",
            "applied",
            ADDED,
        ),
    ];
    check(&["HSET stock changes 3"], &rows, act).await;
    check(&["HSET stock changes 3"], &guard_rows("add 4 1 5"), act).await;
    check(&["HSET stock changes 3"], &guard_rows("take 4 1 5"), act).await;
}

#[tokio::test]
async fn refuses_what_is_no_number_of_units() {
    let scene = Scene::open().await;
    scene.run("HSET stock changes 3").await;
    let before = scene.state().await;
    for change in [
        "take 4 1 0",
        "take 4 1 -5",
        "add 4 1 0x2",
        "add 4 1 nan",
        "add 4 1 1e3",
        "add 4 1 1234567890",
        "set 4 1 5",
    ] {
        let answer = scene.raw(LUA, &format!("2 7 {change}")).await;
        let Err(CallError::Refused(error)) = answer else { panic!("{change}: {answer:?}") };
        assert!(error_text(&error).contains("INVALID"), "{change}: {error}");
    }
    assert_eq!(scene.state().await, before);
}
