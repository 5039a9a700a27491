//! Chance that can be repeated: the same seed draws the same numbers, on every machine and in every version.

use std::time::Duration;

/// A generator of random numbers (`SplitMix64`).
#[derive(Debug, Clone)]
pub(crate) struct Dice(u64);

impl Dice {
    /// Dice for one purpose: other purposes of the same seed draw other numbers.
    pub(crate) fn new(seed: u64, purpose: &str) -> Self {
        // FNV-1a, because the standard library's hasher may change.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        Self(purpose.bytes().fold(0xcbf2_9ce4_8422_2325 ^ seed, mix))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 … `end` − 1.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        // Nothing here depends on the slight bias of a remainder.
        usize::try_from(self.next() % end.max(1) as u64).expect("it is below a usize")
    }

    pub(crate) fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// True so often in a hundred times.
    pub(crate) fn percent(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    /// A time between these two, in milliseconds.
    pub(crate) fn ms(&mut self, from: usize, to: usize) -> Duration {
        Duration::from_millis((from + self.below(to - from + 1)) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_purpose_draw_the_same_numbers_again() {
        let draw = |seed, purpose| {
            let mut dice = Dice::new(seed, purpose);
            (0..20).map(|_| dice.below(1_000)).collect::<Vec<_>>()
        };
        assert_eq!(draw(7, "herd"), draw(7, "herd"));
        assert_ne!(draw(7, "herd"), draw(8, "herd"));
        assert_ne!(draw(7, "herd"), draw(7, "fault"));
        // Written down: a seed that found something must find it again after an upgrade.
        assert_eq!(Dice::new(1, "x").below(1_000_000), 620_347);
    }

    #[test]
    fn all_that_can_be_drawn_is_drawn() {
        let mut dice = Dice::new(1, "all");
        let mut seen = [false; 6];
        (0..200).for_each(|_| seen[dice.below(6)] = true);
        assert_eq!(seen, [true; 6]);
        assert!((0..200).all(|_| (3..=5).contains(&dice.ms(3, 5).as_millis())));
        assert!((0..200).all(|_| !dice.percent(0) && dice.percent(100)));
    }
}
