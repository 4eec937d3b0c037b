// SPDX-License-Identifier: GPL-2.0

//! select(2), and the calls that wait with another signal mask.

use std::{mem, os::fd::RawFd, ptr};

use nix::errno::Errno;

use crate::{log::Events, signal};

/// Which of the three sets a descriptor is in afterwards, as poll's events.
type Sets = [libc::fd_set; 3];

fn sets(fd: RawFd, events: i32) -> Sets {
    [libc::POLLIN, libc::POLLOUT, libc::POLLPRI].map(|event| {
        // SAFETY: All fields may be zero; descriptors of cases are small numbers.
        unsafe {
            let mut set: libc::fd_set = mem::zeroed();
            if events & i32::from(event) != 0 {
                libc::FD_SET(fd, &mut set);
            }
            set
        }
    })
}

fn events(fd: RawFd, sets: &Sets) -> Events {
    let of = [libc::POLLIN, libc::POLLOUT, libc::POLLPRI];
    // SAFETY: The sets are valid for reads.
    let is_in = |set: &libc::fd_set| unsafe { libc::FD_ISSET(fd, set) };
    let seen = sets.iter().zip(of).filter(|(set, _)| is_in(set));
    Events(seen.fold(0, |all, (_, event)| all | event as u32))
}

/// select(2) of one descriptor, whose sets are named as poll's events are; `timeout` in milliseconds,
/// negative: for ever.
pub(crate) fn select(fd: RawFd, wanted: i32, timeout: i32) -> Result<Events, Errno> {
    let mut sets = sets(fd, wanted);
    let [read, write, except] = &mut sets;
    let mut limit = libc::timeval {
        tv_sec: (timeout / 1000).into(),
        tv_usec: (timeout % 1000 * 1000).into(),
    };
    let limit = if timeout < 0 {
        ptr::null_mut()
    } else {
        &raw mut limit
    };
    // SAFETY: All are valid for reads and writes, or null.
    Errno::result(unsafe { libc::select(fd + 1, read, write, except, limit) })?;
    Ok(events(fd, &sets))
}

/// pselect(2) that waits for ever, and lets all signals in.
pub(crate) fn pselect(fd: RawFd, wanted: i32) -> Result<Events, Errno> {
    let mut sets = sets(fd, wanted);
    let [read, write, except] = &mut sets;
    let mask = signal::set_of(0);
    // SAFETY: All are valid for reads and writes, or null.
    let result = unsafe { libc::pselect(fd + 1, read, write, except, ptr::null(), &mask) };
    Errno::result(result)?;
    Ok(events(fd, &sets))
}

/// ppoll(2) that waits for ever, and lets all signals in.
pub(crate) fn ppoll(fd: RawFd, wanted: i32) -> Result<Events, Errno> {
    let mut entry = libc::pollfd {
        fd,
        events: wanted as i16,
        revents: 0,
    };
    let mask = signal::set_of(0);
    // SAFETY: All are valid for reads and writes, or null.
    Errno::result(unsafe { libc::ppoll(&mut entry, 1, ptr::null(), &mask) })?;
    Ok(Events(entry.revents as u16 as u32))
}
