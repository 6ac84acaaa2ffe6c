//! Priority and memory of the threads that must not wait: so that load does not look like death (design.md §5).
//!
//! Everything here may be refused by the system (containers, missing rights); the agent then says so once and goes on.

use std::io;

/// Priority among real-time threads, 1..99: above ordinary programs, below the kernel's own threads (50).
const PRIORITY: i32 = 20;

/// Gives the calling thread real-time priority (round robin). Threads and processes that it starts don't inherit it.
#[expect(unsafe_code, reason = "sched_setscheduler has no wrapper")]
pub fn raise_this_thread() -> io::Result<()> {
    let parameters = libc::sched_param { sched_priority: PRIORITY };
    // SAFETY: 0 is the calling thread; the pointer is to a valid value for the duration of the call.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const parameters) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Keeps all memory of this process that is touched from now on from being paged out. Pages are locked when they are
/// first used, so that untouched parts of the program and of stacks take no memory.
#[expect(unsafe_code, reason = "mlockall with MCL_ONFAULT has no wrapper")]
pub fn lock_memory() -> io::Result<()> {
    // SAFETY: no pointers are involved.
    let result = unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes the C library keep one memory arena instead of one per thread, which would cost megabytes.
#[expect(unsafe_code, reason = "mallopt has no wrapper")]
pub fn one_arena() {
    // SAFETY: only sets a parameter of the allocator; called before other threads exist.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}
