// SPDX-License-Identifier: GPL-2.0
/*
 * Lets operations fail that seldom do: allocations, grants, mappings, event channels, Xenstore. Part of the modules only if they
 * are built with XENVMC_FAULTS=1, for the tests: the linker then puts the functions below in the place of the kernel's (Kbuild).
 *
 * Each module has three parameters more, which can be written while it is loaded:
 *
 *	fault_kinds	which operations count: a sum of the numbers in `enum kind`
 *	fault_nth	the n-th of them from now on fails; 0 = none. Reads as how many have come since it was written
 *	fault_every	each n-th of them fails; 0 = none
 */

#include <linux/atomic.h>
#include <linux/debugfs.h>
#include <linux/err.h>
#include <linux/inetdevice.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/netfilter.h>
#include <linux/platform_device.h>
#include <linux/skbuff.h>
#include <linux/tracepoint.h>
#include <net/addrconf.h>
#include <net/sock.h>
#include <xen/events.h>
#include <xen/grant_table.h>
#include <xen/interface/event_channel.h>
#include <xen/xen.h>
#include <xen/xenbus.h>

enum kind {
	ALLOCATION = 1,
	GRANT = 2,
	MAPPING = 4,
	EVENT_CHANNEL = 8,
	XENSTORE = 16,
	REGISTRATION = 32,
	DEBUGFS = 64,
};

static unsigned int fault_kinds = ~0u;
module_param(fault_kinds, uint, 0600);
static unsigned long fault_every;
module_param(fault_every, ulong, 0600);

static unsigned long nth;
static atomic_long_t operations;

static int set_nth(const char *value, const struct kernel_param *param)
{
	atomic_long_set(&operations, 0);
	return param_set_ulong(value, param);
}

static int get_operations(char *buffer, const struct kernel_param *param)
{
	return sprintf(buffer, "%ld\n", atomic_long_read(&operations));
}

static const struct kernel_param_ops nth_ops = { .set = set_nth, .get = get_operations };
module_param_cb(fault_nth, &nth_ops, &nth, 0600);

static noinline bool fails(enum kind kind, const char *what, void *caller)
{
	unsigned long every = READ_ONCE(fault_every), number;

	if (!(READ_ONCE(fault_kinds) & kind))
		return false;
	number = atomic_long_inc_return(&operations);
	if (number != READ_ONCE(nth) && !(every && number % every == 0))
		return false;
	printk_ratelimited(KERN_INFO "%s: fault %lu: %s in %pS fails\n", THIS_MODULE->name, number, what, caller);
	return true;
}

/* RETURN NAME(DECLARED ARGUMENTS) with the arguments PASSED fails by returning FAILURE. */
#define MAY_FAIL(kind, failure, result, name, declared, passed)                  \
	result __real_##name declared;                                            \
	result __wrap_##name declared;                                            \
	result __wrap_##name declared                                             \
	{                                                                         \
		if (fails(kind, #name, __builtin_return_address(0)))              \
			return failure;                                           \
		return __real_##name passed;                                      \
	}

MAY_FAIL(ALLOCATION, NULL, struct page *, rust_helper_alloc_pages, (gfp_t flags, unsigned int order), (flags, order))
MAY_FAIL(ALLOCATION, NULL, struct sk_buff *, __alloc_skb, (unsigned int size, gfp_t gfp, int flags, int node),
	 (size, gfp, flags, node))
MAY_FAIL(ALLOCATION, 0, int, __sk_mem_schedule, (struct sock *sk, int size, int kind), (sk, size, kind))
MAY_FAIL(ALLOCATION, -ENOMEM, int, xen_alloc_unpopulated_pages, (unsigned int count, struct page **pages), (count, pages))
MAY_FAIL(ALLOCATION, -ENOMEM, int, sock_create_kern, (struct net *net, int family, int type, int protocol, struct socket **socket),
	 (net, family, type, protocol, socket))
MAY_FAIL(ALLOCATION, ERR_PTR(-ENOMEM), struct task_struct *, xenvmc_helper_kthread_create,
	 (int (*function)(void *), void *data, unsigned int number), (function, data, number))
MAY_FAIL(GRANT, -ENOSPC, int, gnttab_grant_foreign_access, (domid_t domid, unsigned long frame, int readonly),
	 (domid, frame, readonly))
MAY_FAIL(EVENT_CHANNEL, -ENOMEM, int, bind_evtchn_to_irqhandler_lateeoi,
	 (evtchn_port_t port, irq_handler_t handler, unsigned long flags, const char *name, void *dev_id),
	 (port, handler, flags, name, dev_id))
MAY_FAIL(XENSTORE, ERR_PTR(-EIO), void *, xenbus_read,
	 (struct xenbus_transaction t, const char *dir, const char *node, unsigned int *len), (t, dir, node, len))
MAY_FAIL(XENSTORE, ERR_PTR(-EIO), char **, xenbus_directory,
	 (struct xenbus_transaction t, const char *dir, const char *node, unsigned int *num), (t, dir, node, num))
MAY_FAIL(XENSTORE, -EIO, int, xenbus_write,
	 (struct xenbus_transaction t, const char *dir, const char *node, const char *value), (t, dir, node, value))
MAY_FAIL(XENSTORE, -EIO, int, xenbus_rm, (struct xenbus_transaction t, const char *dir, const char *node), (t, dir, node))
MAY_FAIL(XENSTORE, -ENOMEM, int, register_xenbus_watch, (struct xenbus_watch *watch), (watch))
MAY_FAIL(XENSTORE, -EIO, int, xenbus_transaction_start, (struct xenbus_transaction *t), (t))
MAY_FAIL(REGISTRATION, -ENOMEM, int, register_xenstore_notifier, (struct notifier_block *block), (block))
MAY_FAIL(REGISTRATION, -ENOMEM, int, register_inetaddr_notifier, (struct notifier_block *block), (block))
MAY_FAIL(REGISTRATION, -ENOMEM, int, register_inet6addr_notifier, (struct notifier_block *block), (block))
MAY_FAIL(REGISTRATION, -ENOMEM, int, register_netdevice_notifier, (struct notifier_block *block), (block))
MAY_FAIL(REGISTRATION, -ENOMEM, int, nf_register_net_hooks, (struct net *net, const struct nf_hook_ops *ops, unsigned int count),
	 (net, ops, count))
MAY_FAIL(REGISTRATION, -ENOMEM, int, tracepoint_probe_register, (struct tracepoint *tracepoint, void *probe, void *data),
	 (tracepoint, probe, data))
MAY_FAIL(REGISTRATION, -ENOMEM, int, __platform_driver_register,
	 (struct platform_driver *driver, struct module *owner, const char *name), (driver, owner, name))
MAY_FAIL(REGISTRATION, ERR_PTR(-ENOMEM), struct platform_device *, platform_device_register_full,
	 (const struct platform_device_info *info), (info))
MAY_FAIL(DEBUGFS, ERR_PTR(-ENOMEM), struct dentry *, debugfs_create_file_full,
	 (const char *name, umode_t mode, struct dentry *parent, void *data, const void *aux, const struct file_operations *fops),
	 (name, mode, parent, data, aux, fops))

/* Also frees, which must not fail. */
void *__real_rust_helper_krealloc_node_align(const void *old, size_t size, unsigned long align, gfp_t flags, int node);
void *__wrap_rust_helper_krealloc_node_align(const void *old, size_t size, unsigned long align, gfp_t flags, int node);
void *__wrap_rust_helper_krealloc_node_align(const void *old, size_t size, unsigned long align, gfp_t flags, int node)
{
	if (size && fails(ALLOCATION, "krealloc", __builtin_return_address(0)))
		return NULL;
	return __real_rust_helper_krealloc_node_align(old, size, align, flags, node);
}

/* Says why it fails, too. */
struct sk_buff *__real_alloc_skb_with_frags(unsigned long head, unsigned long pages, int order, int *error, gfp_t gfp);
struct sk_buff *__wrap_alloc_skb_with_frags(unsigned long head, unsigned long pages, int order, int *error, gfp_t gfp);
struct sk_buff *__wrap_alloc_skb_with_frags(unsigned long head, unsigned long pages, int order, int *error, gfp_t gfp)
{
	if (!fails(ALLOCATION, "alloc_skb_with_frags", __builtin_return_address(0)))
		return __real_alloc_skb_with_frags(head, pages, order, error, gfp);
	*error = -ENOBUFS;
	return NULL;
}

/* Fails for one page of several, as it does when Xen has no room to note it. */
int __real_gnttab_map_refs(struct gnttab_map_grant_ref *ops, struct gnttab_map_grant_ref *kops, struct page **pages,
			   unsigned int count);
int __wrap_gnttab_map_refs(struct gnttab_map_grant_ref *ops, struct gnttab_map_grant_ref *kops, struct page **pages,
			   unsigned int count);
int __wrap_gnttab_map_refs(struct gnttab_map_grant_ref *ops, struct gnttab_map_grant_ref *kops, struct page **pages,
			   unsigned int count)
{
	if (!fails(MAPPING, "gnttab_map_refs", __builtin_return_address(0)))
		return __real_gnttab_map_refs(ops, kops, pages, count);
	ops[count - 1].status = GNTST_no_device_space;
	return count > 1 ? __real_gnttab_map_refs(ops, kops, pages, count - 1) : 0;
}

/* Closing a port does not fail. */
int __real_xenvmc_helper_HYPERVISOR_event_channel_op(int cmd, void *arg);
int __wrap_xenvmc_helper_HYPERVISOR_event_channel_op(int cmd, void *arg);
int __wrap_xenvmc_helper_HYPERVISOR_event_channel_op(int cmd, void *arg)
{
	if (cmd != EVTCHNOP_close && fails(EVENT_CHANNEL, "event_channel_op", __builtin_return_address(0)))
		return -ENOSPC;
	return __real_xenvmc_helper_HYPERVISOR_event_channel_op(cmd, arg);
}

/* Fails without effect. Ending a transaction without effect does not fail. */
int __real_xenbus_transaction_end(struct xenbus_transaction t, bool abort);
int __wrap_xenbus_transaction_end(struct xenbus_transaction t, bool abort);
int __wrap_xenbus_transaction_end(struct xenbus_transaction t, bool abort)
{
	if (abort || !fails(XENSTORE, "xenbus_transaction_end", __builtin_return_address(0)))
		return __real_xenbus_transaction_end(t, abort);
	__real_xenbus_transaction_end(t, true);
	return -EIO;
}
