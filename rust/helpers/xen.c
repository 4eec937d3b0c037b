// SPDX-License-Identifier: GPL-2.0

#include <xen/xen.h>

bool xenvmc_helper_xen_domain(void)
{
	return xen_domain();
}

bool xenvmc_helper_xen_initial_domain(void)
{
	return xen_initial_domain();
}
