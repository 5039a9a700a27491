//! What each buyer is up to, by its number: the same herd behaves the same way every time.

use flashsale_core::ProductId;

/// Units of one product that one user may buy.
pub(crate) const LIMIT: u32 = 2;

/// How a buyer goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Role {
    /// Orders one unit.
    Plain,
    /// Orders one unit of each product in one order; then one alone if that cannot be had.
    TwoItems,
    /// Sends the same order three times.
    Repeats,
    /// Sends another order under the key of the first.
    OtherBody,
    /// Takes all it may, and asks for one more.
    Greedy,
    /// Asks for more than anybody may have; then for one.
    AboveLimit,
    /// Sends its order and closes the connection without waiting for the answer.
    HangsUp {
        /// Sends it again later; else it never learns what became of it.
        asks_again: bool,
    },
    /// Closes the connection in the middle of sending its order; then sends it properly.
    BreaksOff,
    /// Tries before the sale has opened, and again when it has.
    EarlyBird,
    /// Repeats its order until the rate limit stops it.
    Impatient,
}

impl Role {
    /// Whether such a buyer surely leaves with a unit of its product, or has been told that none is left.
    fn asks_until_answered(self) -> bool {
        !matches!(self, Self::HangsUp { asks_again: false } | Self::Impatient)
    }
}

/// The part that one buyer plays.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part {
    pub(crate) role: Role,
    /// Every fourth one is after the second product.
    pub(crate) wants_second: bool,
    /// Looks at what is on sale and puts its product into the cart before it orders.
    pub(crate) browses: bool,
}

impl Part {
    pub(crate) fn of(buyer: u32) -> Self {
        let group = buyer / 4;
        let role = match group % 16 {
            _ if buyer % 1_000 == 17 => Role::Impatient,
            1 => Role::TwoItems,
            2 => Role::Repeats,
            3 => Role::OtherBody,
            5 => Role::Greedy,
            6 => Role::AboveLimit,
            8 => Role::HangsUp { asks_again: (group / 16).is_multiple_of(2) },
            10 => Role::BreaksOff,
            12 => Role::EarlyBird,
            _ => Role::Plain,
        };
        Self { role, wants_second: buyer % 4 == 3, browses: group.is_multiple_of(4) }
    }
}

/// Units of the second product, out of all that are on sale: a quarter, so none if there are few.
pub(crate) fn second_stock(stock: u32) -> u32 {
    stock / 4
}

/// The most units that so many users are certain to buy. Each of them who asks until it is answered ends
/// with a unit or finds none left, so with no more units than such users the sale sells out.
pub(crate) fn most_stock(users: u32) -> u32 {
    let mut sure = [0, 0];
    for part in (0..users).map(Part::of).filter(|part| part.role.asks_until_answered()) {
        sure[usize::from(part.wants_second)] += 1;
    }
    let certain = |stock: u32| stock - second_stock(stock) <= sure[0] && second_stock(stock) <= sure[1];
    (1..=users).rev().find(|stock| certain(*stock)).unwrap_or(0)
}

/// The products that the herd is after.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wares {
    pub(crate) first: ProductId,
    /// None if there is too little on sale for two.
    pub(crate) second: Option<ProductId>,
}

impl Wares {
    /// The product that this buyer is after.
    pub(crate) fn wanted(&self, part: Part) -> ProductId {
        if part.wants_second { self.second.unwrap_or(self.first) } else { self.first }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_small_herd_has_every_role() {
        let roles: HashSet<Role> = (0..128).map(|buyer| Part::of(buyer).role).collect();
        assert_eq!(roles.len(), 11);
    }

    #[test]
    fn the_default_stock_is_certain_to_be_sold() {
        for users in (1..2_000).chain([10_000, 100_000]) {
            assert!((users / 200).max(1) <= most_stock(users), "{users} users");
        }
    }

    #[test]
    fn buyers_that_never_learn_their_outcome_are_not_counted_on() {
        let silent = (0..1_000).filter(|buyer| !Part::of(*buyer).role.asks_until_answered()).count();
        assert!(silent > 0);
        assert!(most_stock(1_000) as usize <= 1_000 - silent);
    }
}
