//! Round by round, one contender after the other: what disturbs the machine for a while then disturbs both.

use anyhow::Result;
use serde::Serialize;

/// What several rounds came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figures {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) rounds: usize,
}

impl Figures {
    /// Of at least one value, none of which is NaN.
    pub(crate) fn of(values: &[f64]) -> Self {
        assert!(!values.is_empty(), "no rounds, no figures");
        let mut sorted = values.to_vec();
        sorted.sort_by(|a, b| a.partial_cmp(b).expect("a figure is a number"));
        let middle = sorted.len() / 2;
        let median = match sorted.len() % 2 {
            0 => f64::midpoint(sorted[middle - 1], sorted[middle]),
            _ => sorted[middle],
        };
        Self { median, min: sorted[0], max: sorted[sorted.len() - 1], rounds: sorted.len() }
    }
}

/// How often everybody has a turn.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rounds {
    /// Turns that do not count: in them files grow, caches fill and the processor finds its clock.
    pub(crate) warm_up: usize,
    pub(crate) counted: usize,
}

/// What two contenders reached, round by round.
#[derive(Debug)]
pub(crate) struct Duel {
    pub(crate) a: Vec<f64>,
    pub(crate) b: Vec<f64>,
}

impl Duel {
    /// How often the second goes into the first, each round for itself: both halves of a round saw the same
    /// machine.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        self.a.iter().zip(&self.b).map(|(a, b)| a / b).collect()
    }
}

/// Plays all rounds.
pub(crate) async fn play(
    name: &str,
    rounds: Rounds,
    mut round: impl AsyncFnMut() -> Result<(f64, f64)>,
) -> Result<Duel> {
    let mut duel = Duel { a: Vec::new(), b: Vec::new() };
    for _ in 0..rounds.warm_up {
        let (a, b) = round().await?;
        eprintln!("{name}  warm-up  {a:.0} : {b:.0}");
    }
    for number in 1..=rounds.counted {
        let (a, b) = round().await?;
        eprintln!("{name}  round {number} of {}  {a:.0} : {b:.0} = {:.3}", rounds.counted, a / b);
        duel.a.push(a);
        duel.b.push(b);
    }
    Ok(duel)
}

/// The same for contenders that have nothing to do with each other.
pub(crate) async fn alternate(
    name: &str,
    rounds: Rounds,
    mut a: impl AsyncFnMut() -> Result<f64>,
    mut b: impl AsyncFnMut() -> Result<f64>,
) -> Result<Duel> {
    play(name, rounds, async || Ok((a().await?, b().await?))).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::float_cmp, reason = "these are exact")]
    fn the_median_does_not_depend_on_the_order() {
        let figures = Figures::of(&[3.0, 1.0, 2.0]);
        assert_eq!((figures.median, figures.min, figures.max, figures.rounds), (2.0, 1.0, 3.0, 3));
        assert_eq!(Figures::of(&[4.0, 1.0, 3.0, 2.0]).median, 2.5);
        assert_eq!(Figures::of(&[7.0]), Figures { median: 7.0, min: 7.0, max: 7.0, rounds: 1 });
    }

    #[tokio::test]
    async fn rounds_alternate_and_a_warm_up_does_not_count() {
        let order = std::cell::RefCell::new(String::new());
        let mut next = 0.0;
        let a = async || {
            order.borrow_mut().push('a');
            next += 10.0;
            Ok(next)
        };
        let b = async || {
            order.borrow_mut().push('b');
            Ok(2.0)
        };
        let duel = alternate("test", Rounds { warm_up: 1, counted: 2 }, a, b).await.unwrap();
        assert_eq!(*order.borrow(), "ababab");
        assert_eq!((&duel.a[..], &duel.b[..]), (&[20.0, 30.0][..], &[2.0, 2.0][..]));
        assert_eq!(duel.ratios(), [10.0, 15.0]);
    }

    #[tokio::test]
    async fn a_round_that_fails_ends_the_run() {
        let mut rounds = 0;
        let round = async || {
            rounds += 1;
            anyhow::ensure!(rounds < 2, "a wrong answer");
            Ok((1.0, 1.0))
        };
        assert!(play("test", Rounds { warm_up: 0, counted: 5 }, round).await.is_err());
        assert_eq!(rounds, 2);
    }
}
