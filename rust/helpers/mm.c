// SPDX-License-Identifier: GPL-2.0

#include <linux/mm.h>

void *xenvmc_helper_page_address(const struct page *page)
{
	return page_address(page);
}
