//! An HTTP server for short answers.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use super::status::Shared;

/// An answer.
pub(super) type Answer = Response<Full<Bytes>>;

/// How long a client may take to ask.
const ASKING: Duration = Duration::from_secs(10);

/// How long to wait before trying again to listen where another process does: kube-proxy on its way out, an older agent.
const AGAIN: Duration = Duration::from_millis(250);

/// Connections at once; more wait in the kernel's queue.
const CONNECTIONS: usize = 128;

/// Listens, again and again until the address is free, and answers for ever.
pub(super) async fn serve<F>(at: SocketAddr, shared: Arc<Shared>, answer: F)
where
    F: Fn(&Request<Incoming>) -> Answer + Clone + Send + 'static,
{
    let listener = loop {
        match TcpListener::bind(at).await {
            Ok(listener) => break listener,
            Err(error) => {
                shared.listening(at, Some(error.to_string()));
                tokio::time::sleep(AGAIN).await;
            }
        }
    };
    shared.listening(at, None);
    tracing::info!("listening on {at}");
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(permit) = Arc::clone(&room).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let answer = answer.clone();
                tokio::spawn(async move {
                    let _permit = permit;
                    connection(stream, answer).await;
                });
            }
            // Out of descriptors, most likely; the queue keeps.
            Err(_) => tokio::time::sleep(AGAIN).await,
        }
    }
}

async fn connection<F>(stream: TcpStream, answer: F)
where
    F: Fn(&Request<Incoming>) -> Answer + Send + 'static,
{
    let service = service_fn(move |request| {
        let answer = answer(&request);
        async move { Ok::<_, Infallible>(answer) }
    });
    // A client that breaks off is its own affair.
    let _ = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(ASKING)
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// An answer of one kind of content, not to be taken for another.
pub(super) fn answer(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, header::HeaderValue::from_static("nosniff"));
    answer
}

/// There is nothing under this path.
pub(super) fn not_found() -> Answer {
    answer(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "404 page not found\n")
}
