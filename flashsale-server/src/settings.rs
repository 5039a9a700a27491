//! What `--print-config` prints.

use std::fmt::Write;

use clap::{Arg, ArgMatches, CommandFactory, parser::ValueSource};

use crate::{config::Config, stores::without_password};

/// Every setting in effect as `VARIABLE=value`, each with where it comes from. Passwords are left out, and what
/// a file holds is not shown, only its name.
pub fn settings(config: &Config, matches: &ArgMatches) -> String {
    let command = Config::command();
    let mut settings: Vec<_> = command.get_arguments().filter_map(|arg| setting(arg, matches)).collect();
    // Not given is not the same as none: a stack that runs in this directory is found.
    if let Ok(stores) = config.stores.clone().resolve_stores() {
        for (variable, url) in [("REDIS_URL", &stores.redis_url), ("DATABASE_URL", &stores.database_url)] {
            let not_given =
                |setting: &&mut Setting| setting.variable == variable && setting.source == NOT_GIVEN;
            if let Some(setting) = settings.iter_mut().find(not_given) {
                setting.value = without_password(url);
                setting.source = "a running `flashsale up`";
            }
        }
    }
    let lines: Vec<_> =
        settings.iter().map(|Setting { variable, value, .. }| format!("{variable}={value}")).collect();
    let width = lines.iter().map(String::len).max().unwrap_or_default();
    let mut text = String::new();
    for (line, setting) in lines.iter().zip(&settings) {
        writeln!(text, "{line:width$}  # {}", setting.source).expect("a String takes all");
    }
    text
}

struct Setting {
    variable: String,
    value: String,
    source: &'static str,
}

const NOT_GIVEN: &str = "not given";

/// `None` for what sets nothing, such as `--help`.
fn setting(arg: &Arg, matches: &ArgMatches) -> Option<Setting> {
    let variable = arg.get_env()?.to_string_lossy().into_owned();
    let id = arg.get_id().as_str();
    let values: Vec<_> = matches.get_raw(id).into_iter().flatten().map(|raw| raw.to_string_lossy()).collect();
    let given = values.join(",");
    let source = match matches.value_source(id) {
        Some(ValueSource::CommandLine) => "flag",
        Some(ValueSource::EnvVariable) if !given.is_empty() => "environment",
        Some(ValueSource::DefaultValue) => "default",
        _ => NOT_GIVEN,
    };
    // The variables that clap must not show hold URLs with passwords.
    let secret = arg.is_hide_env_values_set() && !given.is_empty();
    Some(Setting { variable, value: if secret { without_password(&given) } else { given }, source })
}
