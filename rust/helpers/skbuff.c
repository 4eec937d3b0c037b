// SPDX-License-Identifier: GPL-2.0

#include <linux/udp.h>
#include <net/sock.h>

struct sk_buff_head *xenvmc_helper_sk_receive_queue(struct sock *sk)
{
	return &sk->sk_receive_queue;
}

struct sk_buff *xenvmc_helper_skb_peek(const struct sk_buff_head *list)
{
	return skb_peek(list);
}

struct sk_buff *xenvmc_helper_skb_peek_next(struct sk_buff *skb, const struct sk_buff_head *list)
{
	return skb_peek_next(skb, list);
}

void xenvmc_helper_skb_set_udp_headers(struct sk_buff *skb, unsigned int payload_at)
{
	skb_reset_network_header(skb);
	skb_set_transport_header(skb, payload_at - sizeof(struct udphdr));
}

void xenvmc_helper_skb_set_one_datagram(struct sk_buff *skb)
{
	skb_gso_reset(skb);
	skb->ip_summed = CHECKSUM_NONE;
}

void xenvmc_helper_skb_unlink_locked(struct sk_buff *skb, struct sk_buff_head *list)
{
	__skb_unlink(skb, list);
}

void xenvmc_helper_skb_queue_first(struct sk_buff_head *list, struct sk_buff *skb)
{
	__skb_queue_head(list, skb);
}

void xenvmc_helper___skb_queue_after(struct sk_buff_head *list, struct sk_buff *prev, struct sk_buff *skb)
{
	__skb_queue_after(list, prev, skb);
}

struct sk_buff *xenvmc_helper_alloc_skb_kernel(unsigned int size)
{
	return alloc_skb(size, GFP_KERNEL);
}

struct sk_buff *xenvmc_helper_alloc_skb_atomic(unsigned int size)
{
	return alloc_skb(size, GFP_ATOMIC);
}

int xenvmc_helper_pskb_trim(struct sk_buff *skb, unsigned int len)
{
	return pskb_trim(skb, len);
}

void xenvmc_helper_kfree_skb(struct sk_buff *skb)
{
	kfree_skb(skb);
}
