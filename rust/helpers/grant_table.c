// SPDX-License-Identifier: GPL-2.0

#include <xen/grant_table.h>

void xenvmc_helper_gnttab_set_map_op(struct gnttab_map_grant_ref *map, phys_addr_t addr,
				     u32 flags, grant_ref_t ref, domid_t domid)
{
	gnttab_set_map_op(map, addr, flags, ref, domid);
}

void xenvmc_helper_gnttab_set_unmap_op(struct gnttab_unmap_grant_ref *unmap, phys_addr_t addr,
				       u32 flags, grant_handle_t handle)
{
	gnttab_set_unmap_op(unmap, addr, flags, handle);
}
