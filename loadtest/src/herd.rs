//! All buyers at once: goose starts them, they wait for the opening, and fall on the sale together.

use std::{
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use flashsale_core::Operator;
use goose::{
    GooseAttack,
    client::GooseClientBuilder,
    config::GooseConfiguration,
    goose::{GooseUser, Scenario, Transaction},
};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::{
    sync::{Semaphore, SemaphorePermit, watch},
    time::sleep,
};

use crate::{
    Args, buyer,
    history::{Diary, History},
    opening::{self, Goods},
    progress::Progress,
    shop::REQUEST_TIMEOUT,
};

/// Files that are open beside the connections of requests under way: connections that are kept, hang-ups,
/// logs.
const OTHER_FILES: u64 = 1_000;
/// How long goose may take to start the users, beside 1 ms for each.
const START_WITHIN: Duration = Duration::from_mins(1);
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Raises the limit of open files as far as this process may, for itself and the server it starts. Returns
/// how many requests may then be under way.
pub(crate) fn raise_file_limit(max_in_flight: u32) -> u32 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return max_in_flight };
    let files = if setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft };
    let most = u32::try_from(files.saturating_sub(OTHER_FILES).max(1)).unwrap_or(u32::MAX);
    if most < max_in_flight {
        tracing::warn!("only {files} files may be open: at most {most} requests under way");
    }
    max_in_flight.min(most)
}

/// What the waiting users are told.
#[derive(Debug, Clone)]
enum Word {
    Wait,
    Open(Arc<Goods>),
    GoHome,
}

/// What all buyers share.
pub(crate) struct Ground {
    bases: Vec<String>,
    default_rate_limit: bool,
    places: Semaphore,
    word: watch::Sender<Word>,
    waiting: AtomicU32,
    orders: AtomicU64,
    done: AtomicU32,
    history: Mutex<History>,
}

impl Ground {
    pub(crate) fn new(bases: Vec<String>, max_in_flight: u32, default_rate_limit: bool) -> Self {
        Self {
            bases,
            default_rate_limit,
            places: Semaphore::new(max_in_flight as usize),
            word: watch::Sender::new(Word::Wait),
            waiting: AtomicU32::new(0),
            orders: AtomicU64::new(0),
            done: AtomicU32::new(0),
            history: Mutex::new(History::new()),
        }
    }

    /// The server's address for this buyer. Several, because one pair of addresses has only some 28,000
    /// ports for connections.
    pub(crate) fn base(&self, buyer: u32) -> &str {
        &self.bases[buyer as usize % self.bases.len()]
    }

    /// Whether the server limits orders as it does by default.
    pub(crate) fn has_default_rate_limit(&self) -> bool {
        self.default_rate_limit
    }

    /// A place among the requests under way.
    pub(crate) async fn place(&self) -> SemaphorePermit<'_> {
        self.places.acquire().await.expect("the semaphore is never closed")
    }

    /// Waits with the others; None if there is no opening.
    pub(crate) async fn wait_for_opening(&self) -> Option<Arc<Goods>> {
        let mut word = self.word.subscribe();
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let said = word.wait_for(|word| !matches!(word, Word::Wait)).await;
        match said.as_deref() {
            Ok(Word::Open(goods)) => Some(Arc::clone(goods)),
            _ => None,
        }
    }

    pub(crate) fn order_answered(&self) {
        self.orders.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn finished(&self, diary: Diary) {
        self.history.lock().unwrap_or_else(PoisonError::into_inner).add(diary);
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    /// What the buyers saw; to be called once, when all are done.
    pub(crate) fn take_history(&self) -> History {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::replace(&mut history, History::new())
    }
}

/// Lets the herd fall on a new sale, and returns when every buyer is done.
pub(crate) async fn run(
    ground: &Arc<Ground>,
    args: &Args,
    operator: &Operator,
    progress: &Progress,
) -> Result<Arc<Goods>> {
    let attack = Box::pin(attack(ground, args)?.execute());
    let opening = async {
        let opened = open_when_all_wait(ground, args, operator, progress).await;
        if opened.is_err() {
            ground.word.send_replace(Word::GoHome);
        }
        opened
    };
    let watching = async {
        // A herd that cannot start has nobody to open for; the other way round, goose sends the users home.
        let attack = async { attack.await.context("goose") };
        let (_metrics, opened) = tokio::try_join!(attack, async { Ok(opening.await) })?;
        opened
    };
    let goods = tokio::select! {
        result = watching => result?,
        () = show(ground, args.users, progress) => unreachable!("showing has no end"),
    };
    // Goose's own handling of Ctrl-C lets the users end what they do.
    if goose::is_killswitch_triggered() {
        bail!("interrupted");
    }
    Ok(goods)
}

async fn open_when_all_wait(
    ground: &Ground,
    args: &Args,
    operator: &Operator,
    progress: &Progress,
) -> Result<Arc<Goods>> {
    progress.phase("waiting users", Some(u64::from(args.users)));
    let give_up = Instant::now() + START_WITHIN + Duration::from_millis(u64::from(args.users));
    while ground.waiting.load(Ordering::Relaxed) < args.users {
        if goose::is_killswitch_triggered() {
            bail!("interrupted");
        }
        if Instant::now() > give_up {
            bail!("goose started only {} of {} users", ground.waiting.load(Ordering::Relaxed), args.users);
        }
        sleep(LOOK_EVERY).await;
    }
    let goods = Arc::new(opening::announce(operator, args.stock(), ground.base(0)).await?);
    ground.word.send_replace(Word::Open(Arc::clone(&goods)));
    tokio::time::sleep_until(goods.opens_at.into()).await;
    progress.phase("buyers done", Some(u64::from(args.users)));
    Ok(goods)
}

async fn show(ground: &Ground, users: u32, progress: &Progress) {
    let mut seen = 0;
    loop {
        sleep(LOOK_EVERY).await;
        let done = ground.done.load(Ordering::Relaxed);
        let waiting = ground.waiting.load(Ordering::Relaxed);
        let orders = ground.orders.load(Ordering::Relaxed);
        let rate = (orders - seen) * 1_000 / u64::try_from(LOOK_EVERY.as_millis()).unwrap_or(u64::MAX);
        seen = orders;
        if waiting < users {
            progress.at(u64::from(waiting), "");
        } else {
            progress.at(u64::from(done), &format!("{orders} orders answered, {rate}/s"));
        }
    }
}

fn attack(ground: &Arc<Ground>, args: &Args) -> Result<GooseAttack> {
    let configuration = configuration(args.users, args.report_html.as_deref(), ground.base(0))?;
    let client = GooseClientBuilder::new().without_cookies().timeout(REQUEST_TIMEOUT);
    let scene = Arc::clone(ground);
    let part = Transaction::new(Arc::new(move |user: &mut GooseUser| {
        let ground = Arc::clone(&scene);
        Box::pin(async move {
            buyer::take_part(&ground, user).await;
            Ok(())
        })
    }));
    let attack = GooseAttack::initialize_with_config(configuration)?
        .set_client_builder_without_cookies(client)?
        .register_scenario(Scenario::new("flash sale").register_transaction(part.set_name("buy")));
    Ok(attack)
}

fn configuration(users: u32, report_html: Option<&Path>, host: &str) -> Result<GooseConfiguration> {
    let users = users.to_string();
    // All users in about a second; each goes through its part once.
    let mut arguments =
        vec!["--host", host, "--users", &users, "--increase-rate", &users, "--iterations", "1"];
    arguments.extend(["--no-telnet", "--no-print-metrics", "--co-mitigation", "disabled", "--quiet"]);
    if let Some(path) = report_html {
        arguments.extend(["--report-file", path.to_str().context("the report's path is not text")?]);
    }
    Ok(GooseConfiguration::parse_args_default(&arguments)?)
}
