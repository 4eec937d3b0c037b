// SPDX-License-Identifier: GPL-2.0

//! The lab's agent: one in Dom0 and one in each guest, started and restarted by init.

mod command;
mod file;
mod relay;

use std::{
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use lab_agent::wire::{self, Envelope, Kind, Outcome, Request};

/// A client that does not say what it wants within this time is dropped.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

fn main() -> Result<()> {
    // Whatever eats the memory, it is not the agent that pays. Commands set it back to 0.
    let _ = std::fs::write("/proc/self/oom_score_adj", "-1000");
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, wire::PORT))
        .or_else(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, wire::PORT)))
        .context("listen")?;
    loop {
        match listener.accept() {
            Ok((client, _)) => {
                let spawned = thread::Builder::new().spawn(move || serve(client));
                if let Err(error) = spawned {
                    eprintln!("lab-agent: thread: {error}");
                }
            }
            Err(error) => {
                eprintln!("lab-agent: accept: {error}");
                thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

fn serve(mut client: TcpStream) {
    let _ = client.set_nodelay(true);
    if let Err(error) = answer(&mut client) {
        // The client may be gone, which is then why there is an error.
        let _ = wire::send(&mut client, Kind::Failed, format!("{error:#}").as_bytes());
    }
}

fn answer(client: &mut TcpStream) -> Result<()> {
    client.set_read_timeout(Some(REQUEST_TIMEOUT))?;
    let frame = wire::receive(client).context("request")?;
    client.set_read_timeout(None)?;
    if frame.kind != Kind::Request {
        bail!("a request was expected, not {:?}", frame.kind);
    }
    let envelope: Envelope = serde_json::from_slice(&frame.data).context("request")?;
    if let Some(agent) = envelope.relay {
        return relay::relay(client, agent, envelope.request);
    }
    match envelope.request {
        Request::Ping => Ok(wire::send_json(client, Kind::Done, &Outcome::default())?),
        Request::Exec {
            argv,
            timeout_ms,
            stdin,
        } => command::run(client, &argv, timeout_ms.map(Duration::from_millis), stdin),
        Request::Push { path, mode } => file::push(client, path.as_ref(), mode),
        Request::Pull { path } => file::pull(client, path.as_ref()),
    }
}
