/* SPDX-License-Identifier: GPL-2.0 */
/* The headers that the crate net_sys binds. Sorted alphabetically. */

#include <linux/net.h>
#include <linux/skbuff.h>
#include <linux/socket.h>
#include <linux/tcp.h>
#include <linux/tracepoint.h>
#include <linux/uio.h>
#include <net/inet_connection_sock.h>
#include <net/inet_hashtables.h>
#include <net/inet_sock.h>
#include <net/net_namespace.h>
#include <net/sock.h>
#include <net/tcp.h>
