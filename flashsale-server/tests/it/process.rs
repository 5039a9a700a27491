//! The program itself: how it starts, and how it ends when it is asked to and when it is not.

use std::{
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use flashsale_server::Stores;
use flashsale_stack::{Stack, StackOptions};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    sync::Semaphore,
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    events::Events,
    shop::{BOUND, Buyers, Sale, Shop, ask, try_ask},
};

pub(crate) fn program(stores: &Stores, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flashsale-server"));
    command.args(arguments).env("REDIS_URL", &stores.redis_url).env("DATABASE_URL", &stores.database_url);
    command.stdout(Stdio::piped()).kill_on_drop(true);
    command
}

pub(crate) struct Process {
    child: Child,
    pub(crate) buyers: Buyers,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Process {
    pub(crate) async fn start(stores: &Stores) -> Self {
        Self::of(program(stores, &["--rate-limit", "off"])).await
    }

    pub(crate) async fn of(mut program: Command) -> Self {
        program.args(["--listen", "127.0.0.1:0", "--listen", "127.0.0.2:0"]);
        let mut child = program.spawn().expect("a process");
        let mut stdout = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut urls = Vec::new();
        while urls.len() < 2 {
            let line =
                timeout(BOUND, stdout.next_line()).await.expect("a line in time").unwrap().expect("a line");
            urls.push(line.strip_prefix("listening on ").expect(&line).to_owned());
        }
        assert!(urls[1].starts_with("http://127.0.0.2:"), "{urls:?}");
        Self { child, buyers: Buyers::of(urls.remove(0)), stdout }
    }

    fn tell(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().unwrap().cast_signed()), signal).unwrap();
    }

    pub(crate) async fn end(mut self, signal: Signal) -> ExitStatus {
        self.tell(signal);
        let status = timeout(BOUND, self.child.wait()).await.expect("ended in time").unwrap();
        assert_eq!(self.stdout.next_line().await.unwrap(), None, "nothing else is printed");
        status
    }
}

/// Buyers who order until they are told to stop; gives the ids of all orders that were accepted.
struct Herd {
    buying: JoinSet<Vec<String>>,
    stop: CancellationToken,
    accepted: Arc<Semaphore>,
}

impl Herd {
    fn on(buyers: &Buyers, sale: &Sale) -> Self {
        let (stop, accepted) = (CancellationToken::new(), Arc::new(Semaphore::new(0)));
        let mut buying = JoinSet::new();
        for number in 0..16 {
            let (buyers, line) = (buyers.clone(), sale.line(0, 1));
            let (stop, accepted) = (stop.clone(), Arc::clone(&accepted));
            buying.spawn(async move {
                let mut orders = Vec::new();
                let user = format!("user-{number}");
                for key in 0.. {
                    let body = serde_json::json!({"idempotencyKey": format!("k-{key}"), "items": [line]});
                    let request = buyers.post("/api/orders").header("x-user-id", &user).json(&body);
                    let Some(answer) = try_ask(request).await else { break };
                    if answer.status == 202 {
                        orders.push(answer.text("orderId").to_owned());
                        accepted.add_permits(1);
                    }
                    if stop.is_cancelled() {
                        break;
                    }
                }
                orders
            });
        }
        Self { buying, stop, accepted }
    }

    /// Waits until so many orders are accepted.
    async fn has(&self, orders: u32) {
        timeout(BOUND, self.accepted.acquire_many(orders)).await.expect("orders in time").unwrap().forget();
    }

    async fn stop(self) -> Vec<String> {
        self.stop.cancel();
        self.buying.join_all().await.concat()
    }
}

async fn ended_in_mid_load(signal: Signal) -> Option<i32> {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(1_000_000, 1_000)]).await;
    let process = Process::start(&shop.stores).await;
    shop.loaded(&sale).await;
    let herd = Herd::on(&process.buyers, &sale);
    herd.has(100).await;
    let status = process.end(signal).await;
    let orders = herd.stop().await;
    assert!(orders.len() >= 100);
    if signal == Signal::SIGTERM {
        let queues = shop.engine.operator().queue().await.unwrap();
        assert_eq!(queues[0].pending, 0, "the batch in hand was finished and acknowledged");
    }

    let again = Process::start(&shop.stores).await;
    for order in &orders {
        assert_eq!(again.buyers.outcome(order).await, "Confirmed");
    }
    shop.audit(&sale).await;
    assert_eq!(again.end(Signal::SIGINT).await.code(), Some(0));
    status.code()
}

#[tokio::test]
async fn sigterm_in_mid_load_ends_it_in_good_order() {
    assert_eq!(ended_in_mid_load(Signal::SIGTERM).await, Some(0));
}

#[tokio::test]
async fn sigkill_in_mid_load_loses_no_accepted_order() {
    assert_eq!(ended_in_mid_load(Signal::SIGKILL).await, None);
}

#[tokio::test]
async fn a_load_balancer_is_told_before_the_end() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(10, 10)]).await;
    let secret = shop.sale_in(60, 120, &[(1, 1)]).await;
    let flags = ["--drain-seconds=600", "--metrics-listen=127.0.0.1:0", "--drainers=0", "--rate-limit=off"];
    let mut process = Process::of(program(&shop.stores, &flags)).await;
    let line = timeout(BOUND, process.stdout.next_line()).await.expect("a line in time").unwrap().unwrap();
    let operations = line.strip_prefix("metrics on ").and_then(|url| url.strip_suffix("/metrics"));
    let operations = Buyers::of(operations.expect(&line).to_owned());
    shop.loaded(&sale).await;
    shop.loaded(&secret).await;

    ask(process.buyers.get("/metrics")).await.is_problem(404, "not-found");
    assert_eq!(ask(operations.get("/metrics")).await.status, 200);
    let sales = async |buyers: &Buyers| {
        let ready = ask(buyers.get("/readyz")).await;
        ready.json.as_str().unwrap().lines().filter(|line| line.starts_with("sale ")).count()
    };
    assert_eq!((sales(&process.buyers).await, sales(&operations).await), (1, 2));

    let order = process.buyers.buys("ann", "k-1", &[sale.line(0, 1)]).await;
    let mut events = Events::of(&process.buyers, &order).await;
    assert_eq!(events.status().await.unwrap(), "Queued");
    process.tell(Signal::SIGTERM);
    assert_eq!(events.rest().await, [""; 0], "a stream ends at once");
    // Over a new connection.
    let late = Buyers::of(process.buyers.url.clone());
    for buyers in [&late, &operations] {
        let ready = ask(buyers.get("/readyz")).await;
        assert_eq!(ready.status, 503, "{}", ready.json);
        assert!(ready.json.as_str().unwrap().ends_with("\nserver: draining\n"), "{}", ready.json);
    }
    let second = late.buys("ann", "k-2", &[sale.line(0, 1)]).await;
    ask(late.get(&format!("/api/orders/status/{second}/events"))).await.is_problem(503, "unavailable");
    assert_eq!(process.end(Signal::SIGTERM).await.code(), Some(0), "a second signal ends the waiting");

    let again = Process::start(&shop.stores).await;
    for order in [order, second] {
        assert_eq!(again.buyers.outcome(&order).await, "Confirmed");
    }
    shop.audit(&sale).await;
    assert_eq!(again.end(Signal::SIGTERM).await.code(), Some(0));
}

#[tokio::test]
async fn stores_that_do_not_answer_are_named_without_passwords() {
    // A port that nobody listens on, kept by a socket that is bound and no more.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = closed.local_addr().unwrap();
    let stores = Stores {
        redis_url: format!("redis://:secret@{address}/"),
        database_url: format!("postgres://shop:secret@{address}/shop?password=secret"),
    };
    let mut command = program(&stores, &["--store-wait-seconds", "1"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut said = String::new();
    let mut stderr = child.stderr.take().unwrap();
    timeout(Duration::from_secs(30), stderr.read_to_string(&mut said))
        .await
        .expect("an end in time")
        .unwrap();
    assert_eq!(child.wait().await.unwrap().code(), Some(1));
    assert!(said.contains(&format!("redis://{address}/")), "{said}");
    assert!(said.contains(&format!("postgres://shop@{address}/shop")), "{said}");
    assert!(!said.contains("secret"), "{said}");
}

/// Whoever collects the log may be gone, or its disk full.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_log_that_cannot_be_written_stops_nobody() {
    let shop = Shop::new().await;
    let sale = shop.sale(&[(10, 10)]).await;
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = program(&shop.stores, &[]);
    command.stderr(full);
    let process = Process::of(command).await;
    // Loading the sale is logged.
    shop.loaded(&sale).await;
    let order = process.buyers.buys("ann", "k", &[sale.line(0, 1)]).await;
    assert_eq!(process.buyers.outcome(&order).await, "Confirmed");
    assert_eq!(process.end(Signal::SIGTERM).await.code(), Some(0));
    shop.audit(&sale).await;
}

#[tokio::test]
async fn the_stack_that_runs_in_the_working_directory_is_found() {
    let (stack, directory) =
        (Stack::start(StackOptions::default()).await.unwrap(), tempfile::tempdir().unwrap());
    let file = stack.write_env_file(directory.path().join(".flashsale/stack.env")).unwrap();
    // An empty variable counts as none.
    let mut command = program(&Stores { redis_url: String::new(), database_url: String::new() }, &[]);
    command.current_dir(directory.path());
    let process = Process::of(command).await;
    let ready = try_ask(process.buyers.get("/readyz")).await.unwrap();
    assert_eq!(ready.status, 200, "{}", ready.json);
    assert_eq!(process.end(Signal::SIGTERM).await.code(), Some(0));
    drop(file);
    stack.stop().await;
}

#[tokio::test]
async fn what_is_missing_is_said() {
    let nowhere = tempfile::tempdir().unwrap();
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flashsale-server"));
        command
            .args(arguments)
            .current_dir(nowhere.path())
            .env_remove("REDIS_URL")
            .env_remove("DATABASE_URL");
        let output = timeout(BOUND, command.output()).await.expect("an end in time").unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&[]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("flashsale up") && said.contains("--redis-url"), "{said}");
    let (code, said) = run(&["--redis-url", "redis://localhost"]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("DATABASE_URL"), "{said}");
}
