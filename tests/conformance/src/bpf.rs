// SPDX-License-Identifier: GPL-2.0

//! bpf(2), as far as sockets are concerned.

use std::os::fd::RawFd;

use nix::errno::Errno;

const MAP_CREATE: i32 = 0;
const MAP_UPDATE_ELEM: i32 = 2;
const MAP_DELETE_ELEM: i32 = 3;
const MAP_TYPE_SOCKMAP: u32 = 15;
const PROG_LOAD: i32 = 5;
const PROG_TYPE_SOCKET_FILTER: u32 = 1;

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

/// A map of one socket.
pub(crate) fn sockmap() -> Result<RawFd, Errno> {
    let create = Create {
        map_type: MAP_TYPE_SOCKMAP,
        key_size: 4,
        value_size: 4,
        max_entries: 1,
        flags: 0,
    };
    bpf(MAP_CREATE, &create).map(|fd| fd as RawFd)
}

/// Puts a socket into the map.
pub(crate) fn put(map: RawFd, fd: RawFd) -> Result<(), Errno> {
    let (key, value) = (0u32, fd as u32);
    let element = Element {
        map: map as u64,
        key: (&raw const key).addr() as u64,
        value: (&raw const value).addr() as u64,
        flags: 0,
    };
    bpf(MAP_UPDATE_ELEM, &element).map(drop)
}

/// Takes it out again.
pub(crate) fn take_out(map: RawFd) -> Result<(), Errno> {
    let key = 0u32;
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
    let code = [(u64::from(value as u32) << 32) | 0xb7, 0x95];
    let load = Load {
        program_type: PROG_TYPE_SOCKET_FILTER,
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
