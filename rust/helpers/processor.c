// SPDX-License-Identifier: GPL-2.0

#include <linux/processor.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>

void xenvmc_helper_cpu_relax(void)
{
	cpu_relax();
}

bool xenvmc_helper_current_is_wanted(void)
{
	return need_resched() || signal_pending(current);
}
