//! Who makes a request, and the seam where connections are accepted and identified.
//!
//! The TLS side implements [`Acceptor`]; this crate's protocol code sees nothing but an [`Identity`].

use std::collections::BTreeMap;
use std::io;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

/// Group whose members may do everything.
pub const MASTERS: &str = "system:masters";
/// Group of everybody with valid credentials.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Name of whoever shows no credentials.
pub const ANONYMOUS: &str = "system:anonymous";
/// Group of whoever shows no credentials.
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

/// An authenticated user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Name, from the certificate's common name.
    pub user: String,
    /// Groups, from the certificate's organizations. `system:authenticated` is added by the server.
    pub groups: Vec<String>,
    /// Unique id, usually empty.
    pub uid: String,
    /// Further attributes, usually none.
    pub extra: BTreeMap<String, Vec<String>>,
    /// Until when the certificate is good that proved it, in seconds of Unix time; none: no certificate did. A connection
    /// may be open for longer.
    pub until: Option<i64>,
}

impl Identity {
    /// An identity with a name and groups.
    pub fn new<G: Into<String>>(user: impl Into<String>, groups: impl IntoIterator<Item = G>) -> Identity {
        Identity {
            user: user.into(),
            groups: groups.into_iter().map(Into::into).collect(),
            uid: String::new(),
            extra: BTreeMap::new(),
            until: None,
        }
    }

    /// Somebody without credentials.
    pub fn anonymous() -> Identity {
        Identity::new(ANONYMOUS, [UNAUTHENTICATED])
    }

    /// True without credentials.
    pub fn is_anonymous(&self) -> bool {
        self.user == ANONYMOUS
    }

    /// True if the identity is a member of `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The same identity with `system:authenticated` among its groups.
    pub(crate) fn authenticated(mut self) -> Identity {
        if !self.is_anonymous() && !self.is_in(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.into());
        }
        self
    }
}

/// A connection's byte stream.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// Turns an accepted TCP connection into a byte stream and the identity of its peer.
#[async_trait::async_trait]
pub trait Acceptor: Send + Sync + 'static {
    /// Does the handshake. The identity is absent if the peer showed no client certificate.
    async fn accept(&self, connection: TcpStream) -> io::Result<(Box<dyn Connection>, Option<Identity>)>;
}

/// Accepts without encryption and gives every peer the same identity: for loopback inside one process, as in tests.
#[derive(Debug, Clone)]
pub struct Plain {
    /// The identity of everybody who connects; none: anonymous.
    pub identity: Option<Identity>,
}

#[async_trait::async_trait]
impl Acceptor for Plain {
    async fn accept(&self, connection: TcpStream) -> io::Result<(Box<dyn Connection>, Option<Identity>)> {
        Ok((Box::new(connection), self.identity.clone()))
    }
}
