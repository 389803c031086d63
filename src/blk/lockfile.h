/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVASIR_BLK_LOCKFILE_H
#define KVASIR_BLK_LOCKFILE_H

#include "rt/rt.h"

#include "base/err.h"

/**
 * Locks an open file against other users of this kind (flock): a writer against everybody, readers
 * against writers. Held until the descriptor is closed. Waits for the answer, not for the lock.
 * Returns 0, or -EBUSY with text naming the path and, if it can be found, the process that has it.
 */
int blk_file_lock(struct rt_task *t, int fd, const char *path, bool writes, struct err *why);

#endif
