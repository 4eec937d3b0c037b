// SPDX-License-Identifier: GPL-2.0

//! The server: the other end of each case that a client begins.

use anyhow::{Context, Result, bail};

use crate::{
    cases,
    control::{self, Control, Message},
    end::End,
    options::Way,
    process,
};

/// Serves until it is killed.
pub(crate) fn serve(port: u16) -> Result<()> {
    // Its processes are not waited for.
    // SAFETY: No handler is set.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    let listener = control::listen(port)?;
    println!("# serving on port {port}");
    loop {
        let (stream, _) = listener.accept()?;
        process::detached(move || {
            // SAFETY: No handler is set. Cases wait for processes of their own.
            unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
            if let Err(error) = Control::new(stream).and_then(one) {
                println!("# {error:#}");
            }
        })?;
    }
}

fn one(mut control: Control) -> Result<()> {
    let Message::Begin {
        case,
        way,
        rounds,
        left_is_active,
    } = control.hear()?
    else {
        bail!("a case must begin");
    };
    let way = Way::from_name(&way).with_context(|| format!("no way {way}"))?;
    let case = cases::find(&case).with_context(|| format!("no case {case}"))?;
    let end = End::new(control, way, rounds, false);
    process::play(case, end, !left_is_active);
    Ok(())
}
