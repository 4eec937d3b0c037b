// SPDX-License-Identifier: GPL-2.0

#include <asm/barrier.h>

void xenvmc_helper_virt_mb(void)
{
	virt_mb();
}

u32 xenvmc_helper_virt_load_acquire(const u32 *p)
{
	return virt_load_acquire(p);
}

void xenvmc_helper_virt_store_release(u32 *p, u32 v)
{
	virt_store_release(p, v);
}
