// SPDX-License-Identifier: GPL-2.0

//! A process that an end of a case forks, and that uses the same sockets.

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{FromRawFd, RawFd},
    panic::{self, AssertUnwindSafe},
};

use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{ForkResult, Pid, fork},
};

use crate::call;

/// Seconds after which a child counts as hanging; its parent's limit is larger.
const LIMIT_S: u32 = 30;

/// The process.
pub(crate) struct Child {
    pid: Pid,
    from: File,
}

/// How the process reports before it ends.
pub(crate) struct Report(File);

impl Report {
    /// Adds to what [`Child::hear`] and [`Child::join`] return.
    pub(crate) fn say(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).expect("a pipe");
    }

    /// The descriptor, for what reports by itself.
    pub(crate) fn fd(&self) -> RawFd {
        std::os::fd::AsRawFd::as_raw_fd(&self.0)
    }
}

impl Child {
    /// Begins it. The process that calls must have one thread, and the child ends with what `body`
    /// returns as its last words.
    pub(crate) fn start(body: impl FnOnce(&mut Report) -> String) -> Self {
        let [from, to] = call::pipe().expect("pipe");
        // SAFETY: Both are open and nobody else's.
        let (from, to) = unsafe { (File::from_raw_fd(from), File::from_raw_fd(to)) };
        // SAFETY: This process has one thread.
        match unsafe { fork() }.expect("fork") {
            ForkResult::Child => {
                drop(from);
                // SAFETY: No memory is passed. It must not outlive the case by much.
                unsafe {
                    libc::alarm(LIMIT_S);
                    libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                }
                let mut report = Report(to);
                let body = AssertUnwindSafe(|| {
                    let words = body(&mut report);
                    report.say(&words);
                });
                let code = i32::from(panic::catch_unwind(body).is_err());
                // SAFETY: Nothing of this process is used any more.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child: pid } => Self { pid, from },
        }
    }

    /// Its number.
    pub(crate) fn id(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Waits for so many bytes of its report.
    pub(crate) fn hear(&mut self, bytes: usize) -> String {
        let mut text = vec![0; bytes];
        self.from.read_exact(&mut text).expect("a report");
        String::from_utf8_lossy(&text).into_owned()
    }

    /// Ends it at once, without a chance to do anything.
    pub(crate) fn kill(self) {
        // SAFETY: No memory is passed.
        unsafe { libc::kill(self.id(), libc::SIGKILL) };
        waitpid(self.pid, None).expect("waitpid");
    }

    /// Waits for its end; returns the rest of its report.
    pub(crate) fn join(mut self) -> String {
        let mut text = String::new();
        self.from.read_to_string(&mut text).expect("a report");
        let status = waitpid(self.pid, None).expect("waitpid");
        assert_eq!(status, WaitStatus::Exited(self.pid, 0), "{text}");
        text
    }
}
