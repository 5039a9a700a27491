use super::{Row, Scene, UNCHANGED, check, guard_rows, scene::EPOCH};
use crate::{link::CallError, sale::SaleState, scripts::carry_state};

/// `state starts_ms ends_ms`
async fn act(scene: &Scene, call: &str) -> Result<String, CallError> {
    let words: Vec<_> = call.split(' ').collect();
    let (state, starts_ms, ends_ms) = (words[0], words[1].parse().unwrap(), words[2].parse().unwrap());
    let state = SaleState::parse(state).unwrap();
    carry_state(&scene.link, &scene.keys, EPOCH, state, starts_ms, ends_ms).await?;
    Ok("ok".to_owned())
}

#[tokio::test]
async fn carries_state_and_window() {
    let rows = [
        Row("pause", &[], "paused 1 4102444800000", "ok", &["-sale state open", "+sale state paused"]),
        Row(
            "resume",
            &["HSET sale state paused"],
            "open 1 4102444800000",
            "ok",
            &["-sale state paused", "+sale state open"],
        ),
        Row("close", &[], "closed 1 4102444800000", "ok", &["-sale state open", "+sale state closed"]),
        Row(
            "another window",
            &[],
            "open 5 6",
            "ok",
            &["-sale starts_ms 1", "-sale ends_ms 4102444800000", "+sale starts_ms 5", "+sale ends_ms 6"],
        ),
        Row("the same again", &[], "open 1 4102444800000", "ok", UNCHANGED),
    ];
    check(&[], &rows, act).await;
    check(&[], &guard_rows("paused 5 6"), act).await;
}
