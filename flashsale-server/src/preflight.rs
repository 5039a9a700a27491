//! What becomes of a preflight's findings where the program starts, and in `flashsale doctor`.

use clap::{Args, builder::BoolishValueParser};
use flashsale_core::{Finding, Verdict};

/// What may be overlooked.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct PreflightArgs {
    /// Use a Redis that evicts keys, or keeps nothing over a restart: accepted orders may be lost
    #[arg(long, env = "FLASHSALE_ALLOW_UNSAFE_REDIS", value_parser = BoolishValueParser::new())]
    pub allow_unsafe_redis: bool,
}

impl PreflightArgs {
    /// The findings with the unsafe ones judged: warned of where they are allowed, else refused.
    pub fn judge(self, mut findings: Vec<Finding>) -> Vec<Finding> {
        for finding in findings.iter_mut().filter(|finding| finding.verdict == Verdict::Unsafe) {
            if self.allow_unsafe_redis {
                finding.verdict = Verdict::Warning;
                continue;
            }
            finding.verdict = Verdict::Refused;
            if let Some(remedy) = &mut finding.remedy {
                remedy.push_str(
                    ", or use it as it is with --allow-unsafe-redis (FLASHSALE_ALLOW_UNSAFE_REDIS=true)",
                );
            }
        }
        findings
    }
}

/// What was found and what to do about it, in a line.
pub(crate) fn line(Finding { check, found, remedy, .. }: &Finding) -> String {
    let remedy = remedy.as_ref().map(|remedy| format!("; {remedy}"));
    format!("{check}: {found}{}", remedy.unwrap_or_default())
}
