use super::{Row, Scene, UNCHANGED, check};
use crate::{link::CallError, scripts::leave};

const LUA: &str = include_str!("../../../lua/leave.lua");

/// `raw consumer`: the script's words. Otherwise the consumer, called as the drainer does.
async fn act(scene: &Scene, call: &str) -> Result<String, CallError> {
    match call.strip_prefix("raw ") {
        Some(consumer) => scene.raw(LUA, &format!("2 {consumer}")).await,
        None => leave(&scene.link, &scene.keys, call).await.map(|()| "done".to_owned()),
    }
}

#[tokio::test]
async fn removes_only_names_with_nothing_pending() {
    const TWO_DRAINERS: &[&str] = &[
        "XADD queue 1-0 order @A",
        "XREADGROUP GROUP drain busy STREAMS queue >",
        "XGROUP CREATECONSUMER queue drain idle",
    ];
    const LEFT: &[&str] = &["-consumer idle of drain"];
    let rows = [
        Row("nothing is pending", &[], "idle", "done", LEFT),
        Row("its word", &[], "raw idle", "ok", LEFT),
        Row("an entry is pending", &[], "busy", "done", UNCHANGED),
        Row("its word", &[], "raw busy", "kept", UNCHANGED),
        Row("a pending entry that was deleted", &["XDEL queue 1-0"], "raw busy", "kept", UNCHANGED),
        Row("acknowledged", &["XACK queue drain 1-0"], "raw busy", "ok", &["-consumer busy of drain"]),
        Row("a name nobody knows", &[], "raw stranger", "ok", UNCHANGED),
        Row("no group", &["XGROUP DESTROY queue drain"], "raw idle", "kept", UNCHANGED),
        Row(
            "another group",
            &["XGROUP DESTROY queue drain", "XGROUP CREATE queue other 0"],
            "raw idle",
            "kept",
            UNCHANGED,
        ),
        Row("no queue", &["DEL queue"], "raw idle", "kept", UNCHANGED),
        Row("a queue of another type", &["SET queue x"], "raw idle", "kept", UNCHANGED),
        Row("a sale that is loading", &["HSET sale state loading"], "raw idle", "ok", LEFT),
    ];
    check(TWO_DRAINERS, &rows, act).await;
}
