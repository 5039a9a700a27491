//! One table per script: a sale in a known state → one call → its reply, and every key read back.
//!
//! A row is written in the notation of [`Scene`], so that it can be read without the code around it.

mod begin;
mod cart;
mod largest_batch;
mod leave;
mod load;
mod look;
mod own_redis;
mod purge;
mod rate_limit;
mod reserve;
pub(super) mod scene;
mod settle;
mod state;
mod stock;

use self::scene::Scene;
use crate::link::CallError;

/// One row of a script's table.
pub(super) struct Row(
    /// What it shows.
    pub &'static str,
    /// Given: Redis commands on an open sale.
    pub &'static [&'static str],
    /// The call, in the words of the table.
    pub &'static str,
    /// The reply.
    pub &'static str,
    /// Every line of the sale's state that went (`-`) and that came (`+`).
    pub &'static [&'static str],
);

/// Nothing is left behind.
pub(super) const UNCHANGED: &[&str] = &[];

/// Plays each row on a sale of its own, on which `ground` was done first.
pub(super) async fn check(
    ground: &[&str],
    rows: &[Row],
    act: impl AsyncFn(&Scene, &str) -> Result<String, CallError>,
) {
    for Row(name, given, call, reply, change) in rows {
        let scene = Scene::open().await;
        for command in ground.iter().chain(*given) {
            scene.run(command).await;
        }
        let before = scene.state().await;
        let answer = match act(&scene, call).await {
            Ok(answer) => answer,
            Err(CallError::Fenced(why)) => format!("fenced {why}"),
            Err(CallError::Refused(error)) => scene::error_text(&error),
            Err(other) => panic!("{name}: {other}"),
        };
        let after = scene.state().await;
        assert_eq!(scene.show(&answer), *reply, "the reply of: {name}");

        let gone = before.difference(&after).map(|line| format!("-{line}"));
        let came = after.difference(&before).map(|line| format!("+{line}"));
        let changed: Vec<_> = gone.chain(came).collect();
        let mut change: Vec<_> = change.to_vec();
        change.sort_by_key(|line| (line.starts_with('+'), *line));
        assert_eq!(changed, change, "the change of: {name}");
    }
}

/// The rows that every guarded script has, for a call under epoch 7.
pub(super) fn guard_rows(call: &'static str) -> Vec<Row> {
    [
        ("the sale is gone", &["DEL sale"][..], "fenced missing"),
        ("the sale has no epoch", &["HDEL sale epoch"], "fenced missing"),
        ("another script version", &["HSET sale version 0"], "fenced version"),
        ("a newer epoch", &["HSET sale epoch 8"], "fenced epoch"),
        ("an older epoch", &["HSET sale epoch 6"], "fenced epoch"),
        ("an epoch that is only equal as a number", &["HSET sale epoch 07"], "fenced epoch"),
        ("loaded into another server", &["HSET sale run_id 0123abcd"], "fenced run_id"),
        ("the run id is gone", &["HDEL sale run_id"], "fenced run_id"),
        ("it is loading", &["HSET sale state loading"], "fenced loading"),
    ]
    .map(|(name, given, reply)| Row(name, given, call, reply, UNCHANGED))
    .into()
}
