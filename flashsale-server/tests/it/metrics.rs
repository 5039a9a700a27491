//! What an operator sees: metrics, request ids and log lines of the program itself.

use std::{collections::BTreeMap, process::Stdio};

use flashsale_core::ProductId;
use flashsale_server::Stores;
use flashsale_stack::{Stack, StackOptions};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, ChildStderr, Command},
    task::JoinHandle,
    time::timeout,
};

use crate::{
    metric_names::{documented, names},
    shop::{Answer, BOUND, Buyers, Sale, Shop, ask, until},
};

fn stores(stack: &Stack) -> Stores {
    Stores { redis_url: stack.redis_url().to_owned(), database_url: stack.database_url().to_owned() }
}

/// A server of its own process, whose counters therefore begin at 0.
struct Program {
    child: Child,
    buyers: Buyers,
    log: JoinHandle<Vec<String>>,
}

impl Program {
    async fn start(stores: &Stores, arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flashsale-server"));
        command.env("REDIS_URL", &stores.redis_url).env("DATABASE_URL", &stores.database_url);
        command.args(["--listen", "127.0.0.1:0"]).args(arguments).kill_on_drop(true);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a process");
        // Read on, or the program would stop at a full pipe.
        let log = tokio::spawn(lines(child.stderr.take().unwrap()));
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = timeout(BOUND, stdout.next_line()).await.expect("a line in time").unwrap();
        let url =
            line.as_deref().and_then(|line| line.strip_prefix("listening on ")).expect("a line").to_owned();
        Self { child, buyers: Buyers::of(url), log }
    }

    /// What `/metrics` shows: series and value.
    async fn metrics(&self) -> BTreeMap<String, f64> {
        let answer = ask(self.buyers.get("/metrics")).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let text = answer.json.as_str().expect("text").to_owned();
        let series = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
        let pair = |line: &str| {
            let (series, value) = line.rsplit_once(' ').expect(line);
            (series.to_owned(), value.parse().expect(line))
        };
        series.map(pair).collect()
    }

    /// Ends it in good order, and gives what it has logged.
    async fn log(mut self) -> Vec<String> {
        kill(Pid::from_raw(self.child.id().unwrap().cast_signed()), Signal::SIGTERM).unwrap();
        let status = timeout(BOUND, self.child.wait()).await.expect("an end in time").unwrap();
        assert!(status.success(), "{status}");
        self.log.await.unwrap()
    }
}

async fn lines(stderr: ChildStderr) -> Vec<String> {
    let (mut lines, mut log) = (BufReader::new(stderr).lines(), Vec::new());
    while let Some(line) = lines.next_line().await.expect("text") {
        log.push(line);
    }
    log
}

#[track_caller]
fn assert_shows<const N: usize>(metrics: &BTreeMap<String, f64>, expected: [(&str, f64); N]) {
    for (series, value) in expected {
        assert_eq!(metrics.get(series), Some(&value), "{series} in {metrics:#?}");
    }
}

const BUYER: &str = "buyer-4711";

async fn order(program: &Program, key: &str, request_id: &str, line: Value) -> Answer {
    let body = json!({"idempotencyKey": key, "items": [line]});
    let request = program.buyers.post("/api/orders").header("x-user-id", BUYER).json(&body);
    let answer = ask(request.header("x-request-id", request_id)).await;
    assert_eq!(answer.header("x-request-id"), Some(request_id));
    answer
}

/// Changes Redis by hand, behind the engine's back.
async fn set_stock(stores: &Stores, sale: &Sale, product: ProductId, units: u32) {
    let client = redis::Client::open(stores.redis_url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd("HSET");
    command.arg(format!("fs:{{{}}}:stock", sale.id)).arg(product.get()).arg(units);
    let _: i64 = command.query_async(&mut connection).await.unwrap();
}

/// Makes the buyer's cart something that is no cart.
async fn damage_cart(stores: &Stores) {
    let client = redis::Client::open(stores.redis_url.as_str()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    let mut command = redis::cmd("SET");
    command.arg(format!("fs:cart:{BUYER}")).arg("damaged");
    let _: String = command.query_async(&mut connection).await.unwrap();
}

#[tokio::test]
async fn what_a_server_did_is_on_its_metrics_and_in_its_log() {
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    let shop = Shop::on(stores(&stack)).await;
    let sale = shop.sale(&[(3, 2), (2, 9)]).await;
    // Somebody who is registered and never comes: what is not told is shown.
    drop(shop.engine.notifier("mail", async |_| Ok::<_, String>(())).await.expect("a consumer"));
    let filter = "info,flashsale_server=debug";
    let flags = ["--rate-limit=6/1h", "--check-every-seconds=1", "--log-format=json", "--log-filter", filter];
    let program = Program::start(&shop.stores, &flags).await;
    shop.loaded(&sale).await;

    let first = order(&program, "k-1", "shop:1/a", sale.line(0, 2)).await;
    let id = first.text("orderId").to_owned();
    assert_eq!(order(&program, "k-1", "shop-2", sale.line(0, 2)).await.status, 202);
    order(&program, "k-1", "shop-3", sale.line(0, 1)).await.is_problem(422, "idempotency-key-reused");
    order(&program, "k-2", "shop-4", sale.line(0, 1)).await.is_problem(409, "over-quota");
    order(&program, "k-3", "shop-5", sale.line(1, 3)).await.is_problem(409, "sold-out");
    assert_eq!(program.buyers.outcome(&id).await, "Confirmed");
    // Redis is made to believe in more than there is; the record knows better, and it is put right.
    set_stock(&shop.stores, &sale, sale.products[1], 1_000).await;
    let wrong = order(&program, "k-4", "shop-6", sale.line(1, 9)).await;
    assert_eq!(program.buyers.outcome(wrong.text("orderId")).await, "Failed");
    until("it is put right", async || (shop.left(&sale, 1).await? == 2).then_some(())).await;
    damage_cart(&shop.stores).await;
    let cart = program.buyers.get(&format!("/api/cart/{BUYER}")).header("x-user-id", BUYER);
    assert_eq!(ask(cart).await.json["items"], json!([]), "a damaged cart holds nothing");
    order(&program, "k-5", "shop-7", sale.line(1, 1)).await.is_problem(429, "rate-limited");
    let history = program.buyers.get(&format!("/api/orders/{BUYER}")).header("x-user-id", BUYER);
    assert_eq!(ask(history).await.status, 200);
    ask(program.buyers.get(&format!("/api/nothing/{BUYER}"))).await.is_problem(404, "not-found");
    let brew = Method::from_bytes(b"BREW").unwrap();
    let invented = program.buyers.http.request(brew, format!("{}/healthz", program.buyers.url));
    ask(invented).await.is_problem(405, "method-not-allowed");

    // Shown by the monitor, which looks now and then.
    until("all is shown", async || {
        let left = format!("flashsale_stock_left{{sale=\"{}\",product=\"{}\"}}", sale.id, sale.products[1]);
        let metrics = program.metrics().await;
        let checked = format!("flashsale_invariant_last_check_timestamp_seconds{{sale=\"{}\"}}", sale.id);
        let waiting = metrics.get("flashsale_deliveries_waiting{subscriber=\"mail\"}") == Some(&2.0);
        (metrics.get(&left) == Some(&2.0) && metrics.contains_key(&checked) && waiting).then_some(())
    })
    .await;
    let metrics = program.metrics().await;
    assert_shows(
        &metrics,
        [
            ("flashsale_admissions_total{outcome=\"admitted\"}", 2.0),
            ("flashsale_admissions_total{outcome=\"replayed\"}", 1.0),
            ("flashsale_admissions_total{outcome=\"idempotency-key-reused\"}", 1.0),
            ("flashsale_admissions_total{outcome=\"over-quota\"}", 1.0),
            ("flashsale_admissions_total{outcome=\"sold-out\"}", 1.0),
            ("flashsale_admissions_total{outcome=\"outcome-unknown\"}", 0.0),
            ("flashsale_admission_duration_seconds_count", 6.0),
            ("flashsale_lane_batch_size_sum", 6.0),
            ("flashsale_orders_final_total{status=\"Confirmed\"}", 1.0),
            ("flashsale_orders_final_total{status=\"Failed\",reason=\"sold-out\"}", 1.0),
            ("flashsale_guard_refusals_total{reason=\"sold-out\"}", 1.0),
            ("flashsale_compensated_orders_total", 1.0),
            ("flashsale_loads_total{result=\"loaded\"}", 2.0),
            ("flashsale_drain_batch_size_sum", 2.0),
            ("flashsale_rate_limited_total", 1.0),
            ("flashsale_http_requests_total{method=\"POST\",route=\"/api/orders\",status=\"202\"}", 3.0),
            ("flashsale_http_requests_total{method=\"POST\",route=\"/api/orders\",status=\"409\"}", 2.0),
            ("flashsale_http_requests_total{method=\"POST\",route=\"/api/orders\",status=\"422\"}", 1.0),
            ("flashsale_http_requests_total{method=\"POST\",route=\"/api/orders\",status=\"429\"}", 1.0),
            (
                "flashsale_http_requests_total{method=\"GET\",route=\"/api/orders/{userId}\",status=\"200\"}",
                1.0,
            ),
            ("flashsale_http_requests_total{method=\"GET\",route=\"unmatched\",status=\"404\"}", 1.0),
            ("flashsale_http_requests_total{method=\"other\",route=\"/healthz\",status=\"405\"}", 1.0),
            ("flashsale_http_request_duration_seconds_count{method=\"POST\",route=\"/api/orders\"}", 7.0),
            // The one that asks.
            ("flashsale_http_requests_in_flight", 1.0),
            ("flashsale_event_streams", 0.0),
        ],
    );
    for series in metrics.keys() {
        assert!(!series.contains(BUYER) && !series.contains(&id), "{series} is about somebody");
    }
    assert_eq!(names(&metrics), documented(), "exactly these are there");
    assert_log(&program.log().await);
    shop.audit(&sale).await;
    drop(shop);
    stack.stop().await;
}

/// Every line can be read by a program, names its request, and nobody else.
fn assert_log(log: &[String]) {
    let lines: Vec<Value> = log
        .iter()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let answered = |id: &str| {
        let of = |line: &&Value| line["span"]["request_id"] == id && line["message"] == "answered";
        lines.iter().find(of).unwrap_or_else(|| panic!("nothing of {id} in {log:#?}"))
    };
    let first = answered("shop:1/a");
    assert_eq!((&first["status"], &first["level"]), (&json!(202), &json!("DEBUG")), "{first}");
    assert_eq!((&first["span"]["method"], &first["span"]["route"]), (&json!("POST"), &json!("/api/orders")));
    assert_eq!(answered("shop-4")["status"], 409);
    // A drainer says it of an order that it found in the queue.
    let failed = lines.iter().find(|line| line["message"] == "an admitted order failed").expect("a line");
    assert_eq!(
        (&failed["request_id"], &failed["reason"]),
        (&json!("shop-6"), &json!("sold-out")),
        "{failed}"
    );
    for line in log {
        assert!(!line.contains(BUYER), "{line} names a user");
    }
}

/// What cannot be known is not shown, rather than as it was yesterday.
#[tokio::test]
async fn an_outage_is_seen_and_no_gauge_outlives_it() {
    let stack = Stack::start(StackOptions::default()).await.unwrap();
    let shop = Shop::on(stores(&stack)).await;
    let sale = shop.sale(&[(5, 5)]).await;
    let program = Program::start(&shop.stores, &["--trusted-proxies=", "--check-every-seconds=1"]).await;
    shop.loaded(&sale).await;
    assert_every_answer_has_a_request_id(&program.buyers).await;
    let left = format!("flashsale_stock_left{{sale=\"{}\",product=\"{}\"}}", sale.id, sale.products[0]);
    let up = |store: &str| format!("flashsale_dependency_up{{dependency=\"{store}\"}}");
    let shows = async |series: &str| program.metrics().await.get(series).copied();
    let ready = async || {
        let answer = ask(program.buyers.get("/readyz")).await;
        (answer.status, answer.json.as_str().unwrap().lines().last().unwrap().to_owned())
    };
    let sums = format!("flashsale_invariant_holds{{sale=\"{}\",invariant=\"I4\"}}", sale.id);
    until("the stock is shown", async || (shows(&left).await == Some(5.0)).then_some(())).await;
    until("it is shown to add up", async || (shows(&sums).await == Some(1.0)).then_some(())).await;
    assert_eq!((shows(&up("redis")).await, shows(&up("postgres")).await), (Some(1.0), Some(1.0)));
    assert_eq!(ready().await, (200, "server: ok".to_owned()));

    stack.kill_postgres().await.unwrap();
    until("PostgreSQL is seen to be away", async || {
        (shows(&up("postgres")).await == Some(0.0)).then_some(())
    })
    .await;
    assert_eq!(ready().await, (200, "server: degraded".to_owned()));
    assert_eq!((shows(&up("redis")).await, shows(&left).await), (Some(1.0), Some(5.0)));
    until("nobody knows whether it adds up", async || shows(&sums).await.is_none().then_some(())).await;

    stack.kill_redis().await.unwrap();
    until("Redis is seen to be away", async || (shows(&up("redis")).await == Some(0.0)).then_some(())).await;
    assert_eq!(ready().await, (503, "server: unavailable".to_owned()));
    until("the stock is forgotten", async || shows(&left).await.is_none().then_some(())).await;
    assert_eq!(shows("flashsale_http_requests_in_flight").await, Some(1.0));
    let log = program.log().await;
    assert!(log.len() < 100, "an outage is told, and not over and over: {log:#?}");
    stack.stop().await;
}

#[tokio::test]
async fn a_store_that_was_changed_by_hand_raises_an_alarm_that_names_the_product() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(9, 2), (5, 5)]).await;
    let programs = [(); 2].map(|()| Program::start(&shop.stores, &["--check-every-seconds=1"]));
    let programs = futures::future::join_all(programs).await;
    shop.loaded(&sale).await;
    let order = programs[0].buyers.buys("ann", "k", &[sale.line(0, 2)]).await;
    assert_eq!(programs[1].buyers.outcome(&order).await, "Confirmed");
    let holds = |invariant: &str| {
        format!("flashsale_invariant_holds{{sale=\"{}\",invariant=\"{invariant}\"}}", sale.id)
    };
    // One of them checks: it alone shows what it finds.
    let shown = async |invariant: &str| {
        let mut shown = Vec::new();
        for program in &programs {
            shown.extend(program.metrics().await.get(&holds(invariant)).copied());
        }
        assert!(shown.len() < 2, "both check");
        shown.pop()
    };
    until("it adds up", async || (shown("I4").await == Some(1.0)).then_some(())).await;
    set_stock(&shop.stores, &sale, sale.products[0], 8).await;
    until("it is seen that it does not", async || (shown("I4").await == Some(0.0)).then_some(())).await;
    for invariant in ["I1", "I2", "I3", "I5", "I6", "I7", "I8"] {
        assert_eq!(shown(invariant).await, Some(1.0), "{invariant}");
    }
    set_stock(&shop.stores, &sale, sale.products[0], 7).await;
    until("it adds up again", async || (shown("I4").await == Some(1.0)).then_some(())).await;
    let mut log = Vec::new();
    for program in programs {
        log.extend(program.log().await);
    }
    let alarms: Vec<_> = log.iter().filter(|line| line.contains(" ERROR ")).collect();
    let figures = format!(
        "I4 does not hold (left + queued + confirmed + parked = stock): product {}: \
         8 left + 0 queued or parked + 2 confirmed = 10, the stock is 9",
        sale.products[0]
    );
    assert!(!alarms.is_empty() && alarms.iter().all(|line| line.contains(&figures)), "{log:#?}");
    assert!(log.iter().any(|line| line.contains(" INFO ") && line.contains("I4 holds again")), "{log:#?}");
    shop.audit(&sale).await;
}

/// Whatever a request is answered with, it says under which name the log knows it.
async fn assert_every_answer_has_a_request_id(buyers: &Buyers) {
    let too_large = buyers.post("/api/orders").body(vec![b'x'; 20_000]);
    let requests = [
        (buyers.get("/healthz"), 200),
        (buyers.get("/nothing"), 404),
        (buyers.post("/healthz"), 405),
        (buyers.get("/api/orders/status/not-an-id"), 400),
        (too_large, 401),
    ];
    let mut seen = Vec::new();
    for (request, status) in requests {
        // This test is no proxy that is trusted.
        let answer = ask(request.header("x-request-id", "forged")).await;
        assert_eq!(answer.status, status, "{}", answer.json);
        let id = answer.header("x-request-id").expect("a request id").to_owned();
        assert!(id.len() == 16 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
        assert!(!seen.contains(&id), "{id} was given before");
        seen.push(id);
    }
}
