//! How a failure is told: one message with its remedy, and an exit code.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use flashsale_server::Stores;

/// The person at the keyboard has to change something about the call: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Usage(String);

/// Wrong usage, as an error.
pub(crate) fn usage(message: impl Into<String>) -> anyhow::Error {
    Usage(message.into()).into()
}

/// A line on stderr. `eprintln!` would panic where nobody reads it any more.
pub(crate) fn tell(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Tells a failure on stderr and makes an exit code of it. `stores` are those that were asked.
pub(crate) fn report(error: &anyhow::Error, stores: impl FnOnce() -> Option<Stores>) -> ExitCode {
    if is_broken_pipe(error) {
        // Whoever read our results, such as `head`, has seen enough; a message would only disturb.
        return ExitCode::FAILURE;
    }
    tell(&format!("error: {}", describe(error)));
    if let Some(remedy) = remedy(error) {
        tell(remedy);
    }
    if is_away(error) {
        ask_after_stores(stores());
    }
    let core = error.downcast_ref::<flashsale_core::Error>();
    let invalid = core.is_some_and(|error| error.invalid().is_some());
    if invalid || error.is::<Usage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// What to do where a store does not answer.
pub(crate) fn ask_after_stores(stores: Option<Stores>) {
    let which = stores.map(|stores| format!(" ({stores})")).unwrap_or_default();
    tell(&format!(
        "Are the stores running, and are their URLs right{which}? `flashsale up` starts private ones; \
         `flashsale doctor` looks at both."
    ));
}

/// What to do about it, where the message itself does not say.
fn remedy(error: &anyhow::Error) -> Option<&'static str> {
    let core = error.downcast_ref::<flashsale_core::Error>()?;
    if core.is_not_found() && core.to_string().starts_with("dead letter") {
        return Some("`flashsale dead-letters list` shows those that there are.");
    }
    None
}

fn is_away(error: &anyhow::Error) -> bool {
    let core = error.downcast_ref::<flashsale_core::Error>();
    core.is_some_and(|core| core.is_transient() && !core.is_fenced())
}

pub(crate) fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.chain().find_map(|cause| cause.downcast_ref::<io::Error>());
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

/// The database was never migrated, or by an older version.
fn lacks_tables(error: &anyhow::Error) -> bool {
    let lacks = |text: &str| {
        text.contains("does not exist") && (text.contains("relation \"") || text.contains("column \""))
    };
    error.chain().any(|cause| lacks(&cause.to_string()))
}

/// The message and its causes, without the causes that the message quotes already.
fn describe(error: &anyhow::Error) -> String {
    if lacks_tables(error) {
        return "the database has no tables of this version yet: run `flashsale migrate`".to_owned();
    }
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn a_cause_that_is_quoted_already_is_not_repeated() {
        let error = anyhow!("no route").context("Redis: no route").context("cannot seed");
        assert_eq!(describe(&error), "cannot seed: Redis: no route");
    }

    #[test]
    fn a_database_without_tables_names_the_remedy() {
        let error = anyhow!(r#"error returned from database: relation "sales" does not exist"#);
        assert!(describe(&error).ends_with("run `flashsale migrate`"));
        assert_eq!(remedy(&error), None, "it is said already");
        assert_eq!(describe(&anyhow!("something else")), "something else");
    }
}
