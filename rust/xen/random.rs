// SPDX-License-Identifier: GPL-2.0

//! Random numbers.
//!
//! C header: [`include/linux/random.h`](srctree/include/linux/random.h)

/// Returns 64 random bits that nobody can guess.
pub fn u64() -> u64 {
    // SAFETY: The function has no preconditions.
    unsafe { xen_sys::get_random_u64() }
}
