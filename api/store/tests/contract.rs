//! The contract of the store, checked against every backend: the embedded SQLite and a real etcd.
//!
//! The etcd is the system's own program, started here on free ports of loopback with its own directory.

#[path = "contract/checks.rs"]
mod checks;
#[path = "contract/crash.rs"]
mod crash;
#[path = "contract/history.rs"]
mod history;
#[path = "contract/world.rs"]
mod world;

use world::World;

/// Runs each check against each backend.
macro_rules! every_backend {
    ($($module:ident::$name:ident),* $(,)?) => {
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                crate::$module::$name(super::World::sqlite()).await
            })*
        }
        mod etcd {
            $(#[tokio::test(flavor = "multi_thread")]
            async fn $name() {
                crate::$module::$name(super::World::etcd()).await
            })*
        }
    };
}

every_backend! {
    checks::a_write_needs_what_it_expects,
    checks::of_concurrent_writers_one_wins,
    checks::pages_show_one_snapshot_while_writers_go_on,
    checks::a_time_to_live_ends_in_a_deletion,
    history::a_watch_sees_every_write_once_in_order,
    history::a_watch_resumes_from_an_old_revision,
    history::a_slow_watcher_misses_nothing,
    history::compaction_forgets_the_past_and_nothing_else,
    history::old_history_is_forgotten_by_itself,
    crash::a_restart_keeps_values_history_and_counter,
    crash::a_kill_loses_nothing_acknowledged,
    crash::a_lost_backend_is_told_quickly,
}
