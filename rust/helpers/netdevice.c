// SPDX-License-Identifier: GPL-2.0

#include <linux/inetdevice.h>
#include <linux/netdevice.h>
#include <net/addrconf.h>

struct net_device *xenvmc_helper_first_net_device(struct net *net)
{
	return first_net_device(net);
}

struct net_device *xenvmc_helper_next_net_device(struct net_device *dev)
{
	return next_net_device(dev);
}

bool xenvmc_helper_net_device_is_netfront(const struct net_device *dev)
{
	const struct device_driver *driver = dev->dev.parent ? READ_ONCE(dev->dev.parent->driver) : NULL;

	return driver && !strcmp(driver->name, "vif");
}

bool xenvmc_helper_net_device_has_xdp(struct net_device *dev)
{
	return dev_xdp_prog_count(dev);
}

struct in_ifaddr *xenvmc_helper_first_ipv4_address(const struct net_device *dev)
{
	return __in_dev_get_rtnl(dev) ? rtnl_dereference(__in_dev_get_rtnl(dev)->ifa_list) : NULL;
}

struct in_ifaddr *xenvmc_helper_next_ipv4_address(const struct in_ifaddr *ifa)
{
	return rtnl_dereference(ifa->ifa_next);
}

struct inet6_ifaddr *xenvmc_helper_first_ipv6_address(const struct net_device *dev)
{
	return __in6_dev_get(dev) ?
		       list_first_entry_or_null(&__in6_dev_get(dev)->addr_list, struct inet6_ifaddr, if_list) :
		       NULL;
}

struct inet6_ifaddr *xenvmc_helper_next_ipv6_address(const struct net_device *dev, struct inet6_ifaddr *ifa)
{
	return list_is_last(&ifa->if_list, &__in6_dev_get(dev)->addr_list) ? NULL : list_next_entry(ifa, if_list);
}
