// SPDX-License-Identifier: GPL-2.0

#include <linux/sched/signal.h>

void xenvmc_helper_restart_current_syscall(void)
{
	set_thread_flag(TIF_NOTIFY_SIGNAL);
}

bool xenvmc_helper_current_is_user(void)
{
	return !(current->flags & (PF_KTHREAD | PF_USER_WORKER));
}
