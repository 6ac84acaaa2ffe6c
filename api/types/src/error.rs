//! One thing that is wrong with one field. Validation returns all of them; nothing here formats an answer of the API.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What kind of mistake a field has; the names follow the causes of a Kubernetes `Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum ErrorKind {
    /// It is missing.
    Required,
    /// Its value is not possible.
    Invalid,
    /// It is none of the choices, or a part that this version does not carry out.
    NotSupported,
    /// It is there twice.
    Duplicate,
    /// Its text is too long.
    TooLong,
    /// Its list or map has too many entries.
    TooMany,
    /// It must not be given.
    Forbidden,
    /// It has the wrong type, for example a text where a number belongs.
    TypeInvalid,
}

impl ErrorKind {
    /// The `reason` of a cause in a Kubernetes `Status`, for example `FieldValueInvalid`.
    pub fn cause_reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::Duplicate => "FieldValueDuplicate",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Forbidden => "FieldValueForbidden",
            Self::TypeInvalid => "FieldValueTypeInvalid",
        }
    }

    /// How Kubernetes words the kind at the begin of a message.
    pub fn title(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::Duplicate => "Duplicate value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Forbidden => "Forbidden",
        }
    }
}

/// One thing that is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FieldError {
    /// Path of the field, for example `spec.servers[0].name`; empty for the whole object.
    pub field: String,
    /// What was found there, short, as JSON; empty when nothing was.
    pub found: String,
    /// What is allowed, and what to do.
    pub message: String,
    /// What kind of mistake it is.
    pub kind: ErrorKind,
}

impl FieldError {
    /// A mistake with what was found; long values are cut.
    pub fn new(
        kind: ErrorKind,
        field: impl Into<String>,
        found: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        let mut found = found.into();
        if found.len() > 200 {
            let end = (0..=197).rev().find(|i| found.is_char_boundary(*i)).unwrap_or(0);
            found.truncate(end);
            found.push('…');
        }
        Self { field: field.into(), found, message: message.into(), kind }
    }

    /// The message without the field: `Invalid value: 1: must have at least 2 entries`.
    pub fn detail(&self) -> String {
        if self.found.is_empty() {
            format!("{}: {}", self.kind.title(), self.message)
        } else {
            format!("{}: {}: {}", self.kind.title(), self.found, self.message)
        }
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.field.is_empty() { f.write_str(&self.detail()) } else { write!(f, "{}: {}", self.field, self.detail()) }
    }
}

impl std::error::Error for FieldError {}

/// All mistakes in one text, one per line.
pub fn join(errors: &[FieldError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
