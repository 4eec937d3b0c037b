// SPDX-License-Identifier: GPL-2.0

#include <linux/kthread.h>
#include <linux/sched.h>
#include <linux/sched/stat.h>

struct task_struct *xenvmc_helper_kthread_create(int (*function)(void *), void *data, unsigned int number)
{
	return kthread_create(function, data, "xenvmc/%u", number);
}

void xenvmc_helper_set_current_interruptible(void)
{
	set_current_state(TASK_INTERRUPTIBLE);
}

void xenvmc_helper_set_current_running(void)
{
	__set_current_state(TASK_RUNNING);
}

bool xenvmc_helper_is_processor_wanted(void)
{
	return need_resched() || !single_task_running();
}

void xenvmc_helper_relax_processor(void)
{
	cpu_relax();
}
