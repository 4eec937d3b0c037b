// SPDX-License-Identifier: GPL-2.0

#include <linux/jiffies.h>
#include <linux/kernel_stat.h>

u64 xenvmc_helper_stolen_ns(void)
{
	return kcpustat_cpu(raw_smp_processor_id()).cpustat[CPUTIME_STEAL];
}

s64 xenvmc_helper_now_ms(void)
{
	return jiffies64_to_msecs(get_jiffies_64());
}
