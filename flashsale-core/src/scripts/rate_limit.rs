use std::{net::IpAddr, time::Duration};

use super::{Script, unexpected_word};
use crate::{
    keys,
    link::{CallError, Link},
};

pub(super) static RATE_LIMIT: Script = Script::new(include_str!("../../lua/rate_limit.lua"));

/// Counts one request of an address. `Some`: refused, until its window ends in so long.
pub(crate) async fn rate_limit(
    link: &Link,
    address: IpAddr,
    requests: u32,
    window: Duration,
) -> Result<Option<Duration>, CallError> {
    let mut command = redis::cmd("EVALSHA");
    let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    command.arg(RATE_LIMIT.sha()).arg(1).arg(keys::rate(address)).arg(requests).arg(window_ms);
    let mut reply = RATE_LIMIT.run(link, &command).await?;
    match &*reply.word {
        "allowed" => Ok(None),
        "limited" => Ok(Some(Duration::from_millis(reply.next()?))),
        other => Err(unexpected_word(other)),
    }
}
