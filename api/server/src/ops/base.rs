//! What a write starts from: at first what is remembered, and if that was not it, what the store has.
//!
//! What is remembered may be old, or of a history that the store has no longer. So it counts only if the store says that it
//! is still what is there: either by taking the write, which names revision and value of what it replaces
//! ([`Expect::Is`]), or by a read of the key afterwards. Whatever came of anything else (a refusal, a write without
//! effect, a lost race) is found out anew from what the store has. This saves the read before each write.

use bytes::Bytes;
use holdfast_store::Expect;

use super::update::Outcome;
use crate::error::{ApiError, ApiResult};
use crate::object::{Object, encode};
use crate::request::Request;
use crate::state::State;

/// How often a write is tried anew when somebody else wrote in between. Each attempt means that another write came
/// through, so this is only reached under a storm of writes to one object.
const ATTEMPTS: usize = 100;

/// The objects that the attempts of one request start from, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Bases {
    tried: usize,
    /// What the store had when the last one was compared with it.
    read: Option<Option<Object>>,
}

impl Bases {
    /// The next one; none if there is no such object.
    ///
    /// # Errors
    /// 409 after too many attempts.
    pub(crate) async fn next(&mut self, state: &State, request: &Request) -> ApiResult<Option<Object>> {
        self.tried += 1;
        if self.tried > ATTEMPTS {
            return Err(ApiError::modified(request.target()));
        }
        if let Some(read) = self.read.take() {
            return Ok(read);
        }
        let (def, namespace, name) = (&request.def, &request.namespace, &request.name);
        if self.tried == 1
            && let Some(remembered) = state.remembered(def, namespace, name)
        {
            return Ok(Some(remembered));
        }
        state.newest(def, namespace, name).await
    }

    /// Whether what an attempt came to may be answered: it started from what the store has.
    pub(crate) async fn settles<T>(
        &mut self,
        state: &State,
        request: &Request,
        base: &Object,
        result: &ApiResult<(Outcome, T)>,
    ) -> ApiResult<bool> {
        match result {
            _ if !base.remembered => return Ok(true),
            Ok((Outcome::Stored(_), _)) => return Ok(true),
            Ok((Outcome::Raced, _)) => return Ok(false),
            Ok((Outcome::Unchanged(_), _)) | Err(_) => {}
        }
        let (found, _) = state.store.get(&base.key).await?;
        let same = found.as_ref().is_some_and(|entry| entry.modified == base.revision && entry.value == bytes(base));
        self.read = Some(found.map(|entry| state.decode(&request.def, &entry)).transpose()?);
        Ok(same)
    }
}

/// What the store must hold for a write on top of `base`.
pub(crate) fn expectation(base: &Object) -> Expect {
    if base.remembered {
        Expect::Is { modified: base.revision, value: bytes(base) }
    } else {
        Expect::Modified(base.revision)
    }
}

/// The object as it is stored, unless the server that wrote it had another schema; then it is read first.
fn bytes(base: &Object) -> Bytes {
    encode(&mut base.value.clone()).into()
}
