//! What can go wrong between the controller and the API server. What is wrong with an object stands in its conditions.

/// Why a reconciliation could not be finished; it is tried again.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server refused a request or could not be reached.
    #[error("{what}: {source}")]
    Api {
        /// What was tried, with the name of the object.
        what: String,
        /// What came back.
        source: Box<kube::Error>,
    },
    /// Somebody else wrote the object each time we tried.
    #[error("{0}: changed by somebody else at every one of {tries} attempts", tries = crate::write::TRIES)]
    Contended(String),
    /// A part that must run as long as the controller ended.
    #[error("{0} ended; start the controller again")]
    Ended(String),
}

impl Error {
    /// Wraps an answer of the API server.
    pub(crate) fn api(what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        let what = what.into();
        move |source| Self::Api { what, source: Box::new(source) }
    }
}

/// Whether the API server said so: the object is not there.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether the API server said so: written by somebody else in the meantime, or already there.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}
