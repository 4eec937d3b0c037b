// SPDX-License-Identifier: GPL-2.0

#include <asm/xen/hypercall.h>

int xenvmc_helper_HYPERVISOR_event_channel_op(int cmd, void *arg)
{
	return HYPERVISOR_event_channel_op(cmd, arg);
}
