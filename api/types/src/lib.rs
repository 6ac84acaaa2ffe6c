//! Kinds, schemas, defaults and validation of the Holdfast API. No IO.
