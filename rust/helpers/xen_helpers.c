// SPDX-License-Identifier: GPL-2.0
/* The C helpers of the crate xen_sys. Sorted alphabetically. */

#include "helpers.h"

#include "barrier.c"
#include "grant_table.c"
#include "hypercall.c"
#include "irqreturn.c"
#include "kernel_stat.c"
#include "kthread.c"
#include "mm.c"
#include "page.c"
#include "platform_device.c"
#include "string.c"
#include "workqueue.c"
#include "xen.c"
