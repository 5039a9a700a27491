use super::Script;
use crate::{
    keys,
    link::{CallError, Link},
};

pub(super) static PREFLIGHT: Script = Script::new(include_str!("../../lua/preflight.lua"));

/// The commands that this Redis does not let us run.
pub(crate) async fn denied(link: &Link) -> Result<Vec<String>, CallError> {
    let mut command = redis::cmd("EVALSHA");
    let names = keys::samples();
    command.arg(PREFLIGHT.sha()).arg(names.len()).arg(&names);
    PREFLIGHT.run(link, &command).await?.expect("ok")?.next()
}
