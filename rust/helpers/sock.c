// SPDX-License-Identifier: GPL-2.0

#include <net/sock.h>

void xenvmc_helper_lock_sock(struct sock *sk)
{
	lock_sock(sk);
}
