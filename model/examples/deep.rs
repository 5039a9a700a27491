//! Searches worlds that are too large for the tests: minutes and gigabytes instead of seconds.
//!
//! `cargo run -p flashsale-model --example deep [WORLD]`; without a name, all of them.

use std::process::ExitCode;

use flashsale_model::{Bounds, Protocol, Request, Search, worlds};

const THREE: &[Request] = &[Request::plain(0, 0), Request::plain(0, 0), Request::plain(1, 1)];

const DEEP: &[(&str, Bounds)] = &[
    ("loss", Bounds { requests: THREE, ..worlds::LOSS }),
    ("give-back", Bounds { recovers: 2, ..worlds::LOSS_GIVE_BACK }),
    ("parked", Bounds { recovers: 2, ..worlds::LOSS_PARKED }),
    ("race", Bounds { drainers: 2, ..worlds::RACE }),
    ("changes", Bounds { drainers: 2, replies_lost: true, ..worlds::CHANGES }),
    ("changes-loss", Bounds { requests: worlds::CHANGES_RECOVER.requests, ..worlds::CHANGES_LOSS }),
    ("changes-losses", Bounds { losses: 2, recovers: 2, changes: &[-1], ..worlds::CHANGES_LOSS }),
    (
        "changes-race",
        Bounds { recoverers: 2, recovers: 2, late_calls: 1, changes: &[-1], ..worlds::CHANGES_RECOVER },
    ),
    ("changes-failover", Bounds { requests: worlds::CHANGES_RECOVER.requests, ..worlds::CHANGES_FAILOVER }),
    ("race-loss", Bounds { requests: worlds::RACE.requests, ..worlds::RACE_LOSS }),
];

fn main() -> ExitCode {
    let wanted = std::env::args().nth(1);
    let mut code = ExitCode::SUCCESS;
    for (name, bounds) in DEEP.iter().filter(|(name, _)| wanted.as_deref().is_none_or(|w| w == *name)) {
        let found = Search::Exhaustive.run(&Protocol::new(*bounds));
        println!("{name}: {found}");
        if !found.broken.is_empty() {
            code = ExitCode::FAILURE;
        }
    }
    code
}
