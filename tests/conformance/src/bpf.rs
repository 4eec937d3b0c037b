// SPDX-License-Identifier: GPL-2.0

//! bpf(2), as far as sockets are concerned.

use std::os::fd::RawFd;

use nix::errno::Errno;

const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const MAP_TYPE_SOCKMAP: u32 = 15;
const PROG_LOAD: i32 = 5;
const PROG_ATTACH: i32 = 8;
const PROG_TYPE_SOCKET_FILTER: u32 = 1;
const PROG_TYPE_SK_SKB: u32 = 14;
const SK_SKB_VERDICT: u32 = 38;

/// What PROG_LOAD is passed, up to what is needed.
#[repr(C)]
struct Load {
    program_type: u32,
    instructions: u32,
    code: u64,
    licence: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
}

/// What MAP_CREATE is passed.
#[repr(C)]
struct Create {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
}

/// What calls for an element are passed.
#[repr(C)]
struct Element {
    map: u64,
    key: u64,
    value: u64,
    flags: u64,
}

/// What PROG_ATTACH is passed.
#[repr(C)]
struct Attach {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

/// A map of sockets, with room for two.
///
/// # Panics
///
/// The kernel has none.
pub(crate) fn sockmap() -> RawFd {
    let create = Create {
        map_type: MAP_TYPE_SOCKMAP,
        key_size: 4,
        value_size: 4,
        max_entries: 2,
        flags: 0,
    };
    bpf(MAP_CREATE, &create).expect("a sockmap") as RawFd
}

/// Puts a socket into a place of a map.
pub(crate) fn put_at(map: RawFd, key: u32, fd: RawFd) -> Result<(), Errno> {
    let value = fd as u32;
    let element = Element {
        map: map as u64,
        key: (&raw const key).addr() as u64,
        value: (&raw const value).addr() as u64,
        flags: 0,
    };
    bpf(MAP_UPDATE_ELEM, &element).map(drop)
}

/// Takes out what is in the first place.
pub(crate) fn take_out(map: RawFd) -> Result<(), Errno> {
    take_out_at(map, 0)
}

/// Takes out what is in a place.
pub(crate) fn take_out_at(map: RawFd, key: u32) -> Result<(), Errno> {
    let element = Element {
        map: map as u64,
        key: (&raw const key).addr() as u64,
        value: 0,
        flags: 0,
    };
    bpf(MAP_DELETE_ELEM, &element).map(drop)
}

/// A program that returns the same for whatever packet.
pub(crate) fn always(value: i32) -> Result<RawFd, Errno> {
    // r0 = value; exit (RFC 9669, section 4).
    let code = [instruction(0xb7, 0, value), instruction(0x95, 0, 0)];
    load(PROG_TYPE_SOCKET_FILTER, &code)
}

/// Lets what comes to the sockets that are put into the map from now on be sent by the socket in its first place.
///
/// # Panics
///
/// The kernel runs no programs for such maps.
pub(crate) fn redirect(map: RawFd) {
    const REDIRECT_MAP: i32 = 52;
    const OF_A_MAP: u64 = 1 << 12;
    // r1 is the packet; r2 = map, r3 = place, r4 = flags; call; exit.
    let code = [
        instruction(0x18, 2, map) | OF_A_MAP,
        0,
        instruction(0xb7, 3, 0),
        instruction(0xb7, 4, 0),
        instruction(0x85, 0, REDIRECT_MAP),
        instruction(0x95, 0, 0),
    ];
    let attach = Attach {
        target: map as u32,
        program: load(PROG_TYPE_SK_SKB, &code).expect("a program") as u32,
        kind: SK_SKB_VERDICT,
        flags: 0,
    };
    bpf(PROG_ATTACH, &attach).expect("a map that has programs");
}

/// An instruction with a code, a register that it sets, and a number.
fn instruction(code: u8, to: u8, number: i32) -> u64 {
    (u64::from(number as u32) << 32) | (u64::from(to) << 8) | u64::from(code)
}

fn load(program_type: u32, code: &[u64]) -> Result<RawFd, Errno> {
    let load = Load {
        program_type,
        instructions: code.len() as u32,
        code: code.as_ptr().addr() as u64,
        licence: c"GPL".to_bytes_with_nul().as_ptr().addr() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
    };
    bpf(PROG_LOAD, &load).map(|fd| fd as RawFd)
}

fn bpf<T>(command: i32, attributes: &T) -> Result<i64, Errno> {
    // SAFETY: The attributes are valid for reads of their size, and what they point to outlives the call.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            &raw const *attributes,
            size_of::<T>(),
        )
    })
}
