//! The IO around the core: paths, disk area, ledger, resource drivers, guard.
