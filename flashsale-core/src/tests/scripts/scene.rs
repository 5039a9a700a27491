//! A sale of one's own on the shared Redis, and how a table writes down its state.

use std::{
    collections::{BTreeSet, HashMap},
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use redis::{FromRedisValue, RedisError, Value};

use crate::{
    ids::{OrderId, SaleId},
    keys::SaleKeys,
    link::{CallError, Link, client},
    order::Fingerprint,
    packed::{BookState, FIRST_MS},
    sale::{Epoch, SaleState, Seq},
    scripts::{LoadStep, Pair, load_start, load_step},
    test_support,
};

/// The epoch of every sale here.
pub(in crate::tests) const EPOCH: Epoch = Epoch(7);
/// The seq of every sale here at its beginning.
pub(in crate::tests) const SEQ: Seq = Seq(4);
/// How long a call may take on a machine that is busy with other tests.
const DEADLINE: Duration = Duration::from_secs(20);
/// The keys of a sale as tables name them.
const NAMES: [&str; 5] = ["sale", "stock", "product", "book", "queue"];
/// Far enough in the past and in the future.
pub(in crate::tests) const WINDOW_MS: (i64, i64) = (1, 4_102_444_800_000);

/// A sale id that no other test of this process has: those that databases make count up from 1.
pub(in crate::tests) fn fresh_sale() -> SaleId {
    static NEXT: AtomicI64 = AtomicI64::new(1_000_000);
    SaleId::try_from(NEXT.fetch_add(1, Ordering::Relaxed)).unwrap()
}

/// The order of this number in a sale.
pub(in crate::tests) fn order_id(sale: SaleId, number: u16) -> OrderId {
    format!("00000000-0000-8000-8000-{number:04x}{:06x}00", sale.get()).parse().unwrap()
}

/// A link to any Redis.
pub(in crate::tests) fn link(url: &str) -> Link {
    Link::new(client(&url.into(), DEADLINE).unwrap(), DEADLINE)
}

/// Loads an open sale of these products: id, stock, limit and price.
pub(in crate::tests) async fn load_sale(
    link: &Link,
    keys: &SaleKeys,
    epoch: Epoch,
    products: &[(i64, i64, u32, i64)],
) {
    let pair = |id: &i64, value: String| (id.to_string().into_bytes(), value.into_bytes());
    let stock: Vec<_> = products.iter().map(|(id, left, ..)| pair(id, left.to_string())).collect();
    let product: Vec<_> =
        products.iter().map(|(id, _, limit, price)| pair(id, format!("{limit}:{price}"))).collect();
    let (starts_ms, ends_ms) = WINDOW_MS;
    load_start(link, keys, epoch, "seeding", &server(link, keys).await).await.unwrap();
    let changes = [(b"changes".to_vec(), b"0".to_vec())];
    let steps = [
        LoadStep::Clear,
        LoadStep::Fields("stock", &changes),
        LoadStep::Fields("stock", &stock),
        LoadStep::Fields("product", &product),
        LoadStep::Queue(&[]),
        LoadStep::Open { state: SaleState::Open, starts_ms, ends_ms, seq: SEQ },
    ];
    for (number, step) in (1..).zip(&steps) {
        load_step(link, keys, epoch, "seeding", number, step).await.unwrap();
    }
}

/// One sale under epoch 7, open, with the seq 4, no orders, and two products: 1 (10 left, 3 for a user, at
/// 1000) and 2 (5 left, 2 for a user, at 2000).
///
/// In commands and calls, the keys have their short names, `@A`, `@B`, … are orders as Redis has them, `%A` an
/// order as version 1 had it, `$1`, `$2`, … fingerprints, `Q1` and `F1~why` states since an instant, `~` is a
/// space within a word and `''` is an empty word. In what is read back, `RUN` is the server's run id, `now` an
/// instant since the sale was loaded, and `new1`, `new2`, … are entries that were added since, in their order.
pub(in crate::tests) struct Scene {
    pub link: Link,
    pub sale: SaleId,
    pub keys: SaleKeys,
    run_id: String,
    opened_ms: u64,
}

impl Scene {
    pub(super) async fn open() -> Self {
        Self::open_on(test_support::stack().await.redis_url()).await
    }

    pub(super) async fn open_on(url: &str) -> Self {
        let (link, sale) = (link(url), fresh_sale());
        let keys = SaleKeys::new(sale);
        load_sale(&link, &keys, EPOCH, &[(1, 10, 3, 1000), (2, 5, 2, 2000)]).await;
        let info: String = link.query(redis::cmd("INFO").arg("server")).await.unwrap();
        let run_id = info.lines().find_map(|line| line.strip_prefix("run_id:")).unwrap().to_owned();
        let (seconds, micros): (u64, u64) = link.query(&redis::cmd("TIME")).await.unwrap();
        Self { link, sale, keys, run_id, opened_ms: seconds * 1000 + micros / 1000 }
    }

    /// Runs a command that is written in the notation.
    pub(super) async fn run(&self, command: &str) {
        let words: Vec<_> = words(command).map(|word| self.key(&word)).collect();
        let _: Value = self.query(&words).await.unwrap_or_else(|error| panic!("given {command:?}: {error}"));
    }

    /// Calls a script with exactly these arguments; for what the typed functions cannot say or hide.
    pub(super) async fn raw(&self, script: &str, arguments: &str) -> Result<String, CallError> {
        let mut command = redis::cmd("EVAL");
        command
            .arg(script)
            .arg(NAMES.len())
            .arg(&self.keys.all())
            .arg(words(arguments).map(|word| self.bytes(&word)).collect::<Vec<_>>());
        self.link.query::<Value>(&command).await.map(|value| self.reply_text(value))
    }

    /// The order of this name.
    pub(super) fn order(&self, name: &str) -> OrderId {
        let orders: HashMap<_, _> = self
            .orders()
            .flat_map(|(letter, id)| [(format!("@{letter}"), id), (format!("%{letter}"), id)])
            .collect();
        orders[name]
    }

    /// A word as it stands in Redis.
    pub(super) fn bytes(&self, word: &str) -> Vec<u8> {
        if let Some(state) = state_of(word) {
            return state;
        }
        let replace_one =
            |bytes: Vec<u8>, (notation, real): (String, Vec<u8>)| replace(&bytes, notation.as_bytes(), &real);
        self.notation().fold(word.replace('~', " ").into_bytes(), replace_one)
    }

    /// The notation for what stands in Redis.
    pub(super) fn shown(&self, bytes: &[u8]) -> String {
        if let Some(state) = BookState::unpack(bytes) {
            let ms = state.since.timestamp_millis();
            let recent = (self.opened_ms..self.opened_ms + 120_000).contains(&ms.unsigned_abs());
            let since = if recent { "now".to_owned() } else { (ms - FIRST_MS).to_string() };
            let reason = state.failure.map_or_else(String::new, |reason| format!(" {reason}"));
            return format!("{}{since}{reason}", char::from(bytes[0]));
        }
        let replace_one =
            |bytes: Vec<u8>, (notation, real): (String, Vec<u8>)| replace(&bytes, &real, notation.as_bytes());
        self.notation().fold(bytes.to_vec(), replace_one).escape_ascii().to_string()
    }

    /// What the notation has for ids and fingerprints, and what Redis has.
    fn notation(&self) -> impl Iterator<Item = (String, Vec<u8>)> {
        let orders = self.orders().flat_map(|(letter, id)| {
            [
                (format!("@{letter}"), id.packed().to_vec()),
                (format!("%{letter}"), id.to_string().into_bytes()),
            ]
        });
        let fingerprints = (0..=9).map(|number| {
            let name = format!("${number}");
            let bytes = fingerprint(&name).as_bytes().to_vec();
            (name, bytes)
        });
        orders.chain(fingerprints)
    }

    /// A reply's words; a list within it stands in brackets.
    fn reply_text(&self, value: Value) -> String {
        match value {
            Value::Array(values) => {
                let texts = values.into_iter().map(|value| match value {
                    Value::Array(_) => format!("[{}]", self.reply_text(value)),
                    value => self.reply_text(value),
                });
                texts.collect::<Vec<_>>().join(" ")
            }
            Value::BulkString(bytes) => self.shown(&bytes),
            value => String::from_redis_value(value).unwrap(),
        }
    }

    /// The notation for what was read.
    pub(super) fn show(&self, text: &str) -> String {
        let text = text.replace(&self.run_id, "RUN");
        let orders = self.orders();
        let text =
            orders.fold(text, |text, (letter, id)| text.replace(&id.to_string(), &format!("@{letter}")));
        let mut shown = String::new();
        for run in text.chunk_by_digits() {
            let now_ms = match (run.len(), run.parse::<u64>()) {
                (13, Ok(ms)) => ms,
                (16, Ok(us)) => us / 1000,
                _ => 0,
            };
            let recent = (self.opened_ms..self.opened_ms + 120_000).contains(&now_ms);
            shown.push_str(if recent { "now" } else { run });
        }
        shown
    }

    /// Every key of the sale, one line per field, entry, group, consumer and pending entry.
    pub(super) async fn state(&self) -> BTreeSet<String> {
        let mut lines = Vec::new();
        for (name, key) in NAMES.into_iter().zip(self.keys.all()) {
            let kind: String = self.query(&["TYPE", key]).await.unwrap();
            match &*kind {
                "none" => {}
                "hash" => {
                    let fields: Vec<Pair> = self.query(&["HGETALL", key]).await.unwrap();
                    let line = |(field, value): Pair| {
                        format!("{name} {} {}", self.shown(&field), self.shown(&value))
                    };
                    lines.extend(fields.into_iter().map(line));
                }
                "stream" => lines.extend(self.queue().await),
                other => lines.push(format!("{name} is a {other}")),
            }
        }
        let pattern = self.keys.sale.replace(":sale", ":*");
        let keys: Vec<String> = self.query(&["KEYS", &pattern]).await.unwrap();
        assert!(keys.iter().all(|key| self.keys.all().contains(&key.as_str())), "a foreign key: {keys:?}");
        lines.iter().map(|line| self.show(line)).collect()
    }

    async fn queue(&self) -> Vec<String> {
        let queue = &self.keys.queue;
        let mut lines = vec!["queue is a stream".to_owned()];
        let entries: Vec<(String, Vec<Pair>)> = self.query(&["XRANGE", queue, "-", "+"]).await.unwrap();
        let mut added = HashMap::new();
        for (id, _) in &entries {
            let ms: u64 = id.split_once('-').unwrap().0.parse().unwrap();
            if (self.opened_ms..self.opened_ms + 120_000).contains(&ms) {
                added.insert(id.clone(), format!("new{}", added.len() + 1));
            }
        }
        let named = |id: &String| added.get(id).unwrap_or(id).clone();
        for (id, fields) in &entries {
            let field = |(name, value): &Pair| format!("{}={}", self.shown(name), self.shown(value));
            let fields: Vec<_> = fields.iter().map(field).collect();
            lines.push(format!("queue {} {}", named(id), fields.join(" ")));
        }
        let groups: Vec<HashMap<String, Value>> = self.query(&["XINFO", "GROUPS", queue]).await.unwrap();
        for group in groups {
            let text = |field: &str| String::from_redis_value(group[field].clone()).unwrap();
            let name = text("name");
            lines.push(format!("group {name} at {}", named(&text("last-delivered-id"))));
            let consumers: Vec<HashMap<String, Value>> =
                self.query(&["XINFO", "CONSUMERS", queue, &name]).await.unwrap();
            for consumer in consumers {
                let consumer = String::from_redis_value(consumer["name"].clone()).unwrap();
                lines.push(format!("consumer {consumer} of {name}"));
            }
            let pending: Vec<(String, String, i64, i64)> =
                self.query(&["XPENDING", queue, &name, "-", "+", "1000"]).await.unwrap();
            lines.extend(
                pending.iter().map(|(id, consumer, ..)| format!("pending {} of {consumer}", named(id))),
            );
        }
        lines
    }

    async fn query<T: FromRedisValue>(&self, words: &[impl AsRef<[u8]>]) -> Result<T, CallError> {
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(word.as_ref());
        }
        self.link.query(&command).await
    }

    /// A word of a command, which may be a key.
    fn key(&self, word: &str) -> Vec<u8> {
        match NAMES.iter().position(|name| *name == word) {
            Some(index) => self.keys.all()[index].as_bytes().to_vec(),
            None => self.bytes(word),
        }
    }

    fn orders(&self) -> impl Iterator<Item = (char, OrderId)> + use<> {
        let sale = self.sale;
        (b'A'..=b'F').map(move |letter| (char::from(letter), order_id(sale, letter.into())))
    }
}

/// The words of a command or a call.
fn words(text: &str) -> impl Iterator<Item = String> {
    text.split_whitespace().map(|word| if word == "''" { String::new() } else { word.to_owned() })
}

/// The fingerprint of this name.
pub(super) fn fingerprint(name: &str) -> Fingerprint {
    match name.strip_prefix('$').expect("a fingerprint's name") {
        "0" => Fingerprint::UNKNOWN,
        number => Fingerprint::from_store(&format!("1{number:0>16}")),
    }
}

/// A state's value, if the word is one: a letter, an instant, and perhaps why.
fn state_of(word: &str) -> Option<Vec<u8>> {
    let (since, reason) = word.get(1..)?.split_once('~').unwrap_or((word.get(1..)?, ""));
    let since: i64 = since.parse().ok().filter(|_| word.starts_with(['Q', 'P', 'C', 'F']))?;
    let mut value = vec![word.as_bytes()[0]];
    value.extend_from_slice(&since.to_be_bytes()[3..]);
    value.extend_from_slice(reason.as_bytes());
    Some(value)
}

fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let (mut replaced, mut rest) = (Vec::new(), bytes);
    while let Some(at) = rest.windows(from.len()).position(|part| part == from) {
        replaced.extend_from_slice(&rest[..at]);
        replaced.extend_from_slice(to);
        rest = &rest[at + from.len()..];
    }
    replaced.extend_from_slice(rest);
    replaced
}

/// What Redis says of an error, without the place in the script.
pub(super) fn error_text(error: &RedisError) -> String {
    let text = format!("{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or_default());
    format!("error {}", text.split(" script: ").next().unwrap_or_default())
}

trait ChunkByDigits {
    /// The text cut where digits begin and end.
    fn chunk_by_digits(&self) -> impl Iterator<Item = &str>;
}

impl ChunkByDigits for str {
    fn chunk_by_digits(&self) -> impl Iterator<Item = &str> {
        self.as_bytes()
            .chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit())
            .map(|run| std::str::from_utf8(run).expect("cut beside ASCII digits"))
    }
}

/// The run id of this Redis.
pub(crate) async fn server(link: &Link, keys: &SaleKeys) -> String {
    crate::scripts::look(link, keys, &[]).await.unwrap().server
}
