//! Pure state machines: views, arbitration, lease, coordinator, group lifecycle.
