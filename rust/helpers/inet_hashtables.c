// SPDX-License-Identifier: GPL-2.0

#include <net/inet6_hashtables.h>
#include <net/inet_hashtables.h>

struct sock *xenvmc_helper_lookup_established_v4(u32 saddr, u16 sport, u32 daddr, u16 dport)
{
	return __inet_lookup_established(&init_net, (__force __be32)saddr, (__force __be16)sport,
					 (__force __be32)daddr, dport, 0, 0);
}

struct sock *xenvmc_helper_lookup_established_v6(const void *saddr, u16 sport, const void *daddr, u16 dport)
{
	return __inet6_lookup_established(&init_net, saddr, (__force __be16)sport, daddr, dport, 0, 0);
}

bool xenvmc_helper_sk_is_full(const struct sock *sk)
{
	return sk_fullsock(sk);
}
