/* SPDX-License-Identifier: Apache-2.0 */
/* Piece by piece, several lanes. Zeroes are written as zeroes, so that a sparse device stays so. */
#include "cli/cp.h"

#include "cli/lanes.h"

#include <string.h>

#define PIECE_BYTES (1 * MIB)

struct lane {
    uint8_t *buf;
    uint8_t *compare;
    uint64_t off; /* of the piece under way; UINT64_MAX: none */
};

struct run {
    struct cp *cp;
    struct lane *lane;
    uint64_t next; /* offset of the next piece */
    uint64_t end;
    bool saving;
};

static uint64_t low_water(const struct run *run)
{
    uint64_t low = run->next;

    for (unsigned i = 0; i < run->cp->jobs; i++)
        low = MIN(low, run->lane[i].off);
    return low;
}

static int save(struct rt_task *t, struct run *run)
{
    struct cp *cp = run->cp;
    int rc;

    if (run->saving)
        return 0;
    run->saving = true;
    cp->state.offset = low_water(run);
    rc = blk_flush(t, cp->to.blk_chan);
    if (rc < 0)
        rc = cli_fail(cp->c, rc, "cannot flush %s: %s", cp->to.uri, err_str(rc));
    if (rc == 0)
        rc = cp_state_save(t, cp);
    run->saving = false;
    return rc;
}

/* Whole blocks of a device; the piece ends at a multiple of both block sizes. */
static int read_piece(struct rt_task *t, struct cp *cp, const struct dev *d, uint8_t *buf,
                      uint64_t off, uint64_t len)
{
    uint32_t bs = blk_info(d->blk)->block_bytes;
    int rc = blk_read(t, d->blk_chan, buf, off / bs, (uint32_t)(len / bs));

    return rc < 0 && rc != -ECANCELED ? dev_blk_fail(cp->c, d, "read", off, len, rc) : rc;
}

static int write_piece(struct rt_task *t, struct cp *cp, const uint8_t *buf, uint64_t off,
                       uint64_t len)
{
    const struct dev *d = &cp->to;
    uint32_t bs = blk_info(d->blk)->block_bytes;
    int rc;

    if (bytes_are_zero(buf, len))
        rc = blk_zero(t, d->blk_chan, off / bs, len / bs, BLK_F_UNMAP);
    else
        rc = blk_write(t, d->blk_chan, buf, off / bs, (uint32_t)(len / bs), 0);
    return rc < 0 && rc != -ECANCELED ? dev_blk_fail(cp->c, d, "write", off, len, rc) : rc;
}

static int copy_piece(struct rt_task *t, struct run *run, struct lane *l, uint64_t len)
{
    struct cp *cp = run->cp;
    uint32_t to_bs = blk_info(cp->to.blk)->block_bytes;
    uint64_t padded = round_up_u64(len, to_bs);
    int rc;

    rc = read_piece(t, cp, &cp->from, l->buf, l->off, len);
    if (rc == 0 && (cp->update || padded > len))
        rc = read_piece(t, cp, &cp->to, l->compare, l->off, padded);
    if (rc < 0)
        return rc;
    memcpy(l->buf + len, l->compare + len, padded - len); /* of the last block: keeps the rest */
    if (cp->update && memcmp(l->buf, l->compare, len) == 0) {
        cp->skipped++;
        return 0;
    }
    rc = write_piece(t, cp, l->buf, l->off, padded);
    if (rc == 0 && cp->verify)
        rc = read_piece(t, cp, &cp->to, l->compare, l->off, padded);
    if (rc < 0)
        return rc;
    if (cp->verify && memcmp(l->buf, l->compare, padded) != 0)
        return cli_fail(cp->c, -EILSEQ,
                        "%s differs from %s after the copy, in the %lu bytes from byte %lu",
                        cp->to.uri, cp->from.uri, len, l->off);
    return 0;
}

static int lane_loop(struct rt_task *t, struct run *run, struct lane *l)
{
    int rc;

    while (run->next < run->end) {
        uint64_t len = MIN(PIECE_BYTES, run->end - run->next);

        l->off = run->next;
        run->next += len;
        rc = copy_piece(t, run, l, len);
        if (rc < 0)
            return rc; /* stays under way: the state must not pass it */
        l->off = UINT64_MAX;
        cli_progress_add(&run->cp->progress, len);
        if (cp_state_due(run->cp)) {
            rc = save(t, run);
            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static int lane_fn(struct rt_task *t, void *arg, unsigned idx)
{
    struct run *run = arg;
    struct lane *l = &run->lane[idx];
    int rc = -ENOMEM;

    l->buf = aligned_alloc(4096, PIECE_BYTES + 65536);
    l->compare = aligned_alloc(4096, PIECE_BYTES + 65536);
    if (l->buf != NULL && l->compare != NULL)
        rc = lane_loop(t, run, l);
    free(l->buf);
    free(l->compare);
    return rc;
}

static int check_sizes(struct cp *cp)
{
    uint64_t from = dev_blk_bytes(&cp->from), to = dev_blk_bytes(&cp->to);

    if (from > to)
        return cli_fail(cp->c, -ENOSPC, "%s has %lu bytes, %s has %lu: it does not fit",
                        cp->from.uri, from, cp->to.uri, to);
    if (cp->state.offset > from || cp->state.offset % PIECE_BYTES != 0)
        return cli_fail(cp->c, -EINVAL, "state file '%s': byte %lu is no place of this copy",
                        cp->state.path, cp->state.offset);
    return 0;
}

int cp_blocks(struct rt_task *t, struct cp *cp)
{
    CLEANUP(free_p) struct lane *lane = calloc(cp->jobs, sizeof(*lane));
    struct run run = {
        .cp = cp, .lane = lane, .next = cp->state.offset, .end = dev_blk_bytes(&cp->from)};
    int rc = check_sizes(cp);

    if (rc < 0)
        return rc;
    if (lane == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < cp->jobs; i++)
        lane[i].off = UINT64_MAX;
    cp->state.saved_ns = rt_now();
    cli_progress_start(&cp->progress, cp->c, "cp", run.end - run.next);
    rc = lanes_run(t, cp->jobs, lane_fn, &run);
    rt_task_shield(t, true);
    if (rc < 0 && cp->state.path != NULL)
        save(t, &run); /* where the next run goes on; its failure has been told */
    rt_task_shield(t, false);
    if (rc < 0)
        return rc;
    rc = blk_flush(t, cp->to.blk_chan);
    return rc < 0 ? cli_fail(cp->c, rc, "cannot flush %s: %s", cp->to.uri, err_str(rc)) : 0;
}
