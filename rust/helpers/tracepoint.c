// SPDX-License-Identifier: GPL-2.0

#include <linux/tracepoint.h>

void xenvmc_helper_tracepoint_synchronize_unregister(void)
{
	tracepoint_synchronize_unregister();
}
