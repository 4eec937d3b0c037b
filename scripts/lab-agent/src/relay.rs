// SPDX-License-Identifier: GPL-2.0

//! Dom0's agent as the way to the guests' agents.

use std::{
    io,
    net::{Shutdown, SocketAddr, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use lab_agent::wire::{self, Envelope, Kind, Request};

/// Time that a guest has to take a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Passes the request on to `agent`, then every byte both ways until one side closes.
///
/// # Errors
///
/// The agent cannot be reached.
pub(crate) fn relay(client: &TcpStream, agent: SocketAddr, request: Request) -> Result<()> {
    let mut guest =
        TcpStream::connect_timeout(&agent, CONNECT_TIMEOUT).context("the guest's agent")?;
    guest.set_nodelay(true)?;
    wire::send_json(
        &mut guest,
        Kind::Request,
        &Envelope {
            relay: None,
            request,
        },
    )?;
    let (mut from_client, mut to_guest) = (client.try_clone()?, guest.try_clone()?);
    let upward = thread::Builder::new().spawn(move || {
        let _ = io::copy(&mut from_client, &mut to_guest);
        // A client never closes one direction only: it is gone, and the command with it.
        let _ = to_guest.shutdown(Shutdown::Both);
    })?;
    let _ = io::copy(&mut guest, &mut &*client);
    let _ = guest.shutdown(Shutdown::Both);
    let _ = client.shutdown(Shutdown::Both);
    let _ = upward.join();
    Ok(())
}
