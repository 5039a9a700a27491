//! `flashsale orders export`: recorded orders for other programs, however many.

use std::{
    fs::{self, Permissions},
    io::{self, IsTerminal, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use clap::ValueEnum;
use flashsale_core::{Operator, OrderExport, OrderRecord};
use indicatif::ProgressBar;
use serde_json::json;
use tempfile::NamedTempFile;

use super::{Which, record_as_json};
use crate::{
    ask::Consent,
    failure::{is_broken_pipe, usage},
    output::{self, Output, count},
    signals::Signals,
};

/// Write recorded orders as CSV or JSON Lines, to stdout or to a file
///
/// All orders as they stood at one moment, newest first. CSV has a line for each item, with the order's columns
/// repeated; JSON Lines has a line for each order. In CSV, text that a spreadsheet would take for a formula (it begins
/// with = + - @ or a tab) or that begins with an apostrophe gets an apostrophe in front; JSON Lines has all values as
/// they are. A file appears when it is complete, not before.
#[derive(Debug, clap::Args)]
#[command(mut_arg("yes", |yes| yes.help("Replace a file that is there, without asking")), after_help = "Examples:\n  flashsale orders export --sale 1 --file orders.csv\n  \
                        flashsale orders export --status confirmed --format jsonl | jq .totalAmount")]
pub(crate) struct Args {
    #[command(flatten)]
    which: Which,
    /// The form of the lines
    #[arg(long, value_enum, default_value_t)]
    format: Format,
    /// Where to; without it, to stdout
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    #[default]
    Csv,
    Jsonl,
}

const COLUMNS: [&str; 16] = [
    "order_id",
    "sale_id",
    "user_id",
    "idempotency_key",
    "status",
    "failure_reason",
    "duplicate_of",
    "total_amount",
    "currency",
    "created_at",
    "recorded_at",
    "product_id",
    "product_name",
    "quantity",
    "unit_price",
    "line_total",
];

pub(super) async fn run(args: &Args, operator: &Operator, output: Output) -> anyhow::Result<()> {
    let Some(path) = &args.file else {
        if output == Output::Json {
            return Err(usage(
                "--output json is about what is said of a --file; for orders as JSON: --format jsonl",
            ));
        }
        return to_stdout(args, operator).await;
    };
    let overwrites = may_write(path, args.consent)?;
    let mut signals = Signals::install()?;
    let written = tokio::select! {
        written = to_file(args, path, overwrites, operator) => written?,
        // The temporary file went with the work.
        signal = signals.next() => bail!("{}: {} was not written", signal.as_str(), path.display()),
    };
    output.show(&json!({ "file": path, "orders": written }), || {
        format!("{} written to {}", count(written, "order"), path.display())
    })
}

async fn to_stdout(args: &Args, operator: &Operator) -> anyhow::Result<()> {
    let export = begin(args, operator).await?;
    let progress = if io::stdout().is_terminal() { ProgressBar::hidden() } else { bar(&export) };
    match write(export, args.format, io::stdout().lock(), &progress).await {
        // Whoever read it, such as `head`, has seen enough.
        Err(error) if is_broken_pipe(&error) => Ok(()),
        written => written.map(drop).context("the export is not complete"),
    }
}

/// Written beside the file, and moved to its place when it is complete.
async fn to_file(args: &Args, path: &Path, overwrites: bool, operator: &Operator) -> anyhow::Result<u64> {
    let about = || format!("{} cannot be written", path.display());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let mut file = tempfile::Builder::new()
        .prefix(&format!(".{name}."))
        .suffix(".partial")
        // As `>` makes one, less what the umask takes.
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder_of(path))
        .with_context(about)?;
    let export = begin(args, operator).await?;
    let progress = bar(&export);
    let written = write(export, args.format, &mut file, &progress).await?;
    progress.finish_and_clear();
    file.as_file().sync_all().with_context(about)?;
    persist(file, path, overwrites).with_context(about)?;
    Ok(written)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn persist(file: NamedTempFile, path: &Path, overwrites: bool) -> io::Result<()> {
    if overwrites {
        file.persist(path)?;
    } else {
        // Somebody else may have made it meanwhile.
        file.persist_noclobber(path)?;
    }
    Ok(())
}

/// Whether a file that is there is to be replaced. A device or a pipe is never: moving a file there would remove it.
fn may_write(path: &Path, consent: Consent) -> anyhow::Result<bool> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = folder_of(path);
            // Else the failure would name the temporary file.
            if !folder.is_dir() {
                let (path, folder) = (path.display(), folder.display());
                return Err(usage(format!("{path} cannot be written: the directory {folder} is not there")));
            }
            return Ok(false);
        }
        Err(error) => return Err(usage(format!("{}: {error}", path.display()))),
    };
    if !found.is_file() {
        let path = path.display();
        return Err(usage(format!("{path} is no regular file; without --file the orders go to stdout")));
    }
    let what_happens = format!("{} is there already, {}.", path.display(), count(found.len(), "byte"));
    consent.ask("the file is there already", &what_happens, "Replace it?")?;
    Ok(true)
}

async fn begin(args: &Args, operator: &Operator) -> anyhow::Result<OrderExport> {
    // As many as there are.
    Ok(operator.export_orders(args.which.filter(operator, u32::MAX).await?).await?)
}

fn bar(export: &OrderExport) -> ProgressBar {
    let bar = output::progress(0);
    bar.set_length(export.total());
    bar.set_message("orders");
    bar
}

async fn write(
    mut export: OrderExport,
    format: Format,
    mut sink: impl Write,
    progress: &ProgressBar,
) -> anyhow::Result<u64> {
    let mut written = 0;
    let mut page = Vec::new();
    if matches!(format, Format::Csv) {
        csv_page(&mut page, |csv| csv.write_record(COLUMNS))?;
    }
    loop {
        let orders = export.next_page().await?;
        for order in &orders {
            match format {
                Format::Csv => csv_page(&mut page, |csv| write_csv(csv, order))?,
                Format::Jsonl => {
                    serde_json::to_writer(&mut page, &record_as_json(order))?;
                    page.push(b'\n');
                }
            }
        }
        sink.write_all(&page)?;
        page.clear();
        if orders.is_empty() {
            sink.flush()?;
            return Ok(written);
        }
        written += orders.len() as u64;
        progress.set_position(written);
    }
}

fn csv_page(
    page: &mut Vec<u8>,
    write: impl FnOnce(&mut csv::Writer<&mut Vec<u8>>) -> csv::Result<()>,
) -> anyhow::Result<()> {
    let mut csv = csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(page);
    write(&mut csv)?;
    Ok(csv.flush()?)
}

/// A line for each item; one without an item for an order that the database refused whole.
fn write_csv(csv: &mut csv::Writer<&mut Vec<u8>>, order: &OrderRecord) -> csv::Result<()> {
    let text = |value: Option<String>| value.map(harmless).unwrap_or_default();
    let columns = [
        order.id.to_string(),
        order.sale.to_string(),
        text(Some(order.user.to_string())),
        text(order.key.as_ref().map(ToString::to_string)),
        order.state.to_string(),
        order.failure.map(|reason| reason.to_string()).unwrap_or_default(),
        order.duplicate_of.map(|id| id.to_string()).unwrap_or_default(),
        order.total.to_string(),
        order.total.currency.to_string(),
        order.created_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        order.recorded_at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
    ];
    if order.lines.is_empty() {
        return csv.write_record(columns.iter().map(String::as_str).chain([""; 5]));
    }
    for line in &order.lines {
        let item = [
            line.product.to_string(),
            text(Some(line.product_name.clone())),
            line.quantity.to_string(),
            line.unit_price.to_string(),
            line.line_total.to_string(),
        ];
        csv.write_record(columns.iter().chain(&item))?;
    }
    Ok(())
}

/// Buyers choose their names and keys, and a spreadsheet computes what looks like a formula. One apostrophe in front
/// makes text of it; what begins with one gets one, too, so that taking one away always gives back what it was.
fn harmless(text: String) -> String {
    if text.starts_with(['=', '+', '-', '@', '\'', '\t', '\r']) { format!("'{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_a_formula_and_each_can_be_read_back() {
        for text in ["=1+1", "+4912345", "-1", "@SUM(1)", "'quoted", "\t=1", "plain", "", "a=b", "user@host"]
        {
            let cell = harmless(text.to_owned());
            assert!(!cell.starts_with(['=', '+', '-', '@', '\t']), "{cell}");
            assert_eq!(cell.strip_prefix('\'').unwrap_or(&cell), text);
        }
    }
}
