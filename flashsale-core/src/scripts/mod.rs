//! The Lua scripts and, beside each, the one function that calls it.
//!
//! Each script's header is its contract: keys, arguments, replies.

mod audit;
mod cart;
mod drain;
mod load;
mod look;
mod preflight;
mod rate_limit;
mod reserve;
pub mod seam;
mod stock;

use std::{borrow::Cow, sync::OnceLock, time::Duration};

use redis::{Cmd, FromRedisValue, Value};

pub(crate) use self::{
    audit::*, cart::*, drain::*, load::*, look::*, preflight::*, rate_limit::*, reserve::*, stock::*,
};
use crate::{
    keys::SaleKeys,
    link::{CallError, Link},
    sale::Epoch,
};

/// The version of the scripts and of what they keep. A sale that was loaded under another one is fenced:
/// an old process is refused rather than corrupting what a new one wrote.
pub(crate) const VERSION: u32 = 2;
/// Why a process does not touch a sale that was loaded under a higher version.
pub(crate) const NEWER: &str = "it was loaded by a newer version of this program; upgrade this process";

/// The first line of a script that changes nothing.
const READS_ONLY: &str = "#!lua flags=no-writes";

/// One atomic decision.
pub(crate) struct Script {
    text: &'static str,
    /// What is run: the text, unless another one took its place before the first call.
    used: OnceLock<Used>,
    /// Carrying it out twice does what once does.
    repeatable: bool,
}

/// A text that is run, and the name that Redis knows it by.
#[derive(Debug)]
struct Used {
    text: Cow<'static, str>,
    sha: String,
}

impl Used {
    fn new(text: impl Into<Cow<'static, str>>) -> Self {
        let text = text.into();
        let sha = redis::Script::new(&text).get_hash().to_owned();
        Self { text, sha }
    }
}

impl Script {
    const fn new(text: &'static str) -> Self {
        Self { text, used: OnceLock::new(), repeatable: false }
    }

    /// One that may be carried out twice: where its answer is lost with the connection, it is sent again.
    const fn repeatable(text: &'static str) -> Self {
        Self { text, used: OnceLock::new(), repeatable: true }
    }

    fn used(&self) -> &Used {
        self.used.get_or_init(|| Used::new(self.text))
    }

    fn sha(&self) -> &str {
        &self.used().sha
    }

    /// A call on a sale: all its keys, and the version.
    fn on_sale(&self, keys: &SaleKeys) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        let names = keys.all();
        command.arg(self.sha()).arg(names.len()).arg(&names).arg(VERSION);
        command
    }

    /// The same under an epoch, as every script is called that changes a sale.
    fn under_epoch(&self, keys: &SaleKeys, epoch: Epoch) -> Cmd {
        let mut command = self.on_sale(keys);
        command.arg(epoch.get());
        command
    }

    async fn run(&self, link: &Link, command: &Cmd) -> Result<Reply, CallError> {
        self.run_within(link, command, link.deadline()).await
    }

    /// Runs it, loading it first where Redis has forgotten it.
    async fn run_within(&self, link: &Link, command: &Cmd, deadline: Duration) -> Result<Reply, CallError> {
        let value = match self.send(link, command, deadline).await {
            Err(CallError::Refused(error)) if error.code() == Some("NOSCRIPT") => {
                let _: String = link
                    .ask(redis::cmd("SCRIPT").arg("LOAD").arg(&*self.used().text))
                    .await
                    .map_err(CallError::before_sending)?;
                self.send(link, command, deadline).await?
            }
            other => other?,
        };
        let mut reply = Reply::of(value)?;
        match reply.text()? {
            word if word == "fenced" => Err(CallError::Fenced(reply.text()?)),
            word => Ok(Reply { word, ..reply }),
        }
    }

    async fn send(&self, link: &Link, command: &Cmd, deadline: Duration) -> Result<Value, CallError> {
        if self.repeatable || self.used().text.starts_with(READS_ONLY) {
            link.ask_within(command, deadline).await
        } else {
            link.query_within(command, deadline).await
        }
    }
}

/// All of them.
const ALL: [&Script; 13] = [
    &RESERVE,
    &BEGIN,
    &SETTLE,
    &LOAD,
    &STATE,
    &STOCK,
    &LOOK,
    &AUDIT,
    &PURGE,
    &LEAVE,
    &RATE_LIMIT,
    &CART,
    &PREFLIGHT,
];

/// A script's reply, read from its front: a word, then what the word promises.
#[derive(Debug)]
pub(crate) struct Reply {
    word: String,
    rest: std::vec::IntoIter<Value>,
}

impl Reply {
    fn of(value: Value) -> Result<Self, CallError> {
        let rest = value.into_sequence().map_err(|other| unexpected(&other))?.into_iter();
        Ok(Self { word: String::new(), rest })
    }

    fn next<T: FromRedisValue>(&mut self) -> Result<T, CallError> {
        let value = self.rest.next().unwrap_or_default();
        T::from_redis_value(value).map_err(|error| CallError::Refused(error.into()))
    }

    fn text(&mut self) -> Result<String, CallError> {
        self.next()
    }

    fn list(&mut self) -> Result<Self, CallError> {
        Self::of(self.rest.next().unwrap_or_default())
    }

    fn expect(self, word: &str) -> Result<Self, CallError> {
        if self.word == word { Ok(self) } else { Err(unexpected_word(&self.word)) }
    }
}

/// A reply that is not in the script's contract.
fn unexpected(value: &Value) -> CallError {
    let detail = format!("{value:?}");
    CallError::Refused(
        (redis::ErrorKind::UnexpectedReturnType, "a script's reply is not in its contract", detail).into(),
    )
}

fn unexpected_word(word: &str) -> CallError {
    unexpected(&Value::SimpleString(word.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The guard is the same text wherever a script changes a sale, so that none can be looser.
    #[test]
    fn every_script_guards_the_sale_alike() {
        const GUARD: [&str; 5] = [
            "if not sale[2] then return { 'fenced', 'missing' } end",
            "if sale[1] ~= ARGV[1] then return { 'fenced', 'version' } end",
            "if sale[2] ~= ARGV[2] then return { 'fenced', 'epoch' } end",
            "if sale[3] ~= string.match(redis.call('INFO', 'server'), 'run_id:(%x+)') then return { 'fenced', 'run_id' } end",
            "if sale[4] == 'loading' then return { 'fenced', 'loading' } end",
        ];
        const BOOK: &str =
            "if redis.call('HGET', KEYS[4], 'epoch') ~= ARGV[2] then return { 'fenced', 'book' } end";
        for script in [&BEGIN, &SETTLE, &STATE, &STOCK, &AUDIT, &PURGE, &RESERVE] {
            assert!(script.text.contains(&GUARD.join("\n")), "{}", script.text);
        }
        // Those that go by what the book says do not take a book that was removed for an empty one.
        for script in [&BEGIN, &SETTLE, &RESERVE] {
            assert!(script.text.contains(&[GUARD[4], BOOK].join("\n")), "{}", script.text);
        }
    }

    /// Lua includes nothing: what is mended in one of them has to be mended in the other.
    #[test]
    fn begin_and_settle_read_the_queue_alike() {
        let block = |script: &Script| {
            let (_, from) = script.text.split_once("-- Which order the stream holds").unwrap();
            from.split_once("\n\n").unwrap().0
        };
        assert!(block(&BEGIN).ends_with("  return order_of[entry_id] == order\nend"), "{}", block(&BEGIN));
        assert_eq!(block(&BEGIN), block(&SETTLE));
    }

    #[test]
    fn every_header_names_why_its_script_is_fenced() {
        for script in ALL {
            let is_header = |line: &&str| line.starts_with("--") || line.starts_with("#!");
            let header: String = script.text.lines().take_while(is_header).collect();
            for reason in script.text.split("return { 'fenced', ").skip(1) {
                let (reason, _) = reason.split_once(' ').unwrap();
                assert!(header.contains(reason), "{reason} is not in: {header}");
            }
        }
    }

    #[test]
    fn every_script_declares_itself() {
        for script in ALL {
            assert!(script.text.starts_with("#!lua"), "a full Redis must refuse it whole: {}", script.text);
        }
    }

    /// A command that is missing there would be found to be denied by the first buyer.
    #[test]
    fn the_preflight_asks_for_every_command_that_a_script_runs() {
        for script in ALL {
            for call in script.text.split("redis.call('").skip(1) {
                let mut words = call.split('\'');
                let name = words.next().unwrap();
                let asked = match (name, words.nth(1)) {
                    ("XGROUP" | "XINFO", Some(what)) => format!("{{ '{name}', '{what}'"),
                    _ => format!("{{ '{name}'"),
                };
                assert!(PREFLIGHT.text.contains(&asked), "{asked}");
            }
        }
    }
}
