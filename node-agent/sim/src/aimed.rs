//! Schedules aimed at one planted bug each.
