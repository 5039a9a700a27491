//! The kinds of problem.

use axum::http::StatusCode;

/// One list, so that no part of it can be forgotten.
macro_rules! codes {
    ($($name:ident: $word:literal, $status:ident, $title:literal;)*) => {
        /// The kinds of problem. Each has one word that clients can rely on, one status and one title.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum Code {
            $($name,)*
        }

        impl Code {
            /// All of them, in the order of their statuses.
            pub(crate) const ALL: &[Self] = &[$(Self::$name,)*];

            /// The word that clients can rely on.
            pub(crate) fn word(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }

            /// The name of the kind, as the documents have it.
            pub(crate) fn urn(self) -> &'static str {
                match self {
                    $(Self::$name => concat!("urn:flashsale:problem:", $word),)*
                }
            }

            /// The status of the response.
            pub(crate) fn status(self) -> StatusCode {
                match self {
                    $(Self::$name => StatusCode::$status,)*
                }
            }

            /// What it is, for people.
            pub(crate) fn title(self) -> &'static str {
                match self {
                    $(Self::$name => $title,)*
                }
            }
        }
    };
}

codes! {
    InvalidRequest: "invalid-request", BAD_REQUEST, "Invalid request";
    Unauthorized: "unauthorized", UNAUTHORIZED, "Not known who asks";
    Forbidden: "forbidden", FORBIDDEN, "Not yours";
    NotFound: "not-found", NOT_FOUND, "Not found";
    UnknownProduct: "unknown-product", NOT_FOUND, "Unknown product";
    MethodNotAllowed: "method-not-allowed", METHOD_NOT_ALLOWED, "Method not allowed";
    RequestTimeout: "request-timeout", REQUEST_TIMEOUT, "Request too slow";
    SoldOut: "sold-out", CONFLICT, "Sold out";
    OverQuota: "over-quota", CONFLICT, "Above the limit per user";
    SaleNotOpen: "sale-not-open", CONFLICT, "The sale is not open";
    SalePaused: "sale-paused", CONFLICT, "The sale is paused";
    SaleEnded: "sale-ended", CONFLICT, "The sale is over";
    CartFull: "cart-full", CONFLICT, "The cart is full";
    ContentTooLarge: "content-too-large", PAYLOAD_TOO_LARGE, "Body too large";
    UnsupportedMediaType: "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "Not JSON";
    KeyReused: "idempotency-key-reused", UNPROCESSABLE_ENTITY, "Idempotency key reused";
    ItemsSpanSales: "items-span-sales", UNPROCESSABLE_ENTITY, "Items of different sales";
    RateLimited: "rate-limited", TOO_MANY_REQUESTS, "Too many requests";
    Internal: "internal", INTERNAL_SERVER_ERROR, "Internal error";
    Unavailable: "unavailable", SERVICE_UNAVAILABLE, "Unavailable";
    Fenced: "fenced", SERVICE_UNAVAILABLE, "The sale is being recovered";
    OutcomeUnknown: "outcome-unknown", GATEWAY_TIMEOUT, "Outcome unknown";
}
