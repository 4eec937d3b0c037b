// SPDX-License-Identifier: GPL-2.0

#include <linux/ip.h>
#include <linux/ipv6.h>
#include <net/dst.h>
#include <net/sock.h>
#include <net/udp.h>

bool xenvmc_helper_skb_may_be_udp(const struct sk_buff *skb)
{
	return skb->protocol == htons(ETH_P_IP) ? ip_hdr(skb)->protocol == IPPROTO_UDP :
						  ipv6_hdr(skb)->nexthdr == IPPROTO_UDP ||
							  ipv6_ext_hdr(ipv6_hdr(skb)->nexthdr);
}

bool xenvmc_helper_skb_is_of_udp_socket(const struct sk_buff *skb, const struct sock *sk)
{
	return sk && skb->sk == sk && sk_fullsock(sk) && sk_is_udp(sk);
}

struct sock *xenvmc_helper_skb_socket(const struct sk_buff *skb)
{
	return skb->sk;
}

bool xenvmc_helper_sk_is_udp(const struct sock *sk)
{
	return sk_is_udp(sk);
}

u16 xenvmc_helper_sk_local_port(const struct sock *sk)
{
	return READ_ONCE(inet_sk(sk)->inet_num);
}

bool xenvmc_helper_sk_has_nothing_to_read(const struct sock *sk)
{
	return skb_queue_empty_lockless(&sk->sk_receive_queue) && skb_queue_empty_lockless(&udp_sk(sk)->reader_queue);
}

bool xenvmc_helper_skb_is_segmented_otherwise(const struct sk_buff *skb)
{
	return skb_is_gso(skb) && skb_shinfo(skb)->gso_type != SKB_GSO_UDP_L4;
}

unsigned int xenvmc_helper_skb_segment_size(const struct sk_buff *skb)
{
	return skb_shinfo(skb)->gso_size;
}

unsigned int xenvmc_helper_skb_segments(const struct sk_buff *skb)
{
	return max_t(unsigned int, skb_shinfo(skb)->gso_segs, 1);
}

bool xenvmc_helper_skb_has_stamps(const struct sk_buff *skb)
{
	return skb_shinfo(skb)->tx_flags & SKBTX_ANY_TSTAMP;
}

bool xenvmc_helper_skb_has_departure_time(const struct sk_buff *skb)
{
	return skb->tstamp;
}

bool xenvmc_helper_skb_is_shared_memory(struct sk_buff *skb)
{
	return skb_zcopy(skb) || skb_has_shared_frag(skb);
}

bool xenvmc_helper_skb_has_transformation(const struct sk_buff *skb)
{
	return dst_xfrm(skb_dst(skb)) || (skb->protocol == htons(ETH_P_IP) ?
						  IPCB(skb)->flags & IPSKB_XFRM_TRANSFORMED :
						  IP6CB(skb)->flags & IP6SKB_XFRM_TRANSFORMED);
}

bool xenvmc_helper_sk_encapsulates(const struct sock *sk)
{
	return READ_ONCE(udp_sk(sk)->encap_type);
}

bool xenvmc_helper_skb_is_from_napi(const struct sk_buff *skb)
{
#ifdef CONFIG_NET_RX_BUSY_POLL
	return skb->napi_id;
#else
	return true;
#endif
}

bool xenvmc_helper_skb_dst_force(struct sk_buff *skb)
{
	return skb_dst_force(skb);
}

void xenvmc_helper_skb_set_device_of_route(struct sk_buff *skb)
{
	skb->dev = skb_dst_dev_rcu(skb);
}

unsigned int xenvmc_helper_skb_network_offset(const struct sk_buff *skb)
{
	return skb_network_offset(skb);
}

bool xenvmc_helper_skb_has_ethernet_header(const struct sk_buff *skb)
{
	return skb_mac_header_was_set(skb) && skb_mac_header_len(skb) == ETH_HLEN;
}

const unsigned char *xenvmc_helper_skb_ethernet_source(const struct sk_buff *skb)
{
	return eth_hdr(skb)->h_source;
}

struct sk_buff *xenvmc_helper_alloc_skb_with_frags_atomic(unsigned long head, unsigned long pages, int order)
{
	int error;

	return alloc_skb_with_frags(head, pages, order, &error, GFP_ATOMIC);
}

void xenvmc_helper_skb_reserve_headroom(struct sk_buff *skb)
{
	skb_reserve(skb, NET_SKB_PAD + NET_IP_ALIGN);
}

unsigned int xenvmc_helper_skb_headroom_wanted(void)
{
	return NET_SKB_PAD + NET_IP_ALIGN;
}

void xenvmc_helper_skb_extend(struct sk_buff *skb, unsigned int len)
{
	skb->len += len;
	skb->data_len += len;
}

unsigned int xenvmc_helper_skb_frags(const struct sk_buff *skb)
{
	return skb_shinfo(skb)->nr_frags;
}

void *xenvmc_helper_skb_frag_bytes(const struct sk_buff *skb, unsigned int i)
{
	return skb_frag_address(&skb_shinfo(skb)->frags[i]);
}

unsigned int xenvmc_helper_skb_frag_len(const struct sk_buff *skb, unsigned int i)
{
	return skb_frag_size(&skb_shinfo(skb)->frags[i]);
}

void xenvmc_helper_skb_set_udp_segments(struct sk_buff *skb, unsigned int size, unsigned int segments)
{
	skb_shinfo(skb)->gso_size = size;
	skb_shinfo(skb)->gso_segs = segments;
	skb_shinfo(skb)->gso_type = SKB_GSO_UDP_L4;
}

bool xenvmc_helper_net_device_is_running(const struct net_device *dev)
{
	return netif_running(dev);
}

const unsigned char *xenvmc_helper_net_device_address(const struct net_device *dev)
{
	return dev->dev_addr;
}

int xenvmc_helper_net_device_index(const struct net_device *dev)
{
	return dev->ifindex;
}

void xenvmc_helper_skb_set_protocol(struct sk_buff *skb, __be16 protocol)
{
	skb->protocol = protocol;
}

void xenvmc_helper_skb_list_init(struct list_head *list)
{
	INIT_LIST_HEAD(list);
}

void xenvmc_helper_skb_list_add_tail(struct sk_buff *skb, struct list_head *list)
{
	list_add_tail(&skb->list, list);
}
