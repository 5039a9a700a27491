//! Bodies that nobody read.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use axum::{
    Error,
    body::{Body, Bytes, HttpBody},
    extract::Request,
    http::{HeaderValue, header::CONNECTION},
    response::Response,
};
use http_body::{Frame, SizeHint};

/// Whether a request's body was left unread. `None` for a request without one.
pub(crate) struct Unread(Option<Arc<AtomicBool>>);

/// Keeps an eye on a request's body.
pub(crate) fn watch(request: Request) -> (Request, Unread) {
    if request.body().is_end_stream() {
        return (request, Unread(None));
    }
    let unread = Arc::new(AtomicBool::new(false));
    let request = request.map(|body| Body::new(Watched { body, ended: false, unread: Arc::clone(&unread) }));
    (request, Unread(Some(unread)))
}

impl Unread {
    /// Says that the connection ends with this answer where the body was left unread, for then it does. A proxy
    /// that is not told sends somebody else's request on it, in vain.
    pub(crate) fn announce(&self, response: &mut Response) {
        if self.0.as_ref().is_some_and(|unread| unread.load(Ordering::Acquire)) {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// A body that tells when it is dropped before its end.
struct Watched {
    body: Body,
    ended: bool,
    unread: Arc<AtomicBool>,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let frame = Pin::new(&mut self.body).poll_frame(context);
        self.ended |= matches!(frame, Poll::Ready(None));
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        if !self.ended && !self.body.is_end_stream() {
            self.unread.store(true, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::passage;
    use axum::{Router, http::Method, routing::post};
    use tower::ServiceExt;

    #[tokio::test]
    async fn an_answer_without_reading_ends_the_connection() {
        let app = Router::new()
            .route("/reads", post(async |body: Bytes| body.len().to_string()))
            .route("/does-not", post(async || "no"));
        let app = passage::to(app, Arc::default());
        let closes = async |path: &str, body: Body| {
            let request = Request::builder().method(Method::POST).uri(path).body(body).unwrap();
            app.clone().oneshot(request).await.unwrap().headers().contains_key(CONNECTION)
        };
        assert!(!closes("/reads", Body::from("body")).await);
        assert!(closes("/does-not", Body::from("body")).await);
        assert!(!closes("/does-not", Body::empty()).await);
    }
}
