// SPDX-License-Identifier: GPL-2.0

//! System calls, each as it is: one call, one result, no retries, as the tests are about them.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    os::fd::RawFd,
    ptr,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use io_uring::{IoUring, opcode, types};

/// An error number.
pub(crate) type Errno = i32;

/// Most pieces that a call with a vector gets.
const PIECES: usize = 16;

/// Returns the result of a call, or the error number that it left.
pub(crate) fn check(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error().raw_os_error().unwrap_or(0))
}

fn check_int(result: i32) -> Result<i32, Errno> {
    check(result as isize).map(|_| result)
}

/// Divides `bytes` into at most [`PIECES`] pieces of `piece` bytes; the last one has the rest.
fn pieces(start: *mut u8, len: usize, piece: usize) -> Vec<libc::iovec> {
    let piece = piece.max(len.div_ceil(PIECES)).max(1);
    let part = |at: usize| libc::iovec {
        iov_base: start.wrapping_add(at).cast(),
        iov_len: piece.min(len - at),
    };
    (0..len).step_by(piece).map(part).collect()
}

fn header(pieces: &mut [libc::iovec]) -> libc::msghdr {
    // SAFETY: All fields of `msghdr` may be zero.
    let mut header: libc::msghdr = unsafe { std::mem::zeroed() };
    header.msg_iov = pieces.as_mut_ptr();
    header.msg_iovlen = pieces.len();
    header
}

/// Lets the process have as many descriptors as it may.
pub(crate) fn allow_descriptors() -> Result<(), Errno> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for writes.
    check_int(unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) })?;
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for reads.
    check_int(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) }).map(drop)
}

/// write(2).
pub(crate) fn write(fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    // SAFETY: `bytes` is valid for reads of its length.
    check(unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) })
}

/// send(2).
pub(crate) fn send(fd: RawFd, bytes: &[u8], flags: i32) -> Result<usize, Errno> {
    // SAFETY: `bytes` is valid for reads of its length.
    check(unsafe { libc::send(fd, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// writev(2) with pieces of `piece` bytes.
pub(crate) fn writev(fd: RawFd, bytes: &[u8], piece: usize) -> Result<usize, Errno> {
    let pieces = pieces(bytes.as_ptr().cast_mut(), bytes.len(), piece);
    // SAFETY: The pieces are parts of `bytes`, valid for reads, which is all that the call does.
    check(unsafe { libc::writev(fd, pieces.as_ptr(), pieces.len() as i32) })
}

/// sendmsg(2) with pieces of `piece` bytes.
pub(crate) fn sendmsg(fd: RawFd, bytes: &[u8], piece: usize, flags: i32) -> Result<usize, Errno> {
    let mut pieces = pieces(bytes.as_ptr().cast_mut(), bytes.len(), piece);
    let header = header(&mut pieces);
    // SAFETY: The header and its pieces are valid, and the call only reads.
    check(unsafe { libc::sendmsg(fd, &header, flags) })
}

/// sendmsg(2) with a control message that asks for nothing: TCP takes such a message, not the ring.
pub(crate) fn sendmsg_with_control(fd: RawFd, bytes: &[u8]) -> Result<usize, Errno> {
    const NO_STAMPS: u32 = 0;
    let mut pieces = pieces(bytes.as_ptr().cast_mut(), bytes.len(), bytes.len());
    let mut header = header(&mut pieces);
    // Aligned, and enough for a header and one number.
    let mut control = [0_u64; 4];
    header.msg_control = control.as_mut_ptr().cast();
    // SAFETY: Computes sizes only.
    header.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<u32>() as u32) } as usize;
    // SAFETY: `control` has room for the message's header and its number, and is zeroed.
    unsafe {
        let first = libc::CMSG_FIRSTHDR(&header);
        (*first).cmsg_level = libc::SOL_SOCKET;
        (*first).cmsg_type = libc::SO_TIMESTAMPING;
        (*first).cmsg_len = libc::CMSG_LEN(size_of::<u32>() as u32) as usize;
        libc::CMSG_DATA(first)
            .cast::<u32>()
            .write_unaligned(NO_STAMPS);
    }
    // SAFETY: The header, its pieces and its control message are valid, and the call only reads.
    check(unsafe { libc::sendmsg(fd, &header, 0) })
}

/// sendfile(2) of what `file` has from its beginning.
pub(crate) fn sendfile(fd: RawFd, file: RawFd, count: usize) -> Result<usize, Errno> {
    let mut offset = 0;
    // SAFETY: `offset` is valid for reads and writes.
    check(unsafe { libc::sendfile(fd, file, &mut offset, count) })
}

/// splice(2), one end of which is a pipe.
pub(crate) fn splice(from: RawFd, to: RawFd, count: usize, flags: u32) -> Result<usize, Errno> {
    // SAFETY: No memory is passed.
    check(unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), count, flags) })
}

/// read(2).
pub(crate) fn read(fd: RawFd, bytes: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: `bytes` is valid for writes of its length.
    check(unsafe { libc::read(fd, bytes.as_mut_ptr().cast(), bytes.len()) })
}

/// recv(2).
pub(crate) fn recv(fd: RawFd, bytes: &mut [u8], flags: i32) -> Result<usize, Errno> {
    // SAFETY: `bytes` is valid for writes of its length.
    check(unsafe { libc::recv(fd, bytes.as_mut_ptr().cast(), bytes.len(), flags) })
}

/// An io_uring for one operation at a time.
pub(crate) fn io_uring() -> Result<IoUring, Errno> {
    IoUring::new(1).map_err(|error| error.raw_os_error().unwrap_or(0))
}

/// recv(2) as an operation of an io_uring: what it waits for is watched as by poll, and who made it sleeps in no call on the socket.
pub(crate) fn recv_in(ring: &mut IoUring, fd: RawFd, bytes: &mut [u8]) -> Result<usize, Errno> {
    let recv = opcode::Recv::new(types::Fd(fd), bytes.as_mut_ptr(), bytes.len() as u32).build();
    // SAFETY: `bytes` is valid for writes of its length until the operation has ended, which is waited for.
    unsafe { ring.submission().push(&recv) }.map_err(|_| libc::EBUSY)?;
    loop {
        match ring.submit_and_wait(1) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            // The operation may still write to `bytes`.
            Err(error) => panic!("io_uring_enter: {error}"),
        }
        if let Some(entry) = ring.completion().next() {
            return usize::try_from(entry.result()).map_err(|_| -entry.result());
        }
    }
}

/// readv(2) with pieces of `piece` bytes.
pub(crate) fn readv(fd: RawFd, bytes: &mut [u8], piece: usize) -> Result<usize, Errno> {
    let pieces = pieces(bytes.as_mut_ptr(), bytes.len(), piece);
    // SAFETY: The pieces are parts of `bytes`, valid for writes.
    check(unsafe { libc::readv(fd, pieces.as_ptr(), pieces.len() as i32) })
}

/// recvmsg(2) with pieces of `piece` bytes.
pub(crate) fn recvmsg(
    fd: RawFd,
    bytes: &mut [u8],
    piece: usize,
    flags: i32,
) -> Result<usize, Errno> {
    let mut pieces = pieces(bytes.as_mut_ptr(), bytes.len(), piece);
    let mut header = header(&mut pieces);
    // SAFETY: The header and its pieces are valid, the pieces for writes.
    check(unsafe { libc::recvmsg(fd, &mut header, flags) })
}

/// A file in memory, for sendfile(2).
pub(crate) fn memory_file() -> Result<RawFd, Errno> {
    // SAFETY: The name is a C string.
    check_int(unsafe { libc::memfd_create(c"xenvmc-peer".to_bytes_with_nul().as_ptr().cast(), 0) })
}

/// Makes `bytes` all that `file` has.
pub(crate) fn set_content(file: RawFd, bytes: &[u8]) -> Result<(), Errno> {
    // SAFETY: No memory is passed; then `bytes` is valid for reads of its length.
    unsafe {
        check_int(libc::ftruncate(file, 0))?;
        check(libc::pwrite(file, bytes.as_ptr().cast(), bytes.len(), 0))?;
    }
    Ok(())
}

/// A pipe: the end to read from, and that to write to.
pub(crate) fn pipe() -> Result<[RawFd; 2], Errno> {
    let mut ends = [0; 2];
    // SAFETY: `ends` is valid for writes of two descriptors.
    check_int(unsafe { libc::pipe(ends.as_mut_ptr()) })?;
    Ok(ends)
}

/// close(2).
pub(crate) fn close(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: No memory is passed, and nothing in this program relies on a descriptor being open.
    check_int(unsafe { libc::close(fd) }).map(drop)
}

/// shutdown(2).
pub(crate) fn shutdown(fd: RawFd, how: i32) -> Result<(), Errno> {
    // SAFETY: No memory is passed.
    check_int(unsafe { libc::shutdown(fd, how) }).map(drop)
}

/// setsockopt(2) with a value of any plain type.
pub(crate) fn set_option<T: Copy>(fd: RawFd, level: i32, name: i32, value: T) -> Result<(), Errno> {
    let size = size_of::<T>() as libc::socklen_t;
    // SAFETY: `value` is valid for reads of its size.
    check_int(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size) })
        .map(drop)
}

/// getsockopt(2) of a number.
pub(crate) fn option(fd: RawFd, level: i32, name: i32) -> Result<i32, Errno> {
    let (mut value, mut size) = (0i32, size_of::<i32>() as libc::socklen_t);
    // SAFETY: Both are valid for writes of their sizes.
    check_int(unsafe { libc::getsockopt(fd, level, name, (&raw mut value).cast(), &mut size) })?;
    Ok(value)
}

/// Sends a byte of urgent data, which is not in the stream.
pub(crate) fn send_urgent(fd: RawFd) -> Result<(), Errno> {
    // SAFETY: one byte, which lives until the call returns.
    check(unsafe { libc::send(fd, b"!".as_ptr().cast(), 1, libc::MSG_OOB) }).map(drop)
}

/// ioctl(2) that returns a number, such as `FIONREAD`.
pub(crate) fn ioctl(fd: RawFd, request: libc::Ioctl) -> Result<i32, Errno> {
    let mut value = 0i32;
    // SAFETY: `value` is valid for writes of the number that these requests return.
    check_int(unsafe { libc::ioctl(fd, request, &raw mut value) })?;
    Ok(value)
}

/// Makes calls for `fd` return `EAGAIN` instead of waiting, or not.
pub(crate) fn set_nonblocking(fd: RawFd, on: bool) -> Result<(), Errno> {
    // SAFETY: No memory is passed.
    unsafe {
        let flags = check_int(libc::fcntl(fd, libc::F_GETFL))?;
        let flags = if on {
            flags | libc::O_NONBLOCK
        } else {
            flags & !libc::O_NONBLOCK
        };
        check_int(libc::fcntl(fd, libc::F_SETFL, flags)).map(drop)
    }
}

/// poll(2) of one descriptor; `timeout` in milliseconds, negative: for ever.
pub(crate) fn poll(fd: RawFd, events: i16, timeout: i32) -> Result<i16, Errno> {
    let mut entry = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: `entry` is valid for reads and writes.
    check_int(unsafe { libc::poll(&mut entry, 1, timeout) })?;
    Ok(entry.revents)
}

/// select(2) of one descriptor, without timeout.
pub(crate) fn select(fd: RawFd, for_write: bool) -> Result<(), Errno> {
    // SAFETY: The set is valid and `fd` is below FD_SETSIZE, as this program has few descriptors.
    unsafe {
        let mut set: libc::fd_set = std::mem::zeroed();
        libc::FD_SET(fd, &mut set);
        let (mut read, mut write): (*mut libc::fd_set, _) = (&mut set, ptr::null_mut());
        if for_write {
            std::mem::swap(&mut read, &mut write);
        }
        check_int(libc::select(
            fd + 1,
            read,
            write,
            ptr::null_mut(),
            ptr::null_mut(),
        ))
        .map(drop)
    }
}

/// An epoll instance that watches `fd` alone.
pub(crate) fn epoll(fd: RawFd, events: u32) -> Result<RawFd, Errno> {
    // SAFETY: `event` is valid for reads.
    unsafe {
        let instance = check_int(libc::epoll_create1(libc::EPOLL_CLOEXEC))?;
        let mut event = libc::epoll_event { events, u64: 0 };
        check_int(libc::epoll_ctl(
            instance,
            libc::EPOLL_CTL_ADD,
            fd,
            &mut event,
        ))?;
        Ok(instance)
    }
}

/// epoll_wait(2) for one event, without timeout. A suspend of the machine interrupts it, and no other call, with no signal.
pub(crate) fn epoll_wait(instance: RawFd) -> Result<u32, Errno> {
    let mut event = libc::epoll_event { events: 0, u64: 0 };
    loop {
        // SAFETY: `event` is valid for writes.
        match check_int(unsafe { libc::epoll_wait(instance, &mut event, 1, -1) }) {
            Ok(_) => return Ok(event.events),
            Err(libc::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// A TCP socket.
pub(crate) fn socket(address: &SocketAddr) -> Result<RawFd, Errno> {
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: No memory is passed.
    check_int(unsafe { libc::socket(family, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0) })
}

/// Calls `call` with the address as the kernel wants it.
fn with_address<R>(
    address: &SocketAddr,
    call: impl FnOnce(*const libc::sockaddr, libc::socklen_t) -> R,
) -> R {
    match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as u16,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr {
                    s_addr: u32::from(*v4.ip()).to_be(),
                },
                sin_zero: [0; 8],
            };
            call(
                (&raw const raw).cast(),
                size_of_val(&raw) as libc::socklen_t,
            )
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as u16,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: 0,
                sin6_addr: libc::in6_addr {
                    s6_addr: v6.ip().octets(),
                },
                sin6_scope_id: v6.scope_id(),
            };
            call(
                (&raw const raw).cast(),
                size_of_val(&raw) as libc::socklen_t,
            )
        }
    }
}

/// connect(2).
pub(crate) fn connect(fd: RawFd, address: &SocketAddr) -> Result<(), Errno> {
    with_address(address, |raw, size| {
        // SAFETY: `with_address` passes an address that is valid for reads of that size.
        check_int(unsafe { libc::connect(fd, raw, size) })
    })
    .map(drop)
}

/// SO_BINDTODEVICE.
pub(crate) fn bind_to_device(fd: RawFd, device: &str) -> Result<(), Errno> {
    let mut name = [0u8; libc::IFNAMSIZ];
    // The last one is zero.
    for (to, from) in name[..libc::IFNAMSIZ - 1].iter_mut().zip(device.bytes()) {
        *to = from;
    }
    set_option(fd, libc::SOL_SOCKET, libc::SO_BINDTODEVICE, name)
}

/// bind(2), with SO_REUSEADDR.
pub(crate) fn bind(fd: RawFd, address: &SocketAddr) -> Result<(), Errno> {
    set_option(fd, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1i32)?;
    with_address(address, |raw, size| {
        // SAFETY: As in `connect`.
        check_int(unsafe { libc::bind(fd, raw, size) })
    })
    .map(drop)
}

/// bind(2) and listen(2).
pub(crate) fn listen(fd: RawFd, address: &SocketAddr) -> Result<(), Errno> {
    bind(fd, address)?;
    // SAFETY: No memory is passed.
    check_int(unsafe { libc::listen(fd, 512) }).map(drop)
}

/// A socket of UDP, or of UDP-Lite, that is bound to `address`.
pub(crate) fn udp(address: &SocketAddr, is_lite: bool) -> Result<RawFd, Errno> {
    let protocol = if is_lite { libc::IPPROTO_UDPLITE } else { 0 };
    let family = if address.is_ipv4() {
        libc::AF_INET
    } else {
        libc::AF_INET6
    };
    // SAFETY: No memory is passed.
    let fd = check_int(unsafe {
        libc::socket(family, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, protocol)
    })?;
    with_address(address, |raw, size| {
        // SAFETY: As in `connect`.
        check_int(unsafe { libc::bind(fd, raw, size) })
    })?;
    Ok(fd)
}

/// Lets a socket have what is sent to a group, at the interface that has the address `at`.
pub(crate) fn join(fd: RawFd, group: Ipv4Addr, at: Ipv4Addr) -> Result<(), Errno> {
    let raw = |address: Ipv4Addr| libc::in_addr {
        s_addr: u32::from(address).to_be(),
    };
    let request = libc::ip_mreq {
        imr_multiaddr: raw(group),
        imr_interface: raw(at),
    };
    set_option(fd, libc::IPPROTO_IP, libc::IP_ADD_MEMBERSHIP, request)
}

/// Lets a socket of UDP have no datagram with more than `longest` bytes: a program for packets, which sees them from the UDP header on.
pub(crate) fn attach_filter(fd: RawFd, longest: u32) -> Result<(), Errno> {
    const LOAD_LENGTH: u16 = 0x80;
    const JUMP_IF_GREATER: u16 = 0x25;
    const RETURN: u16 = 0x06;
    const UDP_HEADER: u32 = 8;
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut steps = [
        step(LOAD_LENGTH, 0, 0, 0),
        step(JUMP_IF_GREATER, 1, 0, UDP_HEADER + longest),
        step(RETURN, 0, 0, u32::MAX),
        step(RETURN, 0, 0, 0),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // The kernel copies the steps during the call.
    set_option(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, program)
}

/// Sends a datagram: sendmsg(2), with UDP_SEGMENT in a control message if `segment` is not 0.
pub(crate) fn send_datagram(
    fd: RawFd,
    bytes: &[u8],
    to: Option<&SocketAddr>,
    segment: u16,
    now: bool,
) -> Result<usize, Errno> {
    let mut pieces = [libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    }];
    let mut header = header(&mut pieces);
    // Aligned, and enough for a header and one number.
    let mut control = [0_u64; 4];
    if segment != 0 {
        header.msg_control = control.as_mut_ptr().cast();
        // SAFETY: Computes sizes only; then `control` has room for the message's header and its number, and is zeroed.
        unsafe {
            header.msg_controllen = libc::CMSG_SPACE(size_of::<u16>() as u32) as usize;
            let first = libc::CMSG_FIRSTHDR(&header);
            (*first).cmsg_level = libc::SOL_UDP;
            (*first).cmsg_type = libc::UDP_SEGMENT;
            (*first).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as usize;
            libc::CMSG_DATA(first)
                .cast::<u16>()
                .write_unaligned(segment);
        }
    }
    let flags = if now { libc::MSG_DONTWAIT } else { 0 };
    let Some(to) = to else {
        // SAFETY: The header, its pieces and its control message are valid, and the call only reads.
        return check(unsafe { libc::sendmsg(fd, &header, flags) });
    };
    with_address(to, |raw, size| {
        header.msg_name = raw.cast_mut().cast();
        header.msg_namelen = size;
        // SAFETY: As above, and so is the address.
        check(unsafe { libc::sendmsg(fd, &header, flags) })
    })
}

/// Receives a message that may be several datagrams (UDP_GRO): its length, and that of each of them but the last, or 0 if it is one.
pub(crate) fn recv_parts(fd: RawFd, bytes: &mut [u8]) -> Result<(usize, i32), Errno> {
    let mut pieces = pieces(bytes.as_mut_ptr(), bytes.len(), bytes.len());
    let mut header = header(&mut pieces);
    // Aligned, and enough for a header and one number.
    let mut control = [0_u64; 4];
    header.msg_control = control.as_mut_ptr().cast();
    header.msg_controllen = size_of_val(&control);
    // SAFETY: The header, its pieces and the room for control messages are valid for writes; what the kernel has written there are valid headers,
    // each with its data.
    unsafe {
        let len = check(libc::recvmsg(fd, &mut header, 0))?;
        let first = libc::CMSG_FIRSTHDR(&header);
        let is_size = !first.is_null()
            && ((*first).cmsg_level, (*first).cmsg_type) == (libc::SOL_UDP, libc::UDP_GRO);
        let size = match is_size {
            true => libc::CMSG_DATA(first).cast::<i32>().read_unaligned(),
            false => 0,
        };
        Ok((len, size))
    }
}

/// Receives a datagram and sends it back to where it came from; returns its length.
pub(crate) fn echo(fd: RawFd, bytes: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: All fields may be zero, the storage holds any address, and what is passed is valid for what the calls do with it.
    unsafe {
        let mut from: libc::sockaddr_storage = std::mem::zeroed();
        let mut size = size_of_val(&from) as libc::socklen_t;
        let to = (&raw mut from).cast::<libc::sockaddr>();
        let len = check(libc::recvfrom(
            fd,
            bytes.as_mut_ptr().cast(),
            bytes.len(),
            0,
            to,
            &mut size,
        ))?;
        check(libc::sendto(fd, bytes.as_ptr().cast(), len, 0, to, size))
    }
}

/// accept(2).
pub(crate) fn accept(fd: RawFd) -> Result<RawFd, Errno> {
    // SAFETY: The kernel takes null pointers as no wish to know the address.
    check_int(unsafe { libc::accept(fd, ptr::null_mut(), ptr::null_mut()) })
}

/// The ports of a connection: this end's, the other end's.
pub(crate) fn ports(fd: RawFd) -> Result<[u16; 2], Errno> {
    let mut ports = [0; 2];
    for (port, is_peer) in ports.iter_mut().zip([false, true]) {
        // SAFETY: All fields may be zero, the storage holds any address, and both are valid for
        // writes. The port is at the same place in both families.
        unsafe {
            let mut raw: libc::sockaddr_storage = std::mem::zeroed();
            let mut size = size_of_val(&raw) as libc::socklen_t;
            let to = (&raw mut raw).cast::<libc::sockaddr>();
            let call = if is_peer {
                libc::getpeername
            } else {
                libc::getsockname
            };
            check_int(call(fd, to, &mut size))?;
            *port = u16::from_be((*to.cast::<libc::sockaddr_in>()).sin_port);
        }
    }
    Ok(ports)
}

/// The calling thread's number.
pub(crate) fn thread_id() -> i32 {
    // SAFETY: No memory is passed.
    unsafe { libc::gettid() }
}

/// Sends SIGUSR1 to a thread of this process.
pub(crate) fn interrupt(thread: i32) -> Result<(), Errno> {
    // SAFETY: No memory is passed; the handler only counts.
    let result = unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), thread, libc::SIGUSR1) };
    check(result as isize).map(drop)
}

/// Ends this process by SIGKILL.
pub(crate) fn die() {
    // SAFETY: No memory is passed.
    unsafe { libc::kill(libc::getpid(), libc::SIGKILL) };
}

static SIGNALS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

extern "C" fn count(signal: i32) {
    SIGNALS[usize::from(signal == libc::SIGPIPE)].fetch_add(1, Relaxed);
}

/// How many of SIGUSR1 and of SIGPIPE came so far.
pub(crate) fn signals() -> [u64; 2] {
    [SIGNALS[0].load(Relaxed), SIGNALS[1].load(Relaxed)]
}

/// Counts SIGUSR1 and SIGPIPE from now on; with `restart`, they restart the calls that they interrupt.
pub(crate) fn count_signals(restart: bool) -> Result<(), Errno> {
    // SAFETY: All fields may be zero, and the handler only does what a handler may.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count as *const () as usize;
        action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
        check_int(libc::sigaction(libc::SIGUSR1, &action, ptr::null_mut()))?;
        check_int(libc::sigaction(libc::SIGPIPE, &action, ptr::null_mut()))?;
    }
    Ok(())
}

/// The name of an error number that tests speak of, or the number.
pub(crate) fn name(errno: Errno) -> String {
    match errno {
        libc::EAGAIN => "EAGAIN".into(),
        libc::EBADF => "EBADF".into(),
        libc::ECONNABORTED => "ECONNABORTED".into(),
        libc::ECONNREFUSED => "ECONNREFUSED".into(),
        libc::ECONNRESET => "ECONNRESET".into(),
        libc::EHOSTUNREACH => "EHOSTUNREACH".into(),
        libc::EINPROGRESS => "EINPROGRESS".into(),
        libc::EINTR => "EINTR".into(),
        libc::EINVAL => "EINVAL".into(),
        libc::EPERM => "EPERM".into(),
        libc::EPROTONOSUPPORT => "EPROTONOSUPPORT".into(),
        libc::ENETDOWN => "ENETDOWN".into(),
        libc::ENETUNREACH => "ENETUNREACH".into(),
        libc::ENOBUFS => "ENOBUFS".into(),
        libc::EMSGSIZE => "EMSGSIZE".into(),
        libc::ENOENT => "ENOENT".into(),
        libc::ENOTCONN => "ENOTCONN".into(),
        libc::EPIPE => "EPIPE".into(),
        libc::ETIMEDOUT => "ETIMEDOUT".into(),
        other => format!("errno{other}"),
    }
}
