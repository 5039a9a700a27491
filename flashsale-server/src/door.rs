//! The door: how many connections there may be at once.

use std::{
    convert::Infallible,
    future::{Future, Ready, ready},
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    Router,
    extract::{ConnectInfo, Request},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::{CancellationToken, PollSemaphore, WaitForCancellationFutureOwned};
use tower::Service;

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
    type Response = Connection;
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
        let place = self.next.take().map(Arc::new);
        ready(Ok(Connection { app: self.app.clone(), peer, _place: place }))
    }
}

/// The service of one connection. Whoever holds the last copy of it is the connection, and has its place.
#[derive(Clone)]
pub(crate) struct Connection {
    app: Router,
    peer: SocketAddr,
    _place: Option<Arc<OwnedSemaphorePermit>>,
}

impl<B> Service<Request<B>> for Connection
where
    Router: Service<Request<B>>,
{
    type Response = <Router as Service<Request<B>>>::Response;
    type Error = <Router as Service<Request<B>>>::Error;
    type Future = <Router as Service<Request<B>>>::Future;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Service::<Request<B>>::poll_ready(&mut self.app, context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        request.extensions_mut().insert(ConnectInfo(self.peer));
        self.app.call(request)
    }
}
