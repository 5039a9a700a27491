//! The door: how many connections there may be at once.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Extension, Router, extract::ConnectInfo, middleware::AddExtension};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, PollSemaphore, WaitForCancellationFutureOwned};
use tower::{Layer, Service};

/// A connection's place. Whoever holds the last copy of it is the connection.
type Place = Option<Arc<OwnedSemaphorePermit>>;

/// Lets connections in: each takes a place and has it until it is closed. While there is none, nothing is
/// accepted, and who comes waits in the listener's backlog: in a herd that is better than being turned away.
pub(crate) struct Door {
    app: Router,
    places: PollSemaphore,
    next: Option<OwnedSemaphorePermit>,
    shutdown: CancellationToken,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Door {
    pub(crate) fn new(app: Router, connections: usize, shutdown: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(connections.min(Semaphore::MAX_PERMITS)));
        Self::of(app, PollSemaphore::new(places), shutdown)
    }

    fn of(app: Router, places: PollSemaphore, shutdown: CancellationToken) -> Self {
        let ended = Box::pin(shutdown.clone().cancelled_owned());
        Self { app, places, next: None, shutdown, ended }
    }
}

/// Another listener's door to the same places.
impl Clone for Door {
    fn clone(&self) -> Self {
        Self::of(self.app.clone(), self.places.clone(), self.shutdown.clone())
    }
}

/// Makes the service of one connection. The handlers learn the other end's address from it.
impl Service<SocketAddr> for Door {
    type Response = AddExtension<AddExtension<Router, ConnectInfo<SocketAddr>>, Place>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // One that waits here would keep the server from seeing that it is to end.
        if self.next.is_some() || self.ended.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ok(()));
        }
        self.places.poll_acquire(context).map(|place| {
            self.next = place;
            Ok(())
        })
    }

    fn call(&mut self, peer: SocketAddr) -> Self::Future {
        let place: Place = self.next.take().map(Arc::new);
        let app = Extension(ConnectInfo(peer)).layer(self.app.clone());
        ready(Ok(Extension(place).layer(app)))
    }
}
