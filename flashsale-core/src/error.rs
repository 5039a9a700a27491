//! One opaque error with predicates: what a caller can do about it matters more than where it came from.

use std::{fmt, sync::Arc};

use crate::ids::{Invalid, SaleId};

/// The core's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the engine could not answer. Refusals such as "sold out" are answers, not errors.
#[derive(Clone, thiserror::Error)]
#[error("{kind}")]
pub struct Error {
    kind: Kind,
    #[source]
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

#[derive(Debug, Clone)]
enum Kind {
    /// A store could not be asked, or said that it cannot serve now. Nothing was changed.
    Unavailable(String),
    /// The call may or may not have taken effect.
    OutcomeUnknown(String),
    /// The sale's state in Redis is not known to be right.
    Fenced { sale: SaleId, why: String },
    /// The caller's value is wrong.
    Invalid(Invalid),
    /// What was asked for is not there.
    NotFound(String),
    /// What was asked for cannot be done as things stand; the text says what to do.
    Refused(String),
    /// Something that must not happen.
    Internal(String),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unavailable(what) => write!(f, "unavailable: {what}"),
            Self::OutcomeUnknown(what) => {
                write!(f, "the outcome is not known: {what}; repeat with the same idempotency key")
            }
            Self::Fenced { sale, why } => {
                write!(
                    f,
                    "sale {sale} is fenced ({why}): it can be used when a keeper has loaded it, which a running \
                     flashsale-server does by itself, and `flashsale recover {sale}` by hand"
                )
            }
            Self::Invalid(invalid) => invalid.fmt(f),
            Self::NotFound(what) => write!(f, "{what} not found"),
            Self::Refused(why) | Self::Internal(why) => f.write_str(why),
        }
    }
}

/// What `main` prints of an error that it returns: first of all what to do about it.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            Some(source) => write!(f, "{} (because of {source:?})", self.kind),
            None => self.kind.fmt(f),
        }
    }
}

impl Error {
    fn new(kind: Kind) -> Self {
        Self { kind, source: None }
    }

    fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    pub(crate) fn unavailable(what: impl Into<String>) -> Self {
        Self::new(Kind::Unavailable(what.into()))
    }

    pub(crate) fn unknown(what: impl Into<String>) -> Self {
        Self::new(Kind::OutcomeUnknown(what.into()))
    }

    pub(crate) fn fenced(sale: SaleId, why: impl Into<String>) -> Self {
        Self::new(Kind::Fenced { sale, why: why.into() })
    }

    pub(crate) fn not_found(what: impl Into<String>) -> Self {
        Self::new(Kind::NotFound(what.into()))
    }

    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::new(Kind::Refused(why.into()))
    }

    pub(crate) fn internal(what: impl Into<String>) -> Self {
        Self::new(Kind::Internal(what.into()))
    }

    /// The same call may succeed later: a store is away, or the sale is fenced. Nothing was changed, except where
    /// the call says otherwise of itself.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.kind, Kind::Unavailable(_) | Kind::Fenced { .. })
    }

    /// The call may or may not have taken effect (P10). Repeating it with the same idempotency key is safe
    /// and tells.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        matches!(self.kind, Kind::OutcomeUnknown(_))
    }

    /// The sale sells nothing until its state in Redis is known to be right.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        matches!(self.kind, Kind::Fenced { .. })
    }

    /// What was asked for does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self.kind, Kind::NotFound(_))
    }

    /// The caller's value that is wrong, with its field.
    #[must_use]
    pub fn invalid(&self) -> Option<&Invalid> {
        match &self.kind {
            Kind::Invalid(invalid) => Some(invalid),
            _ => None,
        }
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::new(Kind::Invalid(invalid))
    }
}

/// A Redis call that failed. It counts as Redis being away, also where Redis has answered with an error.
/// Callers whose call may have taken effect turn it into an unknown outcome themselves.
#[doc(hidden)]
impl From<redis::RedisError> for Error {
    fn from(error: redis::RedisError) -> Self {
        let what = match error.code() {
            Some(code) => format!("Redis answered {code} {}", error.detail().unwrap_or_default()),
            None => format!("Redis: {error}"),
        };
        Self::unavailable(what.trim_end()).because(error)
    }
}

/// A read that failed, or a write that is repeated until it is answered.
#[doc(hidden)]
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        let kind = match (&error, code.as_deref()) {
            (sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_), _) => {
                Kind::Internal(format!("PostgreSQL: {error}"))
            }
            // Trying again does not help against these.
            (_, Some("42P01" | "42703")) => Kind::Refused(format!(
                "the tables of the record are not there or not current ({error}); run `flashsale migrate`"
            )),
            (_, Some(code)) if code.starts_with("28") || code == "3D000" => {
                Kind::Refused(format!("PostgreSQL does not let us in: {error}; look at the database URL"))
            }
            (sqlx::Error::Migrate(_), None) => Kind::Refused(format!("the migrations do not fit: {error}")),
            _ => Kind::Unavailable(format!("PostgreSQL: {error}")),
        };
        Self::new(kind).because(error)
    }
}
