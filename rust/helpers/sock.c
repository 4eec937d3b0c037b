// SPDX-License-Identifier: GPL-2.0

#include <net/sock.h>

void xenvmc_helper_sock_hold(struct sock *sk)
{
	sock_hold(sk);
}

void xenvmc_helper_sock_put(struct sock *sk)
{
	sock_put(sk);
}

bool xenvmc_helper_sock_hold_not_zero(struct sock *sk)
{
	return refcount_inc_not_zero(&sk->sk_refcnt);
}

void xenvmc_helper_lock_sock(struct sock *sk)
{
	lock_sock(sk);
}

bool xenvmc_helper_try_lock_sock(struct sock *sk)
{
	bool is_free;

	spin_lock_bh(&sk->sk_lock.slock);
	is_free = !sk->sk_lock.owned;
	if (is_free)
		sk->sk_lock.owned = 1;
	spin_unlock_bh(&sk->sk_lock.slock);
	if (is_free)
		mutex_acquire(&sk->sk_lock.dep_map, 0, 1, _RET_IP_);
	return is_free;
}

bool xenvmc_helper_sock_flag(const struct sock *sk, enum sock_flags flag)
{
	return sock_flag(sk, flag);
}

int xenvmc_helper_sock_rcvlowat(const struct sock *sk, int waitall, int len)
{
	return sock_rcvlowat(sk, waitall, len);
}

bool xenvmc_helper_tcp_has_low_water(const struct sock *sk)
{
	return tcp_epollin_ready(sk, READ_ONCE(sk->sk_rcvlowat));
}

long xenvmc_helper_sock_rcvtimeo(const struct sock *sk, bool noblock)
{
	return sock_rcvtimeo(sk, noblock);
}

long xenvmc_helper_sock_sndtimeo(const struct sock *sk, bool noblock)
{
	return sock_sndtimeo(sk, noblock);
}

int xenvmc_helper_sock_intr_errno(long timeo)
{
	return sock_intr_errno(timeo);
}

wait_queue_head_t *xenvmc_helper_sk_sleep(struct sock *sk)
{
	return sk_sleep(sk);
}

bool xenvmc_helper_sk_is_watched(struct sock *sk)
{
	return skwq_has_sleeper(rcu_dereference_check(sk->sk_wq, 1)) || sock_flag(sk, SOCK_FASYNC);
}

bool xenvmc_helper_sk_lock_has_waiter(struct sock *sk)
{
	return waitqueue_active(&sk->sk_lock.wq);
}

void xenvmc_helper_sk_set_nospace(struct sock *sk)
{
	set_bit(SOCK_NOSPACE, &sk->sk_socket->flags);
	smp_mb__after_atomic(); /* before the second look for room; partners: tcp_check_space() and below */
}

bool xenvmc_helper_sk_wants_space(struct sock *sk)
{
	const struct socket *sock = READ_ONCE(sk->sk_socket);

	smp_mb(); /* behind what made room; partner: above */
	return sock && test_bit(SOCK_NOSPACE, &sock->flags);
}

void xenvmc_helper_sk_set_async_nospace(struct sock *sk)
{
	sk_set_bit(SOCKWQ_ASYNC_NOSPACE, sk);
}

void xenvmc_helper_sk_data_ready(struct sock *sk)
{
	READ_ONCE(sk->sk_data_ready)(sk);
}

void xenvmc_helper_sk_write_space(struct sock *sk)
{
	READ_ONCE(sk->sk_write_space)(sk);
}

struct socket_wq *xenvmc_helper_sk_wq(struct sock *sk)
{
	return rcu_dereference(sk->sk_wq);
}

void xenvmc_helper_wake_socket_wq(struct socket_wq *wq)
{
	wake_up_interruptible_poll(&wq->wait, EPOLLIN | EPOLLOUT);
}

bool xenvmc_helper_sk_is_kernel(const struct sock *sk)
{
	return sk->sk_kern_sock;
}

bool xenvmc_helper_sk_is_tcp_protocol(const struct sock *sk)
{
	return sk->sk_protocol == IPPROTO_TCP && sk->sk_type == SOCK_STREAM;
}

bool xenvmc_helper_sk_has_ipsec_policy(const struct sock *sk)
{
	return rcu_access_pointer(sk->sk_policy[0]) || rcu_access_pointer(sk->sk_policy[1]);
}

bool xenvmc_helper_sk_has_peek_offset(const struct sock *sk)
{
	return READ_ONCE(sk->sk_peek_off) >= 0;
}

bool xenvmc_helper_sk_has_filter(const struct sock *sk)
{
	return rcu_access_pointer(sk->sk_filter);
}

bool xenvmc_helper_sk_is_paced(const struct sock *sk)
{
	return READ_ONCE(sk->sk_max_pacing_rate) != ~0UL;
}

bool xenvmc_helper_sk_has_timestamps(const struct sock *sk)
{
	return READ_ONCE(sk->sk_tsflags) || sock_flag(sk, SOCK_RCVTSTAMP);
}

const struct net_device *xenvmc_helper_sk_route_device(struct sock *sk)
{
	return __sk_dst_get(sk) ? __sk_dst_get(sk)->dev : NULL;
}

bool xenvmc_helper_sk_rmem_schedule(struct sock *sk, struct sk_buff *skb, int size)
{
	return sk_rmem_schedule(sk, skb, size);
}

void xenvmc_helper_skb_set_owner_r(struct sk_buff *skb, struct sock *sk)
{
	skb_set_owner_r(skb, sk);
}

bool xenvmc_helper_sk_in_init_net(const struct sock *sk)
{
	return net_eq(sock_net(sk), &init_net);
}

int xenvmc_helper_sk_fixed_sndbuf(const struct sock *sk)
{
	return sk->sk_userlocks & SOCK_SNDBUF_LOCK ? READ_ONCE(sk->sk_sndbuf) : 0;
}

bool xenvmc_helper_sk_has_wspace(const struct sock *sk)
{
	return sk_stream_wspace(sk) >= sk_stream_min_wspace(sk);
}
