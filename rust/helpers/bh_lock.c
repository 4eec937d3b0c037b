// SPDX-License-Identifier: GPL-2.0

#include <linux/spinlock.h>

void xenvmc_helper_spin_lock_bh(spinlock_t *lock)
{
	spin_lock_bh(lock);
}

int xenvmc_helper_spin_trylock_bh(spinlock_t *lock)
{
	return spin_trylock_bh(lock);
}

void xenvmc_helper_spin_unlock_bh(spinlock_t *lock)
{
	spin_unlock_bh(lock);
}

void xenvmc_helper_spin_lock_init(spinlock_t *lock, const char *name, struct lock_class_key *key)
{
#ifdef CONFIG_DEBUG_SPINLOCK
	__raw_spin_lock_init(spinlock_check(lock), name, key, LD_WAIT_CONFIG);
#else
	spin_lock_init(lock);
#endif
}

void xenvmc_helper_lockdep_assert_held(spinlock_t *lock)
{
	lockdep_assert_held(lock);
}
