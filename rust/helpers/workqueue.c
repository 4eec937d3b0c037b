// SPDX-License-Identifier: GPL-2.0

#include <linux/jiffies.h>
#include <linux/workqueue.h>

bool xenvmc_helper_delayed_work_is_later(const struct delayed_work *dwork, unsigned long delay)
{
	return timer_pending(&dwork->timer) && time_after(READ_ONCE(dwork->timer.expires), jiffies + delay);
}
