//! Pure: specification, view and observation in; actions with their reasons out.
