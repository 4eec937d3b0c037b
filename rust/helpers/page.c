// SPDX-License-Identifier: GPL-2.0

#include <xen/page.h>

unsigned long xenvmc_helper_xen_page_to_gfn(struct page *page)
{
	return xen_page_to_gfn(page);
}
