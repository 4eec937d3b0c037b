// SPDX-License-Identifier: GPL-2.0

//! Reading and writing xenstore.
//!
//! C header: [`include/xen/xenbus.h`](srctree/include/xen/xenbus.h)
//!
//! Paths are relative to our own directory `/local/domain/N`, unless they begin with a slash. All
//! functions need process context and take milliseconds. They work while a driver is being frozen
//! or restored.

use core::ptr::NonNull;
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
const XBT_NIL: xen_sys::xenbus_transaction = xen_sys::xenbus_transaction { id: 0 };

/// The longest value that xenstore can have, in bytes.
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
    let mut len = 0;
    // SAFETY: The strings end in a zero byte, `len` is valid for writes.
    let value = from_err_ptr(unsafe {
        xen_sys::xenbus_read(XBT_NIL, path.as_char_ptr(), c"".as_char_ptr(), &mut len)
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
/// `EACCES` if we may not, `ENOSPC` if a quota is used up, `EIO`, `ENOMEM`.
pub fn write(path: &CStr, value: &CStr) -> Result {
    // SAFETY: The strings end in a zero byte.
    to_result(unsafe {
        xen_sys::xenbus_write(
            XBT_NIL,
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
    // SAFETY: The strings end in a zero byte.
    to_result(unsafe { xen_sys::xenbus_rm(XBT_NIL, path.as_char_ptr(), c"".as_char_ptr()) })
}

/// Returns the names of what is in the directory `path`.
///
/// # Errors
///
/// `ENOENT` if there is none, `EACCES` if we may not read it, `EIO`, `ENOMEM`.
pub fn directory(path: &CStr) -> Result<Directory> {
    let mut len = 0;
    // SAFETY: The strings end in a zero byte, `len` is valid for writes.
    let names = from_err_ptr(unsafe {
        xen_sys::xenbus_directory(XBT_NIL, path.as_char_ptr(), c"".as_char_ptr(), &mut len)
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
