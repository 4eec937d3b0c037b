// SPDX-License-Identifier: GPL-2.0

//! Runs in a guest: how fast it can copy memory, and read `/dev/zero`, in pieces of one size.
//!
//! `demo-probe memcpy|zero BYTES MILLISECONDS` prints bytes per second.

use std::{
    env,
    error::Error,
    fs::File,
    hint::black_box,
    io::Read,
    time::{Duration, Instant},
};

/// Bytes moved between two looks at the clock, about.
const BATCH_BYTES: usize = 4 << 20;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [what, size, milliseconds] = arguments.as_slice() else {
        return Err("usage: demo-probe memcpy|zero BYTES MILLISECONDS".into());
    };
    let size: usize = size.parse()?;
    let time = Duration::from_millis(milliseconds.parse()?);
    let mut target = vec![1_u8; size];
    let rate = match what.as_str() {
        "memcpy" => {
            let source = vec![2_u8; size];
            measure(size, time, || {
                black_box(&mut target).copy_from_slice(black_box(&source));
                Ok(())
            })?
        }
        "zero" => {
            let mut zero = File::open("/dev/zero")?;
            measure(size, time, || Ok(zero.read_exact(&mut target)?))?
        }
        other => return Err(format!("{other}: neither memcpy nor zero").into()),
    };
    println!("{rate:.0}");
    Ok(())
}

/// Moves pieces of `size` bytes for this time; returns bytes per second.
fn measure(
    size: usize,
    time: Duration,
    mut piece: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<f64, Box<dyn Error>> {
    let batch = (BATCH_BYTES / size.max(1)).max(1);
    let (start, mut pieces) = (Instant::now(), 0_usize);
    loop {
        for _ in 0..batch {
            piece()?;
        }
        pieces += batch;
        let elapsed = start.elapsed();
        if elapsed >= time {
            return Ok((pieces * size) as f64 / elapsed.as_secs_f64());
        }
    }
}
