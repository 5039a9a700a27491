//! A counterexample that a person can read: each step, and what it changed.

use std::fmt::{self, Debug, Display, Formatter, Write as _};

use crate::state::{Answer, Lane, Waiting};
use crate::{Action, State};

/// The parts of a state, one line each.
fn lines(state: &State) -> Vec<(&'static str, String)> {
    let sale = &state.redis.sale;
    let mode = match (sale.present, sale.loading) {
        (false, _) => "empty",
        _ if sale.damaged => "damaged",
        (true, true) => "loading",
        (true, false) => "open",
    };
    let load =
        if sale.loading { format!(" token {:?} chunk {}", sale.token, sale.chunk) } else { String::new() };
    let stream = sale.stream.iter().flatten().map(|(e, delivered)| {
        let mark = if *delivered { "delivered" } else { "new" };
        format!("#{} order {} seq {} ({mark})", e.id, e.order, e.seq)
    });
    let ledger = &state.ledger;
    let redis = format!(
        "{mode} epoch {}{load} seq {} run_id {} on server {} · stock {} changes {} taken {:?} quota {:?} keys {} states {}",
        sale.epoch,
        sale.seq,
        sale.run_id,
        state.redis.server,
        sale.stock,
        sale.changes,
        sale.taken,
        sale.quota,
        list(&sale.keys),
        list(&sale.states)
    );
    vec![
        ("redis", redis),
        ("stream", stream.collect::<Vec<_>>().join(", ")),
        ("old", format!("{:?}", state.old)),
        ("copy", format!("{:?}", state.copy)),
        (
            "ledger",
            format!(
                "epoch {} loaded {} recorded_seq {}",
                ledger.epoch, ledger.loaded_epoch, ledger.recorded_seq
            ),
        ),
        (
            "changes",
            format!(
                "stock {} wanted {} settled {} {}",
                ledger.stock,
                ledger.wanted,
                ledger.settled,
                list(&ledger.changes)
            ),
        ),
        ("rows", format!("{} parked {}", list(&ledger.rows), list(&ledger.parked))),
        ("lanes", state.lanes.map(lane).join(" | ")),
        ("seen", format!("{:?}", state.seen)),
        ("drainers", format!("{:?}", state.drainers)),
        ("recoverers", format!("{:?}", state.recoverers)),
        ("late", format!("{:?}", state.late)),
        ("reader", format!("{:?}", state.reader)),
        ("operator", format!("{:?}", state.operator)),
        ("carriers", format!("{:?}", state.carriers)),
        (
            "clients",
            format!(
                "given {:?} refused {:#b} shown {}",
                state.memory.given,
                state.memory.refused,
                list(&state.memory.shown)
            ),
        ),
        (
            "truth",
            format!(
                "admitted {:#b} lost {:#b} tainted {} breach {:?}",
                state.memory.admitted, state.memory.lost, state.memory.tainted, state.memory.breach
            ),
        ),
    ]
}

fn list<T: Debug>(items: &[Option<T>]) -> String {
    let words: Vec<String> =
        items.iter().map(|x| x.as_ref().map_or("–".into(), |x| format!("{x:?}"))).collect();
    format!("[{}]", words.join(", "))
}

fn lane(lane: Lane) -> String {
    let waiting = match lane.waiting {
        Waiting::NotSent => "not sent".to_owned(),
        Waiting::For(sending) => format!("waits for sending {sending}"),
        Waiting::Answered(Answer::Replayed(order)) => format!("told: replayed order {order}"),
        Waiting::Answered(answer) => format!("told: {answer:?}"),
    };
    let flying = (0u8..).zip(lane.in_flight).filter_map(|(n, sent)| {
        sent.map(|s| format!(", sending {n} in flight (epoch {}, seen {})", s.epoch, s.seen))
    });
    flying.fold(waiting, |all, one| all + &one)
}

impl Display for State {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        lines(self).iter().try_for_each(|(name, line)| writeln!(f, "    {name:<11}{line}"))
    }
}

/// The steps of a path, each with the lines that it changed.
pub(crate) fn explain(steps: &[(State, Option<Action>)]) -> String {
    let mut text = String::new();
    let Some((first, _)) = steps.first() else { return text };
    let _ = write!(text, "  at first\n{first}");
    for (step, pair) in steps.windows(2).enumerate() {
        let [(before, Some(action)), (after, _)] = pair else { continue };
        let _ = writeln!(text, "  {:>2}. {action:?}", step + 1);
        for ((name, old), (_, new)) in lines(before).iter().zip(&lines(after)) {
            if old != new {
                let _ = writeln!(text, "    {name:<11}{new}");
            }
        }
    }
    text
}
