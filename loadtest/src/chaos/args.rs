//! The command line of the fault machine.

use std::time::{SystemTime, UNIX_EPOCH};

use super::fault::{self, Fault};

/// Break one thing after the other while a herd is buying, and judge the stores by what the buyers saw
///
/// Starts private stores, two servers and two workers, breaks and mends what a fault names at a random moment,
/// waits until all is well again, and compares both stores with the history that each buyer has recorded.
/// Nothing is oversold, no order that was accepted is lost beyond what the fault may cost, and no key has two.
/// A round is mostly waiting: several are played side by side, each on stores of its own.
///
/// Exits with 0 if every fault was survived, with 1 if not.
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = "Example:\n  flashsale-loadtest chaos --fault flushall,worker-killed --rounds 3")]
pub struct ChaosArgs {
    /// Where chance begins: the same seed draws the same moments and victims [default: another one each time]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Which faults, by name; `smoke` for a short one of each family, `controls` for the damage that has to be
    /// caught, `all` for everything
    #[arg(long, value_name = "NAME", value_delimiter = ',', default_value = "all")]
    fault: Vec<String>,
    /// How often each; every round has the seed after the one before
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// How many buy at once
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    buyers: u16,
    /// How many rounds are played side by side
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=64))]
    jobs: u16,
    /// List the faults, and end
    #[arg(long)]
    pub(super) list: bool,
}

impl ChaosArgs {
    pub(super) fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(|| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            // Short enough to be typed.
            u64::from(now.subsec_micros())
        })
    }

    pub(super) fn rounds(&self) -> u32 {
        self.rounds
    }

    pub(super) fn buyers(&self) -> usize {
        usize::from(self.buyers)
    }

    pub(super) fn jobs(&self) -> usize {
        usize::from(self.jobs)
    }

    pub(super) fn faults(&self) -> Result<Vec<&'static Fault>, String> {
        fault::named(&self.fault)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        self.faults().map(drop)
    }
}
