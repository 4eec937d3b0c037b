// SPDX-License-Identifier: GPL-2.0

//! Reading and writing xenstore.
//!
//! C header: [`include/xen/xenbus.h`](srctree/include/xen/xenbus.h)
//!
//! Paths are relative to our own directory `/local/domain/N`, unless they begin with a slash. All
//! functions need process context and take milliseconds. They work while a driver is being frozen
//! or restored.

use core::{
    mem::ManuallyDrop,
    ptr::NonNull, //
};
use kernel::{
    error::{
        from_err_ptr,
        to_result, //
    },
    ffi::c_char,
    prelude::*,
    str::CStr, //
};

/// Outside of any transaction.
const XBT_NIL: u32 = 0;

fn as_raw(t: u32) -> xen_sys::xenbus_transaction {
    xen_sys::xenbus_transaction { id: t }
}

/// The longest value that xenstore can have, and the longest request, in bytes.
pub const MAX_VALUE: usize = 4096;

/// Returns the value at `path`.
///
/// # Errors
///
/// `ENOENT` if there is none, `EACCES` if we may not read it, `EIO`, `ENOMEM`.
pub fn read(path: &CStr) -> Result<KVec<u8>> {
    read_bounded(path, MAX_VALUE)
}

/// Returns the value at `path`, which somebody else wrote, if it has at most `max` bytes.
///
/// # Errors
///
/// As [`read`], and `E2BIG` if the value is longer.
pub fn read_bounded(path: &CStr, max: usize) -> Result<KVec<u8>> {
    read_in(XBT_NIL, path, max)
}

fn read_in(t: u32, path: &CStr, max: usize) -> Result<KVec<u8>> {
    let mut len = 0;
    // SAFETY: The strings end in a zero byte, `len` is valid for writes.
    let value = from_err_ptr(unsafe {
        xen_sys::xenbus_read(as_raw(t), path.as_char_ptr(), c"".as_char_ptr(), &mut len)
    })?;
    let value = Allocated(NonNull::new(value.cast()).ok_or(EIO)?);
    let len = len as usize;
    if len > max {
        return Err(E2BIG);
    }
    // SAFETY: The function returned `len` bytes, which nobody else has.
    let bytes = unsafe { core::slice::from_raw_parts(value.0.as_ptr(), len) };
    let mut copy = KVec::new();
    copy.extend_from_slice(bytes, GFP_KERNEL)?;
    Ok(copy)
}

/// Writes `value` to `path`, which makes the directories on the way. They inherit the permissions
/// of the first that exists.
///
/// # Errors
///
/// `EACCES` if we may not, `ENOSPC` if a quota is used up, `E2BIG` if path and value together have
/// more than [`MAX_VALUE`] bytes, `EIO`, `ENOMEM`.
pub fn write(path: &CStr, value: &CStr) -> Result {
    write_in(XBT_NIL, path, value)
}

fn write_in(t: u32, path: &CStr, value: &CStr) -> Result {
    // Nobody else checks: a request that is too long is never answered, and the caller hangs.
    if path.to_bytes_with_nul().len() + value.to_bytes().len() > MAX_VALUE {
        return Err(E2BIG);
    }
    // SAFETY: The strings end in a zero byte.
    to_result(unsafe {
        xen_sys::xenbus_write(
            as_raw(t),
            path.as_char_ptr(),
            c"".as_char_ptr(),
            value.as_char_ptr(),
        )
    })
}

/// Removes `path` and all that is below it.
///
/// # Errors
///
/// `ENOENT` if there is none, `EACCES` if we may not, `EIO`, `ENOMEM`.
pub fn remove(path: &CStr) -> Result {
    remove_in(XBT_NIL, path)
}

fn remove_in(t: u32, path: &CStr) -> Result {
    // SAFETY: The strings end in a zero byte.
    to_result(unsafe { xen_sys::xenbus_rm(as_raw(t), path.as_char_ptr(), c"".as_char_ptr()) })
}

/// Returns the names of what is in the directory `path`.
///
/// # Errors
///
/// `ENOENT` if there is none, `EACCES` if we may not read it, `EIO`, `ENOMEM`.
pub fn directory(path: &CStr) -> Result<Directory> {
    directory_in(XBT_NIL, path)
}

fn directory_in(t: u32, path: &CStr) -> Result<Directory> {
    let mut len = 0;
    // SAFETY: The strings end in a zero byte, `len` is valid for writes.
    let names = from_err_ptr(unsafe {
        xen_sys::xenbus_directory(as_raw(t), path.as_char_ptr(), c"".as_char_ptr(), &mut len)
    })?;
    // INVARIANT: What the function returns.
    Ok(Directory {
        names: Allocated(NonNull::new(names.cast()).ok_or(EIO)?),
        len: len as usize,
    })
}

/// The names in a directory.
///
/// # Invariants
///
/// `names` is an array of `len` pointers to strings that are part of the same allocation.
pub struct Directory {
    names: Allocated,
    len: usize,
}

impl Directory {
    /// Returns the number of names.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns whether the directory is empty.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the names.
    pub fn iter(&self) -> impl Iterator<Item = &CStr> {
        (0..self.len).map(|index| {
            // SAFETY: By the type invariant there are `len` pointers to strings, which live as long
            // as `self`.
            unsafe {
                CStr::from_char_ptr(*self.names.0.as_ptr().cast::<*const c_char>().add(index))
            }
        })
    }
}

/// Reads and writes that take effect all at once, or not at all: dropping it without
/// [`Transaction::commit`] ends it without effect. Our own suspend waits for it, so it is short.
///
/// # Invariants
///
/// `id` is an open transaction.
pub struct Transaction {
    id: u32,
}

impl Transaction {
    /// Begins.
    ///
    /// # Errors
    ///
    /// `EBUSY` if our quota of transactions is used up, `EIO`, `ENOMEM`.
    pub fn begin() -> Result<Self> {
        let mut t = as_raw(XBT_NIL);
        // SAFETY: `t` is valid for writes.
        to_result(unsafe { xen_sys::xenbus_transaction_start(&mut t) })?;
        // INVARIANT: Started above.
        Ok(Self { id: t.id })
    }

    /// As [`read_bounded`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn read_bounded(&self, path: &CStr, max: usize) -> Result<KVec<u8>> {
        read_in(self.id, path, max)
    }

    /// As [`write()`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn write(&self, path: &CStr, value: &CStr) -> Result {
        write_in(self.id, path, value)
    }

    /// As [`remove`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn remove(&self, path: &CStr) -> Result {
        remove_in(self.id, path)
    }

    /// As [`directory`].
    ///
    /// # Errors
    ///
    /// The same.
    pub fn directory(&self, path: &CStr) -> Result<Directory> {
        directory_in(self.id, path)
    }

    /// Ends it with effect.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if somebody changed in the meantime what was read or written here: nothing took
    /// effect, begin again. `EIO`, `ENOMEM`.
    pub fn commit(self) -> Result {
        let this = ManuallyDrop::new(self);
        // SAFETY: By the type invariant the transaction is open; it is not used after this.
        to_result(unsafe { xen_sys::xenbus_transaction_end(as_raw(this.id), false) })
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        // SAFETY: By the type invariant the transaction is open; it is not used after this.
        unsafe { xen_sys::xenbus_transaction_end(as_raw(self.id), true) };
    }
}

/// Something that the kernel allocated for us.
///
/// # Invariants
///
/// `0` came from `kmalloc` and is ours.
struct Allocated(NonNull<u8>);

impl Drop for Allocated {
    fn drop(&mut self) {
        // SAFETY: By the type invariant.
        unsafe { xen_sys::kfree(self.0.as_ptr().cast()) };
    }
}
