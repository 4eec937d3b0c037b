// SPDX-License-Identifier: GPL-2.0

#include <linux/irqreturn.h>

irqreturn_t xenvmc_helper_irq_handled(void)
{
	return IRQ_HANDLED;
}
