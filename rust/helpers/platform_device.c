// SPDX-License-Identifier: GPL-2.0

#include <linux/platform_device.h>

int xenvmc_helper_platform_driver_register(struct platform_driver *drv)
{
	return platform_driver_register(drv);
}

struct platform_device *xenvmc_helper_platform_device_register_simple(const char *name)
{
	return platform_device_register_simple(name, PLATFORM_DEVID_NONE, NULL, 0);
}
