//! `flashsale doctor`: are the stores such that they can be used?

use std::process::ExitCode;

use flashsale_core::{Finding, Verdict};
use flashsale_server::PreflightArgs;

use crate::{call::Call, output};

/// Check versions, roles and settings of the stores, what is allowed there, the tables and the clocks
///
/// Servers and workers check the same when they start, and end where something is refused. Nothing is changed. Exit
/// code 1 if something is refused or a store is away; what is only warned of does not count.
#[derive(Debug, Clone, Copy, clap::Args)]
#[command(after_help = "Examples:\n  flashsale doctor\n  flashsale doctor --output json")]
pub(crate) struct Args {
    #[command(flatten)]
    preflight: PreflightArgs,
}

pub(crate) async fn run(args: Args, call: &Call) -> anyhow::Result<ExitCode> {
    let engine = call.connect().await?;
    let findings = args.preflight.judge(engine.preflight().await);
    engine.close().await;
    call.output.show(&findings, || as_text(&findings))?;
    let usable = |finding: &Finding| matches!(finding.verdict, Verdict::Ok | Verdict::Warning);
    Ok(if findings.iter().all(usable) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A line for each finding, then what to do about those that are not as they should be.
fn as_text(findings: &[Finding]) -> String {
    let row = |finding: &Finding| [finding.check.to_owned(), word(finding.verdict), finding.found.clone()];
    let mut parts = vec![output::table(["check", "verdict", "found"], findings.iter().map(row))];
    let to_do = |finding: &Finding| Some(format!("  {}: {}", finding.check, finding.remedy.as_ref()?));
    let remedies: Vec<_> = findings.iter().filter_map(to_do).collect();
    if !remedies.is_empty() {
        parts.push(format!("To do:\n{}", remedies.join("\n")));
    }
    parts.join("\n\n")
}

/// What stands out is what matters.
fn word(verdict: Verdict) -> String {
    let word = format!("{verdict:?}");
    if verdict == Verdict::Ok { word.to_lowercase() } else { word.to_uppercase() }
}
