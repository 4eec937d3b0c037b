// SPDX-License-Identifier: GPL-2.0

#include <linux/netfilter.h>
#include <net/netfilter/nf_conntrack.h>

bool xenvmc_helper_skb_is_tracked_anew(const struct sk_buff *skb)
{
	return skb_nfct(skb) && !nf_ct_is_confirmed((struct nf_conn *)skb_nfct(skb));
}

int xenvmc_helper_skb_confirm(struct sk_buff *skb)
{
	const struct nf_ct_hook *hook = rcu_dereference(nf_ct_hook);

	return hook ? hook->confirm(skb) : NF_ACCEPT;
}

unsigned int xenvmc_helper_nf_drop_enobufs(void)
{
	return NF_DROP_ERR(-ENOBUFS);
}
