// SPDX-License-Identifier: GPL-2.0

#include <linux/bpf-cgroup.h>
#include <net/sock.h>

bool xenvmc_helper_sk_has_cgroup_bpf(struct sock *sk)
{
	return (cgroup_bpf_enabled(CGROUP_INET_EGRESS) && cgroup_bpf_sock_enabled(sk, CGROUP_INET_EGRESS)) ||
	       (cgroup_bpf_enabled(CGROUP_INET_INGRESS) && cgroup_bpf_sock_enabled(sk, CGROUP_INET_INGRESS));
}
