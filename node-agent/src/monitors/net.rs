//! A TCP connection, and a request over one.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use holdfast_api::v1::{HttpCheck, TcpCheck};
use holdfast_api::validation::Target;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper::header;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::plan::Authorities;
use super::{advised, late, pattern, tls};
use crate::resources::Verdict;

/// As much of a body is read.
const BODY: usize = 1024 * 1024;

pub(super) fn tcp(check: &TcpCheck, limit: Duration) -> Verdict {
    let target = match check.target() {
        Ok(target) => target,
        Err(problem) => return Verdict::unknown(format!("tcp.address {:?}: {problem}", check.address)),
    };
    let verdict = within(limit, &format!("{}: no connection", check.address), async {
        connect(&target).await.map_or_else(|verdict| verdict, |_| Verdict::running())
    });
    advised(verdict, || "look there whether a program listens (`ss -lnt`), and for a firewall in between".to_owned())
}

pub(super) fn http(check: &HttpCheck, authorities: Option<&Authorities>, limit: Duration) -> Verdict {
    let (target, path) = match check.target() {
        Ok(target) => target,
        Err(problem) => return Verdict::unknown(format!("http.url {:?}: {problem}", check.url)),
    };
    let verdict = within(limit, &format!("{}: no answer", check.url), async {
        ask(check, authorities, &target, &path).await.unwrap_or_else(|verdict| verdict)
    });
    advised(verdict, || format!("`curl -v -X {} '{}'` on this server shows all of it", check.method, check.url))
}

/// Without an answer in this time it has failed.
fn within(limit: Duration, what: &str, check: impl Future<Output = Verdict>) -> Verdict {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build() {
        Ok(runtime) => runtime,
        Err(error) => return Verdict::unknown(format!("it can't be carried out: {error}")),
    };
    let verdict = runtime.block_on(async { tokio::time::timeout(limit, check).await });
    // A name that is still being looked up is not waited for.
    runtime.shutdown_background();
    verdict.unwrap_or_else(|_| late(what, limit))
}

/// The first address of the host that answers.
async fn connect(target: &Target) -> Result<TcpStream, Verdict> {
    let Target { host, port } = target;
    let addresses = tokio::net::lookup_host((host.as_str(), *port)).await.map_err(|error| {
        Verdict::unknown(format!("{host} can't be looked up: {error}; correct the name, or give an address"))
    })?;
    let mut refused = Verdict::unknown(format!("{host} has no address; correct the name, or give an address"));
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => refused = Verdict::failed(format!("{address}: {error}")),
        }
    }
    Err(refused)
}

async fn ask(
    check: &HttpCheck,
    authorities: Option<&Authorities>,
    target: &Target,
    path: &str,
) -> Result<Verdict, Verdict> {
    let stream = connect(target).await?;
    if !check.is_tls() {
        return ask_over(stream, check, path).await;
    }
    let of_server = |problem: String| Verdict::failed(format!("{}: {problem}", check.url));
    let here = |problem: String| Verdict::unknown(format!("{}: {problem}", check.url));
    let stream = tls::client(stream, &target.host, authorities).await.map_err(|problem| match problem {
        tls::Problem::Server(problem) => of_server(problem),
        tls::Problem::Here(problem) => here(problem),
    })?;
    ask_over(stream, check, path).await
}

async fn ask_over<S>(stream: S, check: &HttpCheck, path: &str) -> Result<Verdict, Verdict>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let failed = |error: &dyn std::fmt::Display| Verdict::failed(format!("{}: {error}", check.url));
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| failed(&e))?;
    // Ends with the runtime; what went wrong is seen by the request.
    tokio::spawn(connection);
    let authority = check.url.split("://").nth(1).and_then(|rest| rest.split(['/', '?']).next()).unwrap_or_default();
    let request = hyper::Request::builder()
        .method(check.method.as_str())
        .uri(path)
        .header(header::HOST, authority)
        .header(header::USER_AGENT, concat!("holdfast/", env!("CARGO_PKG_VERSION")))
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| Verdict::unknown(format!("{}: {error}", check.url)))?;
    let answer = sender.send_request(request).await.map_err(|e| failed(&e))?;
    let status = answer.status();
    if !check.statuses.contains(&status.as_u16()) {
        let allowed = check.statuses.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        return Err(Verdict::failed(format!("{} answers {status}, http.statuses has {allowed}", check.url)));
    }
    let Some(text) = &check.body else { return Ok(Verdict::running()) };
    let pattern = pattern(text)?;
    let mut body = answer.into_body();
    let mut read = Vec::new();
    while read.len() < BODY
        && let Some(frame) = body.frame().await
    {
        let frame = frame.map_err(|error| failed(&error))?;
        read.extend_from_slice(frame.data_ref().map(Bytes::as_ref).unwrap_or_default());
    }
    read.truncate(BODY);
    if pattern.is_match(&read) {
        return Ok(Verdict::running());
    }
    Err(Verdict::failed(format!("{}: the body does not match {text:?}", check.url)))
}
