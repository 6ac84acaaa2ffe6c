//! A client of the API server that notices when the machine of the API server is gone.
//!
//! A watch only listens. If the machine at the other end loses power nothing ends the connection, and the watch waits for
//! ever, also when another machine has taken the address over: a server would miss every change until a report of its own
//! happened to fail. So the system asks over each idle connection whether the other end still knows it. Whoever has the
//! address by then says that it does not, and if nobody has, the connection ends after some silence.

use std::time::Duration;

use hyper_timeout::TimeoutConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Builder, Client};
use hyper_util::rt::TokioExecutor;
use kube::Config;
use kube::client::retry::RetryPolicy;
use kube::client::{Body, ConfigExt};
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

/// A connection is asked after so much silence, then in these intervals, and given up after so many without an answer. Short
/// beside the minute after which a report tells anyway, and long enough that thousands of idle watches cost nothing.
const IDLE: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(3);
const TRIES: u32 = 3;

/// As `kube::Client::try_from`, over connections that are asked. A proxy is not used.
///
/// # Errors
/// When the credentials can't be used.
pub fn client(config: Config) -> kube::Result<kube::Client> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_keepalive(Some(IDLE));
    connector.set_keepalive_interval(Some(AGAIN));
    connector.set_keepalive_retries(Some(TRIES));
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    let connections: Client<_, Body> = Builder::new(TokioExecutor::new()).build(connector);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .layer(RetryLayer::new(RetryPolicy::server_retry()))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(connections);
    Ok(kube::Client::new(service, config.default_namespace))
}
