// SPDX-License-Identifier: GPL-2.0

#include <linux/string.h>

void xenvmc_helper_copy_bytes(void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
}
