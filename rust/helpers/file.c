// SPDX-License-Identifier: GPL-2.0

#include <linux/fdtable.h>
#include <linux/fs.h>

bool xenvmc_helper_file_is_exclusive(struct file *file)
{
	return file && file_count(file) == 1 && atomic_read(&current->files->count) == 1;
}
