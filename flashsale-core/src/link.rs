//! One connection to Redis that is dropped as soon as it is in doubt.
//!
//! A response that does not come in time does not cancel its command, and a later response on the same
//! connection could be taken for it only after a long wait: so after a timeout or an I/O error the
//! connection is given up, and the next caller makes a new one.

use std::{
    fmt,
    time::{Duration, Instant},
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, FromRedisValue, IntoConnectionInfo, ProtocolVersion, RedisError,
    Value,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use tokio::{sync::Mutex, time::error::Elapsed};

use crate::{
    config::{Redis, RedisStore},
    error::{Error, Result},
    ids::SaleId,
};

/// Why a sale is fenced of which a key is of another type.
pub(crate) const DAMAGED: &str = "a key of it is of another type";

/// How a call to Redis can fail, by what is known of its effect.
#[derive(Debug)]
pub(crate) enum CallError {
    /// It was never sent: nothing happened.
    NotSent(String),
    /// No answer came: it may have happened, or may happen still.
    Lost(String),
    /// Redis refused it, before it changed anything.
    Refused(RedisError),
    /// The script did not find the sale under the caller's epoch on the server that it was loaded into.
    Fenced(String),
}

impl CallError {
    pub(crate) fn is_fenced(&self) -> bool {
        matches!(self, Self::Fenced(_))
    }

    /// The error of an operation on this sale that changes nothing or is repeated until it is answered.
    pub(crate) fn in_sale(self, sale: SaleId) -> Error {
        match self {
            Self::Fenced(why) => Error::fenced(sale, why),
            damaged if damaged.is_wrong_type() => Error::fenced(sale, DAMAGED),
            other => other.into(),
        }
    }

    /// The queue or its consumer group is not there: it was lost.
    pub(crate) fn is_no_queue(&self) -> bool {
        self.is_wrong_type() || matches!(self, Self::Refused(error) if error.code() == Some("NOGROUP"))
    }

    /// A key was overwritten with one of another type. The scripts read before they write, so this one has
    /// changed nothing, and the keeper loads the sale again.
    pub(crate) fn is_wrong_type(&self) -> bool {
        matches!(self, Self::Refused(error) if error.code() == Some("WRONGTYPE"))
    }

    /// The same failure of a call that only prepares another one, which then was not sent.
    pub(crate) fn before_sending(self) -> Self {
        match self {
            Self::Lost(why) => Self::NotSent(why),
            other => other,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotSent(why) => write!(f, "Redis cannot be reached: {why}"),
            Self::Lost(why) => write!(f, "no answer from Redis: {why}"),
            Self::Refused(error) => write!(f, "Redis refused: {error}"),
            Self::Fenced(why) => write!(f, "fenced: {why}"),
        }
    }
}

/// For calls that change nothing, or that are repeated until they are answered, and that are made under no epoch:
/// where a script can find the sale fenced, `?` would make that a store that is away. See [`CallError::in_sale`].
impl From<CallError> for Error {
    fn from(error: CallError) -> Self {
        debug_assert!(!error.is_fenced(), "{error}, and it is not said which sale");
        Error::unavailable(error.to_string())
    }
}

#[derive(Default)]
struct Slot {
    connection: Option<MultiplexedConnection>,
    /// Which connection it is: a call that gives one up must not take the next one from the others.
    number: u64,
}

/// A connection made when it is first needed.
pub(crate) struct Link {
    client: Client,
    deadline: Duration,
    slot: Mutex<Slot>,
}

impl Link {
    pub(crate) fn new(client: Client, deadline: Duration) -> Self {
        Self { client, deadline, slot: Mutex::default() }
    }

    /// How long a call may take.
    pub(crate) fn deadline(&self) -> Duration {
        self.deadline
    }

    /// Sends one command and waits for its answer, at most the link's deadline.
    pub(crate) async fn query<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CallError> {
        self.query_within(command, self.deadline).await
    }

    /// Sends a command that changes nothing, once more if the connection turns out to be dead: an idle one
    /// shows that only when it is used.
    pub(crate) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, CallError> {
        self.ask_within(command, self.deadline).await
    }

    /// The same, with a deadline of its own.
    pub(crate) async fn ask_within<T: FromRedisValue>(
        &self,
        command: &Cmd,
        deadline: Duration,
    ) -> Result<T, CallError> {
        let began = Instant::now();
        match self.query_within(command, deadline).await {
            Err(CallError::Lost(_)) if began.elapsed() < deadline => {
                self.query_within(command, deadline.saturating_sub(began.elapsed())).await
            }
            other => other,
        }
    }

    /// As [`query`](Self::query), with a deadline of its own.
    pub(crate) async fn query_within<T: FromRedisValue>(
        &self,
        command: &Cmd,
        deadline: Duration,
    ) -> Result<T, CallError> {
        let until = Instant::now() + deadline;
        let (number, mut connection) = self.connection(until).await?;
        let answer = tokio::time::timeout_at(until.into(), command.query_async(&mut connection)).await;
        self.judge(number, answer, deadline).await
    }

    /// Sends commands that may be carried out twice, in one round trip, and once more if the connection turns
    /// out to be dead. What one of them was refused with stands in the place of its answer, unless it is for
    /// the server that none of them can work there.
    pub(crate) async fn ask_all(
        &self,
        commands: Vec<Cmd>,
    ) -> Result<Vec<Result<Value, RedisError>>, CallError> {
        let mut pipeline = redis::Pipeline::new();
        pipeline.ignore_errors();
        for command in commands {
            pipeline.add_command(command);
        }
        if pipeline.is_empty() {
            return Ok(Vec::new());
        }
        let until = Instant::now() + self.deadline;
        let mut tried_before = false;
        loop {
            let (number, mut connection) = self.connection(until).await?;
            let answer = tokio::time::timeout_at(until.into(), pipeline.query_async(&mut connection)).await;
            match self.judge::<Vec<Result<Value, RedisError>>>(number, answer, self.deadline).await {
                Err(CallError::Lost(_)) if !tried_before && Instant::now() < until => tried_before = true,
                Ok(answers) => return self.judge_each(number, answers).await,
                other => return other,
            }
        }
    }

    /// What an answer, or its absence, says of the call and of its connection.
    async fn judge<T: FromRedisValue>(
        &self,
        number: u64,
        answer: Result<Result<Value, RedisError>, Elapsed>,
        deadline: Duration,
    ) -> Result<T, CallError> {
        match answer {
            Ok(Ok(value)) => T::from_redis_value(value).map_err(|error| CallError::Refused(error.into())),
            Ok(Err(error)) if error.code().is_some() => {
                if is_wrong_server(&error) {
                    self.give_up(number).await;
                }
                Err(CallError::Refused(error))
            }
            Ok(Err(error)) => {
                self.give_up(number).await;
                Err(CallError::Lost(error.to_string()))
            }
            Err(_) => {
                self.give_up(number).await;
                Err(CallError::Lost(format!("timed out after {deadline:?}")))
            }
        }
    }

    async fn judge_each(
        &self,
        number: u64,
        answers: Vec<Result<Value, RedisError>>,
    ) -> Result<Vec<Result<Value, RedisError>>, CallError> {
        let mut errors = answers.iter().filter_map(|answer| answer.as_ref().err());
        if let Some(error) = errors.find(|error| is_wrong_server(error)) {
            self.give_up(number).await;
            return Err(CallError::Refused(error.clone()));
        }
        Ok(answers)
    }

    /// Drops the connection: the next call makes a new one.
    async fn give_up(&self, number: u64) {
        let mut slot = self.slot.lock().await;
        if slot.number == number {
            slot.connection = None;
        }
    }

    async fn connection(&self, until: Instant) -> Result<(u64, MultiplexedConnection), CallError> {
        let connect = async {
            let mut slot = self.slot.lock().await;
            if let Some(connection) = &slot.connection {
                return Ok((slot.number, connection.clone()));
            }
            // Our own deadlines stand around every call; the driver's would end some of them earlier.
            let config = AsyncConnectionConfig::new().set_response_timeout(None).set_connection_timeout(None);
            let connection = self.client.get_multiplexed_async_connection_with_config(&config).await;
            let connection = connection.map_err(|error| CallError::NotSent(error.to_string()))?;
            slot.number += 1;
            Ok((slot.number, slot.connection.insert(connection).clone()))
        };
        match tokio::time::timeout_at(until.into(), connect).await {
            Ok(result) => result,
            Err(_) => Err(CallError::NotSent("timed out while connecting".to_owned())),
        }
    }
}

/// A demoted or starting server, or not the one that has the key: the next connection may lead to the right one.
fn is_wrong_server(error: &RedisError) -> bool {
    matches!(error.code(), Some("READONLY" | "LOADING" | "MASTERDOWN" | "MOVED"))
}

/// A client for this Redis whose connections send at once and notice a peer that is gone.
pub(crate) fn client(redis: &RedisStore, deadline: Duration) -> Result<Client> {
    let bad = |error: RedisError| Error::refused(format!("the Redis URL cannot be used: {error}"));
    let info = match &redis.0 {
        Redis::Url(url) => url.as_str().into_connection_info().map_err(bad)?,
        Redis::Client(client) => client.get_connection_info().clone(),
    };
    // Answers are read in the form that they have there.
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP2);
    let keepalive =
        TcpKeepalive::new().with_time(Duration::from_secs(5)).with_interval(Duration::from_secs(1));
    // Without TCP_NODELAY a small batch waits for the acknowledgement of the one before.
    let tcp = TcpSettings::default().set_nodelay(true).set_keepalive(keepalive);
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    let tcp = tcp.set_user_timeout(deadline * 5);
    Client::open(info.set_redis_settings(settings).set_tcp_settings(tcp)).map_err(bad)
}
