//! What every command is told beside its own arguments: which stores, who is asking, how to show results.

use std::env;

use flashsale_core::{Engine, Operator};
use flashsale_server::StoreArgs;
use nix::unistd::{User, geteuid, gethostname};

use crate::{output::Output, stores};

/// The options of every command.
#[derive(Debug, clap::Args)]
pub(crate) struct Call {
    #[command(flatten)]
    pub(crate) stores: StoreArgs,
    /// Who you are: what you change is noted under this name. Without it, user@host
    #[arg(id = "as", long = "as", global = true, env = "FLASHSALE_OPERATOR",
        hide_env_values = true, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// Tables for people, or JSON for programs
    #[arg(long, global = true, value_enum, value_name = "FORMAT", default_value_t)]
    pub(crate) output: Output,
}

impl Call {
    /// An engine on the stores. It connects when it is first asked for something.
    pub(crate) async fn connect(&self) -> anyhow::Result<Engine> {
        stores::connect(&self.stores).await
    }

    /// The operator's side of an engine, under the name of who is asking.
    pub(crate) fn operator(&self, engine: &Engine) -> Operator {
        engine.operator().acting_as(&self.name.clone().unwrap_or_else(user_at_host))
    }
}

fn name(text: &str) -> Result<String, &'static str> {
    let fits = (1..=100).contains(&text.len()) && !text.chars().any(char::is_control);
    if fits { Ok(text.to_owned()) } else { Err("must be 1-100 bytes long, without control characters") }
}

/// The person, also behind `sudo`: everybody is root there.
fn user_at_host() -> String {
    let variable = |name: &str| env::var(name).ok().filter(|user| name_is_plain(user));
    let user = variable("SUDO_USER").or_else(|| variable("USER")).or_else(|| {
        let user = User::from_uid(geteuid()).ok().flatten();
        user.map(|user| user.name)
    });
    let host = gethostname().ok().and_then(|host| host.into_string().ok());
    let or_unknown = |name: Option<String>| name.unwrap_or_else(|| "unknown".to_owned());
    format!("{}@{}", or_unknown(user), or_unknown(host))
}

fn name_is_plain(user: &str) -> bool {
    name(user).is_ok()
}
