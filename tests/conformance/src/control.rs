// SPDX-License-Identifier: GPL-2.0

//! The connection by which the two ends of a case talk about it. It is never accelerated.

use std::{
    io::{BufRead, BufReader, Write},
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::call;

/// A pacing rate that slows nothing down, but that the frontend leaves to TCP.
const PACING: u64 = 1 << 40;

/// What an end did and saw.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// What an application can see.
    pub(crate) lines: Vec<String>,
    /// What else is worth knowing; not compared.
    pub(crate) notes: Vec<String>,
    /// Why it did not get to its end.
    pub(crate) failure: Option<String>,
}

/// What the ends say to each other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Message {
    /// The client begins a case.
    Begin {
        /// Its name.
        case: String,
        /// The name of the way.
        way: String,
        /// Round trips of each case of wakeups.
        rounds: usize,
        /// Whether the client, which connects, is the left end.
        left_is_active: bool,
    },
    /// An end is where both meet.
    Meet,
    /// A word that one end has for the other.
    Word(String),
    /// An end has ended.
    Ended(Outcome),
}

/// One end of the connection.
pub(crate) struct Control {
    stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Control {
    /// Connects to a server.
    pub(crate) fn connect(server: IpAddr, port: u16) -> Result<Self> {
        let address = SocketAddr::new(server, port);
        let stream = TcpStream::connect(address).with_context(|| address.to_string())?;
        leave_to_tcp(&stream)?;
        Self::new(stream)
    }

    /// Of a connection that a listener accepted.
    pub(crate) fn new(stream: TcpStream) -> Result<Self> {
        stream.set_nodelay(true)?;
        let reader = BufReader::new(stream.try_clone()?);
        Ok(Self { stream, reader })
    }

    /// This end's address.
    pub(crate) fn address(&self) -> Result<IpAddr> {
        Ok(self.stream.local_addr()?.ip())
    }

    /// The other end's address.
    pub(crate) fn peer(&self) -> Result<IpAddr> {
        Ok(self.stream.peer_addr()?.ip())
    }

    /// Says something.
    pub(crate) fn say(&mut self, message: &Message) -> Result<()> {
        let mut line = serde_json::to_string(message)?;
        line.push('\n');
        Ok(self.stream.write_all(line.as_bytes())?)
    }

    /// Waits for what the other end says.
    pub(crate) fn hear(&mut self) -> Result<Message> {
        let mut line = String::new();
        let read = self.reader.read_line(&mut line)?;
        ensure!(read > 0, "the other end is gone");
        serde_json::from_str(&line).with_context(|| line.trim().to_owned())
    }
}

/// A listener for such connections.
pub(crate) fn listen(port: u16) -> Result<TcpListener> {
    let listener =
        TcpListener::bind((IpAddr::from([0; 16]), port)).with_context(|| format!("port {port}"))?;
    // What it accepts inherits this.
    leave_to_tcp(&listener)?;
    Ok(listener)
}

/// Makes a socket one that the frontend declines, so that the talk about a case does not depend on what
/// the case is about.
fn leave_to_tcp(socket: &impl AsRawFd) -> Result<()> {
    let (level, name) = (libc::SOL_SOCKET, libc::SO_MAX_PACING_RATE);
    Ok(call::set(socket.as_raw_fd(), level, name, PACING)?)
}
