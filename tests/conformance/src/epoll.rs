// SPDX-License-Identifier: GPL-2.0

//! An epoll set.

use std::os::fd::RawFd;

use nix::errno::Errno;

use crate::{call, log::Events, signal};

/// More events than any case has at once.
const EVENTS_MAX: usize = 64;

/// A set of descriptors to wait for; left open, as the process ends with the case.
#[derive(Clone, Copy)]
pub(crate) struct Epoll(pub(crate) RawFd);

impl Epoll {
    /// epoll_create1(2).
    pub(crate) fn new() -> Self {
        // SAFETY: No memory is passed.
        Self(Errno::result(unsafe { libc::epoll_create1(0) }).expect("epoll_create1"))
    }

    /// One with one descriptor.
    pub(crate) fn of(fd: RawFd, events: i32) -> Self {
        let epoll = Self::new();
        epoll.add(fd, events).expect("epoll_ctl");
        epoll
    }

    /// epoll_ctl(2) that adds a descriptor; events come with its number.
    pub(crate) fn add(self, fd: RawFd, events: i32) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_ADD, fd, events)
    }

    /// epoll_ctl(2) that says anew what is waited for.
    pub(crate) fn modify(self, fd: RawFd, events: i32) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_MOD, fd, events)
    }

    /// epoll_ctl(2) that takes a descriptor out.
    pub(crate) fn remove(self, fd: RawFd) -> Result<(), Errno> {
        self.control(libc::EPOLL_CTL_DEL, fd, 0)
    }

    fn control(self, operation: i32, fd: RawFd, events: i32) -> Result<(), Errno> {
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: fd as u64,
        };
        // SAFETY: `event` is valid for reads.
        Errno::result(unsafe { libc::epoll_ctl(self.0, operation, fd, &mut event) }).map(drop)
    }

    /// epoll_wait(2): the descriptors and what is to be said of them; `timeout` in milliseconds.
    pub(crate) fn wait(self, timeout: i32) -> Result<Vec<(RawFd, Events)>, Errno> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS_MAX];
        // SAFETY: `events` is valid for writes of so many.
        let count = call::check(unsafe {
            libc::epoll_wait(self.0, events.as_mut_ptr(), EVENTS_MAX as i32, timeout) as isize
        })?;
        let named = |event: &libc::epoll_event| (event.u64 as RawFd, Events(event.events));
        Ok(events[..count].iter().map(named).collect())
    }

    /// The same of a set of one descriptor.
    pub(crate) fn events(self, timeout: i32) -> Result<Events, Errno> {
        let all = self.wait(timeout)?;
        Ok(all.first().map_or(Events(0), |(_, events)| *events))
    }

    /// epoll_pwait(2) of a set of one descriptor, which waits for ever and lets all signals in.
    pub(crate) fn wait_unmasked(self) -> Result<Events, Errno> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        let mask = signal::set_of(0);
        // SAFETY: The event is valid for writes, and the mask for reads.
        Errno::result(unsafe { libc::epoll_pwait(self.0, &mut event, 1, -1, &mask) })?;
        Ok(Events(event.events))
    }
}
