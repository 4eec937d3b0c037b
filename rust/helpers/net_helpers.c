// SPDX-License-Identifier: GPL-2.0
/* The C helpers of the crate net_sys. Sorted alphabetically. */

#include "helpers.h"

#include "bh_lock.c"
#include "bpf_cgroup.c"
#include "file.c"
#include "inet_hashtables.c"
#include "netdevice.c"
#include "netfilter.c"
#include "sched.c"
#include "signal.c"
#include "skbuff.c"
#include "skmsg.c"
#include "sock.c"
#include "tcp.c"
#include "tracepoint.c"
#include "udp.c"
#include "wait.c"
