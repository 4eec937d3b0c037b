/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Static inline functions and macros cannot be called from Rust. Each file here wraps what one C header has of them, one
 * line a function; xen_helpers.c and net_helpers.c collect the files for the two bindings crates.
 *
 * A function `xenvmc_helper_x` is `x` in Rust.
 */
#ifndef XENVMC_HELPERS_H
#define XENVMC_HELPERS_H

#include <linux/compiler_types.h>

#endif
