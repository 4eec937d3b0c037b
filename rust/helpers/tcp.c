// SPDX-License-Identifier: GPL-2.0

#include <net/tcp.h>

u32 xenvmc_helper_tcp_write_seq(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->write_seq);
}

u32 xenvmc_helper_tcp_received_data_seq(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->rcv_nxt) - (sock_flag(sk, SOCK_DONE) ? 1 : 0);
}

static bool tcp_fin_was_read(const struct sock *sk)
{
	return sock_flag(sk, SOCK_DONE) && READ_ONCE(tcp_sk(sk)->copied_seq) == READ_ONCE(tcp_sk(sk)->rcv_nxt);
}

u32 xenvmc_helper_tcp_copied_data_seq(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->copied_seq) - tcp_fin_was_read(sk);
}

void xenvmc_helper_tcp_set_copied_seq(struct sock *sk, u32 seq)
{
	WRITE_ONCE(tcp_sk(sk)->copied_seq, seq);
}

void xenvmc_helper_tcp_discard_unread(struct sock *sk)
{
	skb_queue_purge(&sk->sk_receive_queue);
	WRITE_ONCE(tcp_sk(sk)->copied_seq, tcp_sk(sk)->rcv_nxt);
}

u32 xenvmc_helper_tcp_rcv_nxt(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->rcv_nxt);
}

u32 xenvmc_helper_tcp_received_isn(const struct sock *sk)
{
	return tcp_sk(sk)->rcv_nxt - (u32)tcp_sk(sk)->bytes_received;
}

u32 xenvmc_helper_tcp_sent_isn(const struct sock *sk)
{
	return tcp_sk(sk)->snd_una - (u32)tcp_sk(sk)->bytes_acked;
}

bool xenvmc_helper_tcp_has_stuck_tail(const struct sock *sk)
{
	const struct tcp_sock *tp = tcp_sk(sk);
	const struct sk_buff *head = tcp_send_head(sk);

	return head && !tp->packets_out && !after(TCP_SKB_CB(head)->seq + min(head->len, tp->mss_cache), tcp_wnd_end(tp));
}

bool xenvmc_helper_tcp_has_urgent_before(const struct sock *sk, u32 seq)
{
	return READ_ONCE(tcp_sk(sk)->urg_data) && before(READ_ONCE(tcp_sk(sk)->urg_seq), seq);
}

bool xenvmc_helper_tcp_has_urgent(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->urg_data);
}

bool xenvmc_helper_tcp_sends_urgent(const struct sock *sk)
{
	return tcp_sk(sk)->snd_una != tcp_sk(sk)->snd_up;
}

bool xenvmc_helper_tcp_wants_inq(const struct sock *sk)
{
	return tcp_sk(sk)->recvmsg_inq;
}

bool xenvmc_helper_tcp_is_at_urgent(const struct sock *sk)
{
	return READ_ONCE(tcp_sk(sk)->urg_data) && READ_ONCE(tcp_sk(sk)->urg_seq) == READ_ONCE(tcp_sk(sk)->copied_seq);
}

bool xenvmc_helper_tcp_is_confirmed(const struct sock *sk)
{
	/* The end that connected counts its SYN among the bytes. */
	return READ_ONCE(tcp_sk(sk)->bytes_acked) > 1 || READ_ONCE(tcp_sk(sk)->bytes_received) > 0;
}

u32 xenvmc_helper_tcp_user_timeout(const struct sock *sk)
{
	return READ_ONCE(inet_csk(sk)->icsk_user_timeout);
}

int xenvmc_helper_tcp_inq_hint(const struct sock *sk)
{
	int inq = READ_ONCE(tcp_sk(sk)->rcv_nxt) - READ_ONCE(tcp_sk(sk)->copied_seq);

	return max(inq, 0) ?: sock_flag(sk, SOCK_DONE);
}

bool xenvmc_helper_tcp_in_repair(const struct sock *sk)
{
	return tcp_sk(sk)->repair;
}

bool xenvmc_helper_tcp_has_ulp(const struct sock *sk)
{
	return inet_csk(sk)->icsk_ulp_ops;
}

bool xenvmc_helper_tcp_is_mptcp(const struct sock *sk)
{
	return sk_is_mptcp(sk);
}

bool xenvmc_helper_tcp_is_signed(const struct sock *sk)
{
	return rcu_access_pointer(tcp_sk(sk)->md5sig_info) || rcu_access_pointer(tcp_sk(sk)->ao_info);
}

bool xenvmc_helper_tcp_is_corked(const struct sock *sk)
{
	return tcp_sk(sk)->nonagle & TCP_NAGLE_CORK;
}

struct tcp_skb_cb *xenvmc_helper_tcp_skb_cb(struct sk_buff *skb)
{
	return TCP_SKB_CB(skb);
}

void xenvmc_helper_tcp_restart_backoff(struct sock *sk)
{
	struct inet_connection_sock *icsk = inet_csk(sk);

	if (!icsk->icsk_backoff || icsk->icsk_pending != ICSK_TIME_RETRANS || !tcp_sk(sk)->packets_out)
		return;
	icsk->icsk_backoff = 0;
	icsk->icsk_rto = tcp_sk(sk)->srtt_us ? __tcp_set_rto(tcp_sk(sk)) : TCP_TIMEOUT_INIT;
	inet_csk_reset_xmit_timer(sk, ICSK_TIME_RETRANS, icsk->icsk_rto, TCP_RTO_MAX);
}

void xenvmc_helper_tcp_push_pending(struct sock *sk)
{
	tcp_sk(sk)->nonagle |= TCP_NAGLE_PUSH;
}
