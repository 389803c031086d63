/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A virtual file system with what a crash leaves open.
 *
 * Each file is there twice: as programs see it, and as it is on the disk; in between lie the
 * changes of its data not yet synced. Directory changes lie in one list for the whole file system.
 * A power cut keeps of all these any part: whole writes, single sectors of 512 bytes, all, none,
 * later ones without earlier ones. A rename is kept whole or not at all. Sync of a file makes its
 * data durable, sync of a directory the changes of its entries; after a sync that failed the data
 * are still to be seen, but are lost with the next power cut, whatever later syncs say.
 */
#ifndef KVASIR_SIM_FS_H
#define KVASIR_SIM_FS_H

#include "sim/world.h"

#define SIM_SECTOR_BYTES 512u

struct sim_fs *sim_fs_new(void);
void sim_fs_free(struct sim_fs *fs);

/** Carries an operation of a program on `m` out, now; its rc. */
int sim_fs_do(struct sim_machine *m, struct rt_io *io);
/** The program hears now of a sync that has failed. */
void sim_fs_sync_told(struct sim_machine *m, const struct rt_io *io);
/** What the operation is, for the trace; valid until the next call. */
const char *sim_fs_text(const struct rt_io *io);

/** The program is gone, with its open files and locks. */
void sim_fs_killed(struct sim_fs *fs);
/** And so is what was not on the disk, or any part of it. */
void sim_fs_power_cut(struct sim_fs *fs);

/** Makes a durable file of zeroes, with the directories above it, before any program runs. */
void sim_fs_make_file(struct sim_fs *fs, const char *path, uint64_t size_bytes);
void sim_fs_make_dir(struct sim_fs *fs, const char *path);

#endif
