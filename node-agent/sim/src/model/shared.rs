//! Parts of a state that most steps leave as they are: shared between states, and hashed only when they change.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

/// A hash that is the same in every thread and process.
pub(super) fn print(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// A value with its hash. [`Shared::seal`] has to follow the last [`Shared::edit`].
#[derive(Debug, Clone)]
pub(super) struct Shared<T> {
    value: Arc<T>,
    print: Option<u64>,
}

impl<T: Clone + Hash> Shared<T> {
    pub(super) fn new(value: T) -> Shared<T> {
        let print = Some(print(&value));
        Shared { value: Arc::new(value), print }
    }

    /// To change it; other states keep theirs.
    pub(super) fn edit(&mut self) -> &mut T {
        self.print = None;
        Arc::make_mut(&mut self.value)
    }

    pub(super) fn is_sealed(&self) -> bool {
        self.print.is_some()
    }

    pub(super) fn seal(&mut self) {
        if self.print.is_none() {
            self.print = Some(print(&*self.value));
        }
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.print == other.print
    }
}

impl<T> Hash for Shared<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.print.hash(state);
    }
}
