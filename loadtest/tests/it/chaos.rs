//! The fault machine, on real processes and stores.

use std::{process::Output, time::Duration};

use tokio::{process::Command, time::timeout};

async fn chaos(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flashsale-loadtest"));
    command.arg("chaos").args(arguments).args(["--buyers", "16"]).kill_on_drop(true);
    let output = timeout(Duration::from_mins(4), command.output()).await.expect("the machine ends");
    output.expect("the machine starts; it needs the other programs beside it")
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test]
async fn a_killed_worker_and_an_emptied_redis_are_survived_and_damage_is_caught() {
    let output = chaos(&["--seed", "7", "--fault", "worker-killed,flushall,control-keys-forgotten"]).await;
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    for line in ["seed 7", "PASS", "worker-killed (seed 7): survived", "flushall (seed 7): survived"] {
        assert!(text.lines().any(|said| said.starts_with(line)), "{line}: {text}");
    }
    assert!(text.contains("control-keys-forgotten (seed 7): caught"), "{text}");
}

#[tokio::test]
async fn bad_usage_of_the_machine_ends_with_2() {
    let output = chaos(&["--fault", "earthquake"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("worker-killed"), "{}", text(&output));
}
