use super::{Row, Scene, UNCHANGED, check, guard_rows, scene::EPOCH};
use crate::{link::CallError, scripts::purge};

const LUA: &str = include_str!("../../../lua/purge.lua");

/// The script's words; and, called again as the engine does, whether it says the keys are gone.
async fn act(scene: &Scene, call: &str) -> Result<String, CallError> {
    match call {
        "words" => scene.raw(LUA, "2 7").await,
        _ => Ok(format!("gone: {}", purge(&scene.link, &scene.keys, EPOCH).await?)),
    }
}

#[tokio::test]
async fn removes_only_what_is_over() {
    const EVERYTHING: &[&str] = &[
        "-sale version 2",
        "-sale epoch 7",
        "-sale run_id RUN",
        "-sale state open",
        "-sale starts_ms 1",
        "-sale ends_ms 2",
        "-sale seq 4",
        "-stock 1 10",
        "-stock 2 5",
        "-stock changes 0",
        "-product 1 3:1000",
        "-product 2 2:2000",
        "-book epoch 7",
        "-book kann/k1 @A$1",
        "-queue is a stream",
        "-group drain at 0-0",
    ];
    const OVER: &[&str] = &["HSET sale ends_ms 2", "HSET book kann/k1 @A$1"];
    let mut rows = guard_rows("engine");
    rows.extend([
        Row("ended a day ago", &[], "engine", "gone: true", EVERYTHING),
        Row("its word", &[], "words", "ok", EVERYTHING),
        Row("its end is to come", &["HSET sale ends_ms 4102444800000"], "engine", "gone: false", UNCHANGED),
        Row("its word", &["HSET sale ends_ms 4102444800000"], "words", "kept window", UNCHANGED),
        Row("orders are waiting", &["XADD queue 1-0 order @A"], "engine", "gone: false", UNCHANGED),
        Row("its word", &["XADD queue 1-0 order @A"], "words", "kept queue", UNCHANGED),
    ]);
    check(OVER, &rows, act).await;
}

/// A day means a day: its end counts from the window's end, by Redis's clock.
#[tokio::test]
async fn keeps_a_sale_for_a_day() {
    const DAY_MS: u64 = 24 * 60 * 60 * 1000;
    let scene = Scene::open().await;
    let (seconds, _): (u64, u64) = scene.link.query(&redis::cmd("TIME")).await.unwrap();
    let day_ago = seconds * 1000 - DAY_MS;
    scene.run(&format!("HSET sale ends_ms {}", day_ago + 60_000)).await;
    assert!(!purge(&scene.link, &scene.keys, EPOCH).await.unwrap());
    scene.run(&format!("HSET sale ends_ms {}", day_ago - 1_000)).await;
    assert!(purge(&scene.link, &scene.keys, EPOCH).await.unwrap());
    assert!(scene.state().await.is_empty());
}
