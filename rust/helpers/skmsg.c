// SPDX-License-Identifier: GPL-2.0

#include <linux/skmsg.h>

bool xenvmc_helper_sk_has_psock(const struct sock *sk)
{
	return (uintptr_t)rcu_access_pointer(__sk_user_data(sk)) & SK_USER_DATA_PSOCK;
}

void xenvmc_helper_psock_set_proto(struct sk_psock *psock, struct proto *proto)
{
	psock->sk_proto = proto, psock->saved_unhash = proto->unhash, psock->saved_destroy = proto->destroy,
	psock->saved_close = proto->close, psock->psock_update_sk_prot = proto->psock_update_sk_prot;
}
