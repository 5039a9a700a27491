//! Values in a path.

use std::str::FromStr;

use axum::extract::{Path, rejection::PathRejection};
use flashsale_core::Invalid;

use crate::problem::Problem;

/// The one value of a path, or a 400 that names it.
pub(crate) fn segment<T>(path: Result<Path<String>, PathRejection>, field: &str) -> Result<T, Problem>
where
    T: FromStr<Err = Invalid>,
{
    let Path(text) = path.map_err(|_| Problem::invalid(field, "must be UTF-8"))?;
    text.parse().map_err(|invalid: Invalid| invalid.in_field(field).into())
}
