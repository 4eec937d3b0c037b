// SPDX-License-Identifier: GPL-2.0

#include <linux/sched.h>
#include <linux/sched/signal.h>

bool xenvmc_helper_current_is_wanted(void)
{
	return need_resched() || signal_pending(current);
}
