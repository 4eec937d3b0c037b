// SPDX-License-Identifier: GPL-2.0

//! An io_uring, and what its operations returned.

use std::{
    ptr,
    sync::atomic::{AtomicU16, Ordering},
    thread,
};

use io_uring::{
    IoUring,
    cqueue,
    squeue,
    types::BufRingEntry, //
};
use nix::errno::Errno;

use crate::end::End;

/// Operations that there is room for.
const ENTRIES: u32 = 16;

/// Milliseconds without work after which the thread that takes operations sleeps.
const POLLER_IDLE_MS: u32 = 10;

/// Bytes of memory for a ring of buffers.
const PAGE: usize = 4096;

/// Size of each buffer in one.
const BUFFER: usize = 16;

/// An io_uring for a few operations.
pub(crate) struct Uring {
    pub(crate) ring: IoUring,
}

impl Uring {
    /// A new one.
    pub(crate) fn new() -> Self {
        let ring = IoUring::new(ENTRIES).expect("io_uring_setup");
        Self { ring }
    }

    /// A new one, from which a thread of the kernel takes operations by itself.
    pub(crate) fn polled() -> Self {
        let ring = IoUring::builder()
            .setup_sqpoll(POLLER_IDLE_MS)
            .build(ENTRIES);
        Self {
            ring: ring.expect("io_uring_setup"),
        }
    }

    /// Begins operations. The number of each is its place, counted from `first`. What they point to must
    /// stay valid until they have ended, which the cases see to.
    pub(crate) fn submit(&mut self, first: u64, entries: &[squeue::Entry]) {
        for (entry, number) in entries.iter().zip(first..) {
            let entry = entry.clone().user_data(number);
            // SAFETY: The callers keep what the entry points to.
            unsafe { self.ring.submission().push(&entry) }.expect("room");
        }
        self.ring.submit().expect("io_uring_enter");
        // A thread of the kernel may take them a little later.
        while !self.ring.submission().is_empty() {
            thread::yield_now();
        }
    }

    /// Waits for so many completions; those of one wait are in the order of their operations.
    pub(crate) fn wait(&mut self, count: usize) -> Vec<cqueue::Entry> {
        let mut all = Vec::new();
        while all.len() < count {
            self.ring.submit_and_wait(1).expect("io_uring_enter");
            all.extend(self.ring.completion().take(count - all.len()));
        }
        all.sort_by_key(cqueue::Entry::user_data);
        all
    }

    /// Whether nothing has completed.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.ring.submit().expect("io_uring_enter");
        self.ring.completion().is_empty()
    }

    /// Waits for so many completions, which are noted.
    pub(crate) fn see(&mut self, end: &mut End, what: &str, count: usize) {
        for entry in self.wait(count) {
            let more = cqueue::more(entry.flags());
            let last = if more { ", more to come" } else { "" };
            let notification = cqueue::notif(entry.flags());
            let kind = if notification { ", notification" } else { "" };
            let text = match result(&entry) {
                Ok(count) => format!("{count}{last}{kind}"),
                Err(errno) => format!("{errno:?}{last}{kind}"),
            };
            end.see(&format!("{what}, {}", entry.user_data()), text);
        }
    }
}

/// A ring of buffers that an io_uring takes what it receives into. It stays for as long as the process.
pub(crate) struct Buffers {
    entries: *mut BufRingEntry,
    bytes: *mut u8,
    count: u16,
    tail: u16,
}

impl Buffers {
    /// Registers so many, a power of two, as a group.
    pub(crate) fn register(ring: &Uring, count: u16, group: u16) -> Result<Self, Errno> {
        // SAFETY: The kernel chooses where there is room.
        let memory = unsafe {
            let (access, kind) = (
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            );
            libc::mmap(ptr::null_mut(), PAGE, access, kind, -1, 0)
        };
        assert!(memory != libc::MAP_FAILED, "mmap: {}", Errno::last());
        let bytes = vec![b'.'; BUFFER * usize::from(count)].leak();
        let mut buffers = Self {
            entries: memory.cast(),
            bytes: bytes.as_mut_ptr(),
            count,
            tail: 0,
        };
        // SAFETY: The page stays, and all entries fit into it.
        let result = unsafe {
            let at = memory.addr() as u64;
            let submitter = ring.ring.submitter();
            submitter.register_buf_ring_with_flags(at, count, group, 0)
        };
        result.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
        (0..count).for_each(|number| buffers.give(number));
        Ok(buffers)
    }

    /// Gives a buffer to the kernel.
    pub(crate) fn give(&mut self, number: u16) {
        let place = usize::from(self.tail % self.count);
        // SAFETY: The entry is in the page, and the kernel does not look at it before the tail says so.
        unsafe {
            let entry = &mut *self.entries.add(place);
            entry.set_addr(self.at(number).addr() as u64);
            entry.set_len(BUFFER as u32);
            entry.set_bid(number);
        }
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: The tail is in the page, aligned, and written by nobody else.
        let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(self.entries).cast_mut()) };
        // The entry is written before the tail, so that the kernel, which acquires the tail, finds it.
        tail.store(self.tail, Ordering::Release);
    }

    /// What so many bytes at the beginning of a buffer are that the kernel has given back.
    pub(crate) fn bytes(&self, number: u16, len: usize) -> Vec<u8> {
        assert!(number < self.count && len <= BUFFER);
        // SAFETY: The buffer stays, and nobody writes to it now.
        unsafe { std::slice::from_raw_parts(self.at(number), len) }.to_vec()
    }

    fn at(&self, number: u16) -> *mut u8 {
        self.bytes.wrapping_add(BUFFER * usize::from(number))
    }
}

/// What an operation returned.
pub(crate) fn result(entry: &cqueue::Entry) -> Result<usize, Errno> {
    let result = entry.result();
    usize::try_from(result).map_err(|_| Errno::from_raw(-result))
}
