/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of this directory share: stores in memory, blocks of one byte. */
#ifndef KVASIR_BLOB_LVOL_TEST_H
#define KVASIR_BLOB_LVOL_TEST_H

#include "blk/blk_test.h"
#include "blob/lvol/lvol.h"

#include <string.h>

#define MEM "mem:?size=64M&block_size=512&name="
#define LVOL_MEM "lvol:?bdev=mem:%3Fsize=64M%26block_size=512%26name="

/* A store on a device in memory, which lives until mem_close(). */
static inline int mem_open(struct rt_task *t, const char *uri, unsigned flags, struct blk_dev **dev,
                    struct lvs *lvs)
{
    struct err why = {""};
    int rc = blk_open(t, uri, dev, &why);

    if (rc == 0)
        rc = lvs_open(t, uri, flags, NULL, lvs, &why);
    if (rc < 0)
        fprintf(stderr, "%s: %s\n", uri, why.text);
    return rc;
}

static inline void mem_close(struct rt_task *t, struct blk_dev *dev, struct lvs *lvs)
{
    lvs_close(t, lvs);
    blk_close(t, dev);
}

static inline int add(struct rt_task *t, struct lvs *lvs, const char *name, uint64_t len, bool thin,
               uint64_t *id)
{
    struct lvol_create_opts opts = {.name = name, .len_bytes = len, .thin = thin};

    return lvol_create(t, lvs, &opts, id, NULL);
}

static inline int fill(struct rt_task *t, struct blk_chan *chan, uint64_t lba, uint8_t byte)
{
    uint8_t block[512];

    memset(block, byte, sizeof(block));
    return blk_write(t, chan, block, lba, 1, 0);
}

/* The first byte of a block. */
static inline int first_byte(struct rt_task *t, struct blk_chan *chan, uint64_t lba)
{
    uint8_t block[512];
    int rc = blk_read(t, chan, block, lba, 1);

    return rc < 0 ? rc : block[0];
}

#endif
