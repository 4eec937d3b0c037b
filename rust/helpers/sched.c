// SPDX-License-Identifier: GPL-2.0

#include <linux/sched.h>
#include <linux/sched/signal.h>

bool xenvmc_helper_current_is_wanted(void)
{
	return need_resched() || signal_pending(current);
}

unsigned int xenvmc_helper_number_of_cpu(void)
{
	return raw_smp_processor_id();
}

bool xenvmc_helper_is_in_ordinary_task(void)
{
	return preemptible() && in_task() && !in_softirq() && !(current->flags & (PF_KTHREAD | PF_USER_WORKER));
}
