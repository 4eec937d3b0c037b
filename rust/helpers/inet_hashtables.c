// SPDX-License-Identifier: GPL-2.0

#include <net/inet6_hashtables.h>
#include <net/inet_hashtables.h>

struct inet_hashinfo *xenvmc_helper_tcp_hashinfo(void)
{
	return init_net.ipv4.tcp_death_row.hashinfo;
}

u32 xenvmc_helper_ehash_buckets(const struct inet_hashinfo *hashinfo)
{
	return hashinfo->ehash_mask + 1;
}

u32 xenvmc_helper_ehash_bucket_v4(const struct inet_hashinfo *hashinfo, u32 laddr, u16 lport, u32 faddr, u16 fport)
{
	return inet_ehashfn(&init_net, (__force __be32)laddr, lport, (__force __be32)faddr, (__force __be16)fport) &
	       hashinfo->ehash_mask;
}

u32 xenvmc_helper_ehash_bucket_v6(const struct inet_hashinfo *hashinfo, const void *laddr, u16 lport,
				  const void *faddr, u16 fport)
{
	return inet6_ehashfn(&init_net, laddr, lport, faddr, (__force __be16)fport) & hashinfo->ehash_mask;
}

struct hlist_nulls_node *xenvmc_helper_ehash_first(struct inet_hashinfo *hashinfo, u32 bucket)
{
	return rcu_dereference(hlist_nulls_first_rcu(&hashinfo->ehash[bucket].chain));
}

struct hlist_nulls_node *xenvmc_helper_ehash_next(struct hlist_nulls_node *node)
{
	return rcu_dereference(hlist_nulls_next_rcu(node));
}

struct sock *xenvmc_helper_ehash_sock(struct hlist_nulls_node *node)
{
	return is_a_nulls(node) ? NULL : hlist_nulls_entry(node, struct sock, sk_nulls_node);
}

u32 xenvmc_helper_ehash_end(struct hlist_nulls_node *node)
{
	return get_nulls_value(node);
}

bool xenvmc_helper_sk_is_full(const struct sock *sk)
{
	return sk_fullsock(sk);
}
