/* SPDX-License-Identifier: Apache-2.0 */
/* Block devices, synchronous: each call is one task on the library's reactor. */
#include "capi/capi.h"

#define PIECE_BLOCKS (1u << 20) /* of one request: nblocks has 32 bits */

static_assert(KVASIR_BLK_READ_ONLY == BLK_CAP_READ_ONLY, "capabilities are the same bits");
static_assert(KVASIR_BLK_VOLATILE_CACHE == BLK_CAP_VOLATILE_CACHE,
              "capabilities are the same bits");
static_assert(KVASIR_FUA == BLK_F_FUA, "flags are the same bits");
static_assert(KVASIR_UNMAP == BLK_F_UNMAP, "flags are the same bits");

int capi_blk_open(struct rt_task *t, const char *uri, struct kvasir_blk *blk, struct err *why)
{
    int rc = blk_open(t, uri, &blk->dev, why);

    if (rc < 0)
        return rc;
    rc = blk_chan_get(t, blk->dev, &blk->chan);
    if (rc < 0) {
        blk_close(t, blk->dev);
        return err_set(why, rc, "%.200s: %s", uri, err_str(rc));
    }
    blk->block_shift = (uint32_t)__builtin_ctz(blk_info(blk->dev)->block_bytes);
    return 0;
}

void capi_blk_close(struct rt_task *t, struct kvasir_blk *blk)
{
    blk_chan_put(t, blk->chan);
    blk_close(t, blk->dev);
}

int capi_blocks(const struct kvasir_blk *blk, uint64_t off, uint64_t len, uint64_t *out_lba,
                uint64_t *out_nblocks)
{
    uint64_t mask = (1ull << blk->block_shift) - 1;

    if (((off | len) & mask) != 0)
        return -EINVAL;
    *out_lba = off >> blk->block_shift;
    *out_nblocks = len >> blk->block_shift;
    return 0;
}

struct open_call {
    const char *uri;
    struct kvasir_blk *blk;
    struct err why;
};

static int open_task(struct rt_task *t, void *arg)
{
    struct open_call *c = arg;

    return capi_blk_open(t, c->uri, c->blk, &c->why);
}

int kvasir_open_blk(const char *uri, struct kvasir_blk **out_blk)
{
    struct open_call c = {.uri = uri};
    int rc = capi_enter();

    if (rc < 0)
        return rc;
    c.blk = calloc(1, sizeof(*c.blk));
    rc = c.blk == NULL ? -ENOMEM : capi_call(open_task, &c);
    if (rc < 0) {
        free(c.blk);
        capi_leave();
        return capi_fail(rc, c.why.text);
    }
    *out_blk = c.blk;
    return 0;
}

static int close_task(struct rt_task *t, void *arg)
{
    capi_blk_close(t, arg);
    return 0;
}

int kvasir_close_blk(struct kvasir_blk *blk)
{
    int rc;

    if (blk == NULL)
        return 0;
    if (blk->loop != NULL)
        return capi_fail(-EINVAL, "the device was opened for an event loop");
    rc = capi_call(close_task, blk);
    if (rc < 0)
        return capi_fail(rc, NULL);
    free(blk);
    capi_leave();
    return 0;
}

void kvasir_blk_info(const struct kvasir_blk *blk, struct kvasir_blk_info *out_info)
{
    const struct blk_info *i = blk_info(blk->dev);

    *out_info = (struct kvasir_blk_info){
        .block_bytes = i->block_bytes,
        .nblocks = __atomic_load_n(&i->nblocks, __ATOMIC_RELAXED),
        .caps = i->caps & (KVASIR_BLK_READ_ONLY | KVASIR_BLK_VOLATILE_CACHE),
    };
    memcpy(out_info->uuid, i->uuid, sizeof(out_info->uuid));
}

/* --- requests --------------------------------------------------------------------------------- */

struct range_call {
    struct kvasir_blk *blk;
    uint8_t *buf;
    uint64_t lba, nblocks;
    unsigned flags;
};

static int run(rt_task_fn fn, struct range_call *c, uint64_t off, uint64_t len)
{
    int rc;

    if (c->blk->loop != NULL)
        return capi_fail(-EINVAL, "the device was opened for an event loop");
    if (capi_blocks(c->blk, off, len, &c->lba, &c->nblocks) < 0)
        return capi_fail(-EINVAL, "offset and length have to be multiples of the block size");
    rc = capi_call(fn, c);
    return rc < 0 ? capi_fail(rc, NULL) : 0;
}

/* Goes on to the next piece. */
static void advance(struct range_call *c, uint32_t n)
{
    c->buf += (size_t)n << c->blk->block_shift;
    c->lba += n;
    c->nblocks -= n;
}

static int read_task(struct rt_task *t, void *arg)
{
    struct range_call *c = arg;

    while (c->nblocks > 0) {
        uint32_t n = (uint32_t)MIN(c->nblocks, (uint64_t)PIECE_BLOCKS);
        int rc = blk_read(t, c->blk->chan, c->buf, c->lba, n);

        if (rc < 0)
            return rc;
        advance(c, n);
    }
    return 0;
}

static int write_task(struct rt_task *t, void *arg)
{
    struct range_call *c = arg;

    while (c->nblocks > 0) {
        uint32_t n = (uint32_t)MIN(c->nblocks, (uint64_t)PIECE_BLOCKS);
        int rc = blk_write(t, c->blk->chan, c->buf, c->lba, n, c->flags);

        if (rc < 0)
            return rc;
        advance(c, n);
    }
    return 0;
}

static int flush_task(struct rt_task *t, void *arg)
{
    struct range_call *c = arg;

    return blk_flush(t, c->blk->chan);
}

static int zero_task(struct rt_task *t, void *arg)
{
    struct range_call *c = arg;

    return c->nblocks == 0 ? 0 : blk_zero(t, c->blk->chan, c->lba, c->nblocks, c->flags);
}

static int unmap_task(struct rt_task *t, void *arg)
{
    struct range_call *c = arg;

    return c->nblocks == 0 ? 0 : blk_unmap(t, c->blk->chan, c->lba, c->nblocks);
}

int kvasir_blk_read(struct kvasir_blk *blk, void *buf, uint64_t off, size_t len)
{
    struct range_call c = {.blk = blk, .buf = buf};

    return run(read_task, &c, off, len);
}

int kvasir_blk_write(struct kvasir_blk *blk, const void *buf, uint64_t off, size_t len,
                     unsigned flags)
{
    struct range_call c = {.blk = blk, .buf = (uint8_t *)(uintptr_t)buf, .flags = flags};

    if ((flags & ~KVASIR_FUA) != 0)
        return capi_fail(-EINVAL, NULL);
    return run(write_task, &c, off, len);
}

int kvasir_blk_flush(struct kvasir_blk *blk)
{
    struct range_call c = {.blk = blk};

    return run(flush_task, &c, 0, 0);
}

int kvasir_blk_zero(struct kvasir_blk *blk, uint64_t off, uint64_t len, unsigned flags)
{
    struct range_call c = {.blk = blk, .flags = flags};

    if ((flags & ~(KVASIR_FUA | KVASIR_UNMAP)) != 0)
        return capi_fail(-EINVAL, NULL);
    return run(zero_task, &c, off, len);
}

int kvasir_blk_unmap(struct kvasir_blk *blk, uint64_t off, uint64_t len)
{
    struct range_call c = {.blk = blk};

    return run(unmap_task, &c, off, len);
}
