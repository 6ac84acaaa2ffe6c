//! `GET /metrics` over plain HTTP, for processes that have no API of their own. Whoever reaches the address can read them:
//! names of groups and servers, no contents of anything.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::metrics::{MEDIA_TYPE, Metrics};

/// Pause before an address that could not be had is tried again.
const RETRY: Duration = Duration::from_secs(5);
/// Somebody who takes longer to ask is not waited for.
const SLOW: Duration = Duration::from_secs(5);

/// Listens at the address and answers for as long as the process runs. An address that can't be had is tried again and again:
/// a process that can't be measured still has its work to do.
pub async fn serve_at(address: SocketAddr, metrics: Metrics) {
    let mut told = false;
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => return serve(listener, metrics).await,
            Err(error) if !std::mem::replace(&mut told, true) => {
                tracing::error!(%address, %error, "metrics can't be answered there; trying again");
            }
            Err(_) => {}
        }
        tokio::time::sleep(RETRY).await;
    }
}

/// Answers for as long as the process runs, one connection after the other: scrapers come seconds apart, and somebody who
/// floods the port costs one connection's memory.
async fn serve(listener: TcpListener, metrics: Metrics) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Out of file descriptors, or the like: not again at once.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let answer = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answer(&request, &metrics))));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(SLOW)
            .keep_alive(false)
            .serve_connection(TokioIo::new(stream), answer);
        // Who does not read gets nothing.
        let _ = tokio::time::timeout(SLOW, connection).await;
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, media, text) = match request.uri().path() {
        "/metrics" if read => (StatusCode::OK, MEDIA_TYPE, metrics.text()),
        "/metrics" => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET\n".to_owned()),
        _ => (StatusCode::NOT_FOUND, "text/plain", "there is nothing but /metrics\n".to_owned()),
    };
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(media));
    response
}
