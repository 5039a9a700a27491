//! Every world is searched to its end, and every clause is shown to be needed (or said not to be).

mod clauses;
mod hold;
