// SPDX-License-Identifier: GPL-2.0

//! What the user can see and set in `/sys/kernel/debug/xenvmc/`: one [`Report`] in the module.
//!
//! - `peers`: a line for each peer, `domid=3 instance=<16 hex digits> version=1
//!   addresses=10.0.0.3,fd00::3 distrusted=0 channel=<state and more words>`. The words come in
//!   this order, and later versions may add some.
//! - `connections`: a line for each connection.
//! - `flows`: a line for each flow of datagrams to and from a peer.
//! - `counters`: a line for each counter, `<name> <number>`.
//! - `declines`: a line for each reason for plain TCP, `<code> <name> <times here> <times peers
//!   gave it>`.
//! - `timeline`: a line for each step that was reached since the start or the last suspend, `<name>
//!   <milliseconds after that>`.
//! - `enabled`: 1 or 0; can be written. Whether connections are accelerated that are not yet.
//! - `spin_us`: a number from 0 to 1000; can be written. The longest busy-wait in microseconds.
//!
//! Only root can read them. Numbers are decimal unless said otherwise.

use crate::{
    counters::Counters,
    peers::Peers,
    settings::Settings,
    timeline::Timeline, //
};
use core::fmt;
use kernel::{
    debugfs::{
        Dir,
        File, //
    },
    prelude::*,
    str::kstrtobool_bytes,
    sync::Arc,
    uaccess::UserSliceReader, //
};

/// Bytes that may be written to a file.
const INPUT_MAX: usize = 16;

/// What can write lines about all connections.
pub(crate) trait Connections: Send + Sync + 'static {
    /// Writes a line for each connection. Process context.
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;

    /// Writes a line for each flow of datagrams. Process context.
    fn write_flows(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// The files, until it is dropped; that waits for those who read them.
pub(crate) struct Report {
    _peers: Pin<KBox<File<Arc<Peers>>>>,
    _connections: Pin<KBox<File<Arc<dyn Connections>>>>,
    _flows: Pin<KBox<File<Arc<dyn Connections>>>>,
    _counters: [Pin<KBox<File<Arc<Counters>>>>; 2],
    _timeline: Pin<KBox<File<Arc<Timeline>>>>,
    _settings: [Pin<KBox<File<Arc<Settings>>>>; 2],
    _dir: Dir,
}

impl Report {
    /// Makes the files. Without debugfs it makes nothing, which is no error.
    ///
    /// # Errors
    ///
    /// `ENOMEM`.
    pub(crate) fn new(
        settings: &Arc<Settings>,
        counters: &Arc<Counters>,
        timeline: &Arc<Timeline>,
        peers: &Arc<Peers>,
        connections: Arc<dyn Connections>,
    ) -> Result<Self> {
        let dir = Dir::new(c"xenvmc");
        let peers = dir.read_callback_file(c"peers", peers.clone(), &show_peers);
        let flows = dir.read_callback_file(c"flows", connections.clone(), &|connections, f| {
            connections.write_flows(f)
        });
        let connections = dir.read_callback_file(c"connections", connections, &|connections, f| {
            connections.write(f)
        });
        let numbers = dir.read_callback_file(c"counters", counters.clone(), &|counters, f| {
            write!(f, "{}", **counters)
        });
        let declines = dir.read_callback_file(c"declines", counters.clone(), &|counters, f| {
            counters.write_declines(f)
        });
        let timeline = dir.read_callback_file(c"timeline", timeline.clone(), &|timeline, f| {
            write!(f, "{}", **timeline)
        });
        let enabled = dir.read_write_callback_file(
            c"enabled",
            settings.clone(),
            &|settings, f| writeln!(f, "{}", u8::from(settings.is_enabled())),
            &set_enabled,
        );
        let spin_us = dir.read_write_callback_file(
            c"spin_us",
            settings.clone(),
            &|settings, f| writeln!(f, "{}", settings.spin_us()),
            &set_spin_us,
        );
        Ok(Self {
            _peers: KBox::pin_init(peers, GFP_KERNEL)?,
            _connections: KBox::pin_init(connections, GFP_KERNEL)?,
            _flows: KBox::pin_init(flows, GFP_KERNEL)?,
            _counters: [
                KBox::pin_init(numbers, GFP_KERNEL)?,
                KBox::pin_init(declines, GFP_KERNEL)?,
            ],
            _timeline: KBox::pin_init(timeline, GFP_KERNEL)?,
            _settings: [
                KBox::pin_init(enabled, GFP_KERNEL)?,
                KBox::pin_init(spin_us, GFP_KERNEL)?,
            ],
            _dir: dir,
        })
    }
}

fn show_peers(peers: &Arc<Peers>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let mut result = Ok(());
    peers.for_each(|peer| {
        if result.is_ok() {
            result = writeln!(f, "{}", **peer);
        }
    });
    result
}

fn set_enabled(settings: &Arc<Settings>, reader: &mut UserSliceReader) -> Result {
    let mut buffer = [0; INPUT_MAX];
    settings.set_enabled(kstrtobool_bytes(input(reader, &mut buffer)?.as_bytes())?);
    Ok(())
}

fn set_spin_us(settings: &Arc<Settings>, reader: &mut UserSliceReader) -> Result {
    let mut buffer = [0; INPUT_MAX];
    let spin_us = input(reader, &mut buffer)?.parse().map_err(|_| EINVAL)?;
    settings.set_spin_us(spin_us)
}

/// Returns what the user wrote, without white space around it.
fn input<'a>(reader: &mut UserSliceReader, buffer: &'a mut [u8; INPUT_MAX]) -> Result<&'a str> {
    let bytes = buffer.get_mut(..reader.len()).ok_or(EINVAL)?;
    reader.read_slice(bytes)?;
    let text = core::str::from_utf8(bytes).map_err(|_| EINVAL)?;
    Ok(text.trim())
}
