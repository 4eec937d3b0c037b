// SPDX-License-Identifier: GPL-2.0

//! The agents' protocol: one connection, one request.
//!
//! A connection carries frames: kind (one byte), length of the payload (four bytes, little
//! endian), payload. The client sends one [`Kind::Request`]; with [`Request::Push`], and with
//! [`Request::Exec`] that has `stdin`, [`Kind::Input`] frames up to a [`Kind::InputEnd`] follow.
//! The agent sends [`Kind::Output`] and [`Kind::ErrorOutput`] as they come, [`Kind::Alive`] at
//! least every [`ALIVE_PERIOD`], and last of all [`Kind::Done`] or [`Kind::Failed`].
//!
//! A client that closes the connection early takes its command back: the agent kills it.

use std::{
    io::{self, Read, Write},
    net::SocketAddr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// TCP port on which an agent listens.
pub const PORT: u16 = 7077;

/// Longest time between two frames of an agent whose machine is well.
pub const ALIVE_PERIOD: Duration = Duration::from_secs(1);

/// Longest payload of a frame, in bytes.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// Bytes of a file or of a stream that go into one frame.
pub const CHUNK: usize = 64 << 10;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Client: an [`Envelope`], as JSON.
    Request = 1,
    /// Client: bytes for the command's standard input, or of the file.
    Input = 2,
    /// Client: no input follows.
    InputEnd = 3,
    /// Agent: bytes of the command's standard output, or of the file.
    Output = 4,
    /// Agent: bytes of the command's standard error.
    ErrorOutput = 5,
    /// Agent: still there.
    Alive = 6,
    /// Agent: an [`Outcome`], as JSON; the request is over.
    Done = 7,
    /// Agent: why the request cannot be served, as text; the request is over.
    Failed = 8,
}

impl TryFrom<u8> for Kind {
    type Error = u8;

    fn try_from(raw: u8) -> Result<Self, u8> {
        Ok(match raw {
            1 => Self::Request,
            2 => Self::Input,
            3 => Self::InputEnd,
            4 => Self::Output,
            5 => Self::ErrorOutput,
            6 => Self::Alive,
            7 => Self::Done,
            8 => Self::Failed,
            _ => return Err(raw),
        })
    }
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// Its payload, at most [`MAX_PAYLOAD`] bytes.
    pub data: Vec<u8>,
}

/// A request, and who shall serve it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Envelope {
    /// The agent to which the receiver shall pass this on; none: the receiver itself.
    pub relay: Option<SocketAddr>,
    /// What to do.
    pub request: Request,
}

/// What an agent can do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Request {
    /// Answer at once.
    Ping,
    /// Run a command and send its output.
    Exec {
        /// Program and arguments; the program is looked up in the agent's `PATH`.
        argv: Vec<String>,
        /// After this many milliseconds the command and what it started are killed.
        timeout_ms: Option<u64>,
        /// Whether the client sends input; if not, standard input is `/dev/null`.
        stdin: bool,
    },
    /// Write a file from the input that follows, under another name first.
    Push {
        /// Absolute path. Missing directories are made.
        path: String,
        /// Permission bits.
        mode: u32,
    },
    /// Send a file as output.
    Pull {
        /// Absolute path.
        path: String,
    },
}

/// How a request ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Exit status of the command, or of the shell's kind: 128 + number of the signal that ended it.
    pub status: i32,
    /// Whether the command was killed because its time was over.
    pub timed_out: bool,
    /// Permission bits of a pulled file.
    pub mode: u32,
}

/// Sends one frame.
///
/// # Errors
///
/// Those of `out`; `InvalidInput` when the payload exceeds [`MAX_PAYLOAD`].
pub fn send(out: &mut impl Write, kind: Kind, data: &[u8]) -> io::Result<()> {
    if data.len() > MAX_PAYLOAD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "payload too long",
        ));
    }
    let mut frame = Vec::with_capacity(5 + data.len());
    frame.push(kind as u8);
    frame.extend_from_slice(&(data.len() as u32).to_le_bytes());
    frame.extend_from_slice(data);
    out.write_all(&frame)
}

/// Sends a frame whose payload is a value as JSON.
///
/// # Errors
///
/// As for [`send`].
pub fn send_json(out: &mut impl Write, kind: Kind, value: &impl Serialize) -> io::Result<()> {
    send(out, kind, &serde_json::to_vec(value)?)
}

/// Receives one frame.
///
/// # Errors
///
/// Those of `from`; `InvalidData` for an unknown kind or a payload beyond [`MAX_PAYLOAD`].
pub fn receive(from: &mut impl Read) -> io::Result<Frame> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let kind = Kind::try_from(head[0])
        .map_err(|raw| io::Error::new(io::ErrorKind::InvalidData, format!("frame kind {raw}")))?;
    let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if len > MAX_PAYLOAD {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "payload too long",
        ));
    }
    let mut data = vec![0; len];
    from.read_exact(&mut data)?;
    Ok(Frame { kind, data })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frame_survives_the_way() {
        let mut bytes = Vec::new();
        send(&mut bytes, Kind::Output, &[0, 255, 10]).unwrap();
        let frame = receive(&mut bytes.as_slice()).unwrap();
        assert_eq!((frame.kind, frame.data), (Kind::Output, vec![0, 255, 10]));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(receive(&mut [0u8, 0, 0, 0, 0].as_slice()).is_err());
        assert!(receive(&mut [4u8, 255, 255, 255, 255].as_slice()).is_err());
        assert!(receive(&mut [4u8, 2, 0, 0, 0, 1].as_slice()).is_err());
    }
}
