// SPDX-License-Identifier: GPL-2.0

//! Each end of each case is a process of its own, so that whatever becomes of it ends with it.

use std::{
    io::{Read, Write},
    os::fd::{BorrowedFd, FromRawFd, RawFd},
    panic::{self, AssertUnwindSafe},
    sync::Mutex,
};

use anyhow::{Context, Result};
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::wait::waitpid,
    unistd::{ForkResult, Pid, fork},
};

use crate::{
    call,
    case::{Case, Start},
    cases,
    control::Outcome,
    end::End,
    module,
    options::Way,
};

/// Seconds after which an end counts as hanging. The emulator is slow.
const LIMIT_S: u32 = 90;

/// One more for so many round trips that are asked for.
const ROUNDS_PER_S: usize = 500;

/// Why a direction leaves a ring for which there is no larger one.
const EXHAUSTED: &str = "arena-exhausted";

/// Why the case's function panicked.
static PANIC: Mutex<Option<String>> = Mutex::new(None);

/// A process that plays a case.
pub(crate) struct Playing {
    child: Pid,
    said: RawFd,
}

impl Playing {
    /// Begins `body` in a new process.
    pub(crate) fn start(body: impl FnOnce() -> [Outcome; 2]) -> Result<Self> {
        let [from, to] = call::pipe()?;
        // SAFETY: This process has one thread.
        match unsafe { fork() }? {
            ForkResult::Child => {
                call::close(from)?;
                // SAFETY: No memory is passed.
                unsafe { libc::alarm(LIMIT_S) };
                let outcomes = body();
                let _ = file(to).write_all(serde_json::to_string(&outcomes)?.as_bytes());
                std::process::exit(0)
            }
            ForkResult::Parent { child } => {
                call::close(to)?;
                Ok(Self { child, said: from })
            }
        }
    }

    /// Waits until one of several is about to end; returns its index.
    pub(crate) fn first_to_end(all: &[&Self]) -> Result<usize> {
        // SAFETY: The descriptors are open as long as `all` is borrowed.
        let said = |one: &&Self| unsafe { BorrowedFd::borrow_raw(one.said) };
        let mut fds: Vec<_> = all
            .iter()
            .map(|one| PollFd::new(said(one), PollFlags::POLLIN))
            .collect();
        poll(&mut fds, PollTimeout::NONE)?;
        let is_readable = |fd: &PollFd| fd.any().unwrap_or(true);
        fds.iter()
            .position(is_readable)
            .context("poll has returned, but for none")
    }

    /// Waits for its end; returns what `body` returned.
    pub(crate) fn wait(self) -> Result<[Outcome; 2]> {
        let mut text = String::new();
        let read = file(self.said).read_to_string(&mut text);
        let status = waitpid(self.child, None)?;
        read?;
        serde_json::from_str(&text).with_context(|| format!("it ended with {status:?}"))
    }
}

/// Begins a process that ends by itself, and does not wait for it.
pub(crate) fn detached(body: impl FnOnce()) -> Result<()> {
    // SAFETY: This process has one thread.
    if let ForkResult::Child = unsafe { fork() }? {
        // SAFETY: No memory is passed.
        unsafe { libc::alarm(LIMIT_S + 5) };
        body();
        std::process::exit(0)
    }
    Ok(())
}

/// Plays one end of a case to its end.
pub(crate) fn play(case: &Case, mut end: End, is_left: bool) -> [Outcome; 2] {
    panic::set_hook(Box::new(|info| {
        let mut why = PANIC
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        why.get_or_insert(info.to_string());
    }));
    let way = end.way;
    let more = u32::try_from(end.rounds / ROUNDS_PER_S).unwrap_or(u32::MAX / 2);
    // SAFETY: No memory is passed.
    unsafe { libc::alarm(LIMIT_S + more) };
    let result = panic::catch_unwind(AssertUnwindSafe(|| {
        match case.start {
            Start::Connection => end.establish(|_| {}),
            Start::Datagrams => end.exchange_datagrams(),
            Start::Nothing => {}
        }
        let (before, exhausted) = (module::ring_bytes(), module::declines(EXHAUSTED));
        let body = if is_left { case.left } else { case.right };
        body(&mut end);
        let moved = module::ring_bytes().wrapping_sub(before);
        end.note(format!("{moved} bytes through rings"));
        assert!(
            way == Way::Ring || moved == 0,
            "{moved} bytes went through rings"
        );
        let over_tcp = end.over_tcp();
        end.note(format!("{over_tcp} bytes over TCP"));
        // A ring that must grow may find that the peer's kernel has not mapped more yet.
        let may_leave = cases::may_leave(case) || module::declines(EXHAUSTED) != exhausted;
        assert!(
            way != Way::Ring || over_tcp == 0 || may_leave,
            "{over_tcp} bytes went over TCP"
        );
        let out_of_ring = end.out_of_ring();
        end.note(format!("flows that left the ring: {out_of_ring:?}"));
        assert!(
            out_of_ring.is_empty() || cases::may_leave(case),
            "datagrams went over the network: {out_of_ring:?}"
        );
    }));
    let failure = result.err().map(|_| {
        let mut why = PANIC
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        why.take().unwrap_or_default()
    });
    end.finish(failure)
}

fn file(fd: RawFd) -> std::fs::File {
    // SAFETY: The descriptor is open and nobody else's.
    unsafe { std::fs::File::from_raw_fd(fd) }
}
