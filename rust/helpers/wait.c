// SPDX-License-Identifier: GPL-2.0

#include <linux/wait.h>

unsigned long xenvmc_helper_wait_queue_lock(wait_queue_head_t *queue)
{
	unsigned long flags;

	spin_lock_irqsave(&queue->lock, flags);
	return flags;
}

void xenvmc_helper_wait_queue_unlock(wait_queue_head_t *queue, unsigned long flags)
{
	spin_unlock_irqrestore(&queue->lock, flags);
}
