//! The fault machine, on real processes and stores.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    process::Command,
    time::{sleep, timeout},
};

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
async fn an_interrupted_machine_leaves_neither_data_nor_programs() {
    let directory = tempfile::tempdir().unwrap();
    // Postgres may be another user's.
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let mut machine = Command::new(env!("CARGO_BIN_EXE_flashsale-loadtest"));
    machine.args(["chaos", "--fault", "postgres-frozen", "--rounds", "2", "--jobs", "2", "--buyers", "4"]);
    machine.env("TMPDIR", directory.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let machine = machine.spawn().unwrap();
    let under_way = async {
        // A round keeps its programs' logs there.
        while !names(directory.path()).iter().any(|name| name.starts_with("flashsale-chaos-")) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_mins(2), under_way).await.expect("a round begins");
    let pid = machine.id().expect("it runs");
    kill(Pid::from_raw(i32::try_from(pid).unwrap()), Signal::SIGINT).unwrap();
    let output = timeout(Duration::from_mins(2), machine.wait_with_output()).await.expect("it ends").unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.lines().any(|line| line == "INTERRUPTED"), "{text}");
    assert_eq!(names(directory.path()), Vec::<String>::new(), "{text}");
    assert_eq!(at_work_in(directory.path()), Vec::<String>::new(), "{text}");
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

/// Processes that work in this directory, as the stores do in theirs.
fn at_work_in(directory: &Path) -> Vec<String> {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let is_there = |process: &std::path::PathBuf| {
        let at = fs::read_link(process.join("cwd")).unwrap_or_default();
        at.starts_with(directory)
    };
    processes.filter(is_there).map(|process| process.display().to_string()).collect()
}

#[tokio::test]
async fn bad_usage_of_the_machine_ends_with_2() {
    let output = chaos(&["--fault", "earthquake"]).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("worker-killed"), "{}", text(&output));
}
