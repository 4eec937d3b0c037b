/* SPDX-License-Identifier: GPL-2.0 */
/* The headers that the crate xen_sys binds. Sorted alphabetically. */

#include <linux/kthread.h>
#include <linux/platform_device.h>
#include <linux/sched.h>
#include <xen/events.h>
#include <xen/grant_table.h>
#include <xen/interface/event_channel.h>
#include <xen/interface/grant_table.h>
#include <xen/interface/xen.h>
#include <xen/xen.h>
#include <xen/xenbus.h>
