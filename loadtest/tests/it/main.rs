//! Small herds on a real stack, through the real programs.

mod chaos;

use std::{path::Path, process::Output, time::Duration};

use flashsale_stack::{Stack, StackOptions};
use redis::AsyncCommands;
use serde_json::Value;
use tempfile::TempDir;
use tokio::{net::TcpSocket, process::Command, time::timeout};

/// A stack of its own and a folder for reports.
struct Stage {
    stack: Stack,
    folder: TempDir,
}

impl Stage {
    async fn set() -> Self {
        let stack = Stack::start(StackOptions::default()).await.expect("a stack");
        Self { stack, folder: tempfile::tempdir().expect("a folder") }
    }

    async fn herd(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flashsale-loadtest"));
        command.args(["--redis-url", self.stack.redis_url(), "--database-url", self.stack.database_url()]);
        command.arg("--report-json").arg(self.json_path()).args(arguments).kill_on_drop(true);
        let output = timeout(Duration::from_mins(4), command.output()).await.expect("the herd ends");
        output.expect("the load test starts; it needs the flashsale-server beside it")
    }

    fn json_path(&self) -> std::path::PathBuf {
        self.folder.path().join("report.json")
    }

    fn json(&self) -> Value {
        let text = std::fs::read(self.json_path()).expect("a JSON report");
        serde_json::from_slice(&text).expect("JSON")
    }

    async fn end(self) {
        self.stack.stop().await;
    }
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn is_html(path: &Path) -> bool {
    std::fs::read_to_string(path).is_ok_and(|text| text.contains("<html"))
}

async fn alone(arguments: &[&str]) -> Output {
    let nowhere = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(env!("CARGO_BIN_EXE_flashsale-loadtest"));
    command.args(["--users", "5"]).args(arguments).current_dir(nowhere.path()).kill_on_drop(true);
    command.env_remove("REDIS_URL").env_remove("DATABASE_URL");
    timeout(Duration::from_secs(30), command.output()).await.expect("an end in time").expect("it starts")
}

#[tokio::test]
async fn without_stores_or_a_server_it_says_so_at_once() {
    let output = alone(&[]).await;
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("flashsale up"), "{}", text(&output));

    // A port that nobody listens on, kept by a socket that is bound and no more.
    let closed = TcpSocket::new_v4().expect("a socket");
    closed.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    let address = closed.local_addr().expect("an address");
    let target = format!("http://{address}");
    let stores = ["--redis-url", "redis://127.0.0.1:1/", "--database-url", "postgres://127.0.0.1:1/x"];
    let output = alone(&[&stores[..], &["--target", &target]].concat()).await;
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains(&format!("no server answers at {target}")), "{}", text(&output));
}

#[tokio::test]
async fn a_small_herd_sells_exactly_the_stock() {
    let stage = Stage::set().await;
    let html = stage.folder.path().join("report.html");
    let output =
        stage.herd(&["--users", "300", "--stock", "40", "--report-html", html.to_str().expect("text")]).await;
    assert!(output.status.success(), "{}", text(&output));
    let last = text(&output).lines().filter(|line| *line == "PASS").count();
    assert_eq!(last, 1, "{}", text(&output));

    let json = stage.json();
    for (field, value) in [
        ("users", 300),
        ("stock", 40),
        ("sold", 40),
        ("failed", 0),
        ("oversold", 0),
        ("duplicates", 0),
        ("lost", 0),
    ] {
        assert_eq!(json[field], value, "{field}: {json:#}");
    }
    for figure in ["p50_ms", "p99_ms", "p999_ms", "p99_from_opening_ms", "seconds"] {
        assert!(json[figure].as_f64().is_some_and(|figure| figure > 0.0), "{figure}: {json:#}");
    }
    for invariant in 1..=8 {
        assert_eq!(json["invariants"][format!("I{invariant}")], true, "{json:#}");
    }
    // Every behaviour was met by the answer that it deserves.
    for code in ["sold-out", "over-quota", "sale-not-open", "rate-limited"] {
        assert!(json["refused"][code].as_u64() > Some(0), "{code}: {json:#}");
    }
    assert!(json["unknown"].as_u64() > Some(0), "{json:#}");
    assert!(is_html(&html));
    stage.end().await;
}

#[tokio::test]
async fn stock_raised_by_hand_in_redis_does_not_oversell() {
    const STOCK: i64 = 40;
    let stage = Stage::set().await;
    let arguments = ["--users", "2000", "--stock", "40"];
    let (output, ()) = tokio::join!(stage.herd(&arguments), raise_stock(stage.stack.redis_url(), STOCK));

    let json = stage.json();
    for (field, value) in [("sold", STOCK), ("oversold", 0), ("duplicates", 0), ("lost", 0)] {
        assert_eq!(json[field], value, "{field}: {json:#}\n{}", text(&output));
    }
    assert_eq!(json["invariants"]["I1"], true, "{json:#}");
    assert!(json["failed"].as_u64() > Some(0), "{json:#}\n{}", text(&output));
    assert!(text(&output).contains("orders that Redis had let in"), "{}", text(&output));
    assert!(output.status.success(), "the promises hold all the same: {}", text(&output));
    stage.end().await;
}

/// Waits until the sale sells, then gives every product of it 1,000,000 units more.
async fn raise_stock(redis_url: &str, stock: i64) {
    let client = redis::Client::open(redis_url).expect("an address of Redis");
    let mut redis = client.get_multiplexed_async_connection().await.expect("a connection to Redis");
    let mut pause = tokio::time::interval(Duration::from_millis(1));
    let raised = timeout(Duration::from_mins(2), async {
        loop {
            pause.tick().await;
            // The only sale of this Redis.
            let keys: Vec<String> = redis.keys("fs:*:stock").await.expect("keys");
            let Some(key) = keys.first() else { continue };
            let left: Vec<(String, i64)> = redis.hgetall(key).await.expect("the stock");
            if !left.is_empty() && left.iter().map(|(_, left)| left).sum::<i64>() < stock {
                for (product, _) in left {
                    let _: i64 = redis.hincr(key, product, 1_000_000).await.expect("a raised stock");
                }
                return;
            }
        }
    });
    raised.await.expect("the sale sells something");
}

#[tokio::test]
async fn bad_usage_and_no_stores_end_with_2() {
    let run = |arguments: &'static [&'static str]| async move {
        let folder = tempfile::tempdir().expect("a folder");
        let mut command = Command::new(env!("CARGO_BIN_EXE_flashsale-loadtest"));
        command.args(arguments).current_dir(&folder).env_remove("REDIS_URL").env_remove("DATABASE_URL");
        command.output().await.expect("the load test starts")
    };
    let usage = run(&["--users", "10", "--stock", "1000"]).await;
    assert_eq!(usage.status.code(), Some(2), "{}", text(&usage));
    let stores = run(&["--users", "10"]).await;
    assert_eq!(stores.status.code(), Some(2), "{}", text(&stores));
    assert!(text(&stores).contains("flashsale up"), "{}", text(&stores));
}
