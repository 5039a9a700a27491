//! `flashsale audit`: does what was promised hold, by both stores?

use std::{process::ExitCode, time::Duration};

use flashsale_core::{AuditReport, Engine, InvariantCheck, SaleId};
use serde_json::{Value, json};

use crate::{call::Call, failure, output, sale_ref::SaleRef, stores};

/// Check from both stores that nothing was oversold, duplicated or lost
///
/// One line for each invariant of each sale. Exit code 1 if one does not hold, or cannot be computed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  flashsale audit\n  flashsale audit --sale 1 --patience 30")]
pub(crate) struct Args {
    /// Only this sale
    #[arg(long, value_name = "ID")]
    sale: Option<SaleRef>,
    /// How long orders that wait when the audit begins may take to leave the queue
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(..=86_400))]
    patience: u64,
}

/// What became of the audit of one sale: a report, or why there is none.
struct Audited {
    sale: SaleId,
    slug: String,
    report: flashsale_core::Result<AuditReport>,
}

pub(crate) async fn run(args: &Args, call: &Call) -> anyhow::Result<ExitCode> {
    let engine = call.connect().await?;
    let audits = audit(&engine, args.sale.as_ref(), Duration::from_secs(args.patience)).await?;
    engine.close().await;
    let value: Vec<_> = audits.iter().map(as_json).collect();
    call.output.show(&value, || match audits.as_slice() {
        [] => "no sales to audit".to_owned(),
        audits => audits.iter().map(as_text).collect::<Vec<_>>().join("\n\n"),
    })?;
    if audits.iter().any(Audited::found_a_store_away) {
        failure::ask_after_stores(stores::resolve(&call.stores).ok());
    }
    Ok(if audits.iter().all(Audited::holds) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Audits all sales of these stores and tells the outcome in one line; more only of what does not hold.
pub(crate) async fn run_briefly(engine: &Engine) -> anyhow::Result<ExitCode> {
    let audits = audit(engine, None, Duration::from_secs(10)).await?;
    let broken: Vec<_> = audits.iter().filter(|audited| !audited.holds()).collect();
    if broken.is_empty() && !audits.is_empty() {
        output::line(&format!("audit: every invariant holds ({})", output::count(audits.len(), "sale")))?;
        return Ok(ExitCode::SUCCESS);
    }
    output::line("audit: FAILED")?;
    for audited in broken {
        output::line(&as_text(audited))?;
    }
    Ok(ExitCode::FAILURE)
}

async fn audit(engine: &Engine, only: Option<&SaleRef>, patience: Duration) -> anyhow::Result<Vec<Audited>> {
    let operator = engine.operator();
    let sales = match only {
        Some(sale) => vec![sale.find(&operator).await?],
        None => operator.sales().await?,
    };
    let progress = output::progress(sales.len());
    let mut audits = Vec::with_capacity(sales.len());
    for sale in sales {
        progress.set_message(format!("sale {} ({})", sale.id, sale.slug));
        // The other sales are audited whatever becomes of this one.
        let report = operator.audit(sale.id, patience).await;
        audits.push(Audited { sale: sale.id, slug: sale.slug, report });
        progress.inc(1);
    }
    progress.finish_and_clear();
    Ok(audits)
}

impl Audited {
    /// An audit that could not be made is a failure, not a pass.
    fn holds(&self) -> bool {
        self.report.as_ref().is_ok_and(AuditReport::holds)
    }

    fn found_a_store_away(&self) -> bool {
        match &self.report {
            Ok(report) => {
                let mut whys = report.checks.iter().filter_map(|check| check.failed.as_ref());
                whys.any(|why| why.starts_with("unavailable: "))
            }
            Err(error) => error.is_transient() && !error.is_fenced(),
        }
    }
}

fn as_json(audited: &Audited) -> Value {
    let (checks, error) = match &audited.report {
        Ok(report) => (report.checks.iter().map(check_as_json).collect(), None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    json!({
        "saleId": audited.sale,
        "slug": audited.slug,
        "holds": audited.holds(),
        "error": error,
        "invariants": checks,
    })
}

fn check_as_json(check: &InvariantCheck) -> Value {
    json!({
        "invariant": check.invariant,
        "title": check.invariant.title(),
        "holds": check.holds(),
        "violations": check.violations,
        "failed": check.failed,
    })
}

fn as_text(audited: &Audited) -> String {
    let mut lines = vec![format!("sale {} ({})", audited.sale, audited.slug)];
    match &audited.report {
        Ok(report) => lines.extend(report.checks.iter().flat_map(check_as_lines)),
        Err(error) => lines.push(format!("  FAILED  it could not be audited: {error}")),
    }
    lines.join("\n")
}

/// The verdict in one line, and below it what is wrong.
fn check_as_lines(check: &InvariantCheck) -> Vec<String> {
    let verdict = if check.holds() { "holds " } else { "FAILED" };
    let mut lines = vec![format!("  {}  {verdict}  {}", check.invariant, check.invariant.title())];
    lines.extend(check.failed.iter().map(|why| format!("        - could not be computed: {why}")));
    lines.extend(check.violations.iter().map(|violation| format!("        - {violation}")));
    lines
}
