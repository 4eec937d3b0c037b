// SPDX-License-Identifier: GPL-2.0
/* The C helpers of the crate net_sys. Sorted alphabetically. */

#include "helpers.h"

#include "sock.c"
