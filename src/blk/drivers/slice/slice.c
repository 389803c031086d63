/* SPDX-License-Identifier: Apache-2.0 */
/* A part of another device. The smallest filter: read it first. */
#include "blk/filter.h"

struct slice_dev {
    struct blk_filter f; /* first */
    uint64_t first;      /* block of the base where it begins */
    uint64_t nblocks;    /* 0: to the end of the base, wherever that is */
};

static const struct param slice_params[] = {
    {"base", PARAM_STR, NULL, true, "URI of the other device, percent-encoded"},
    {"offset", PARAM_SIZE, "0", false, "where the part begins, in bytes"},
    {"length", PARAM_SIZE, NULL, false, "its length in bytes; to the end when absent"},
    {.name = NULL},
};

static void slice_resized(struct blk_filter *f, uint64_t base_nblocks)
{
    struct slice_dev *s = container_of(f, struct slice_dev, f);

    if (s->nblocks == 0 && base_nblocks > s->first)
        blk_resized(f->dev, base_nblocks - s->first);
}

static int slice_place(struct slice_dev *s, const struct param_values *params,
                       struct blk_info *info, struct err *why)
{
    uint64_t offset = param_u64(params, "offset");
    uint64_t length = param_given(params, "length") ? param_u64(params, "length") : 0;

    if (offset % info->block_bytes != 0 || length % info->block_bytes != 0)
        return err_set(why, -EINVAL, "slice: offset and length have to be multiples of %u",
                       info->block_bytes);
    if (param_given(params, "length") && length == 0)
        return err_set(why, -EINVAL, "slice: a length of 0");
    s->first = offset / info->block_bytes;
    s->nblocks = length / info->block_bytes;
    if (s->first >= info->nblocks || s->nblocks > info->nblocks - s->first)
        return err_set(why, -ERANGE, "slice: reaches past the end of %s (%llu bytes)",
                       blk_uri(s->f.base), (unsigned long long)info->nblocks * info->block_bytes);
    info->nblocks = s->nblocks != 0 ? s->nblocks : info->nblocks - s->first;
    return 0;
}

static int slice_open(struct rt_task *t, struct blk_dev *dev, const char *path,
                      const struct param_values *params, struct blk_info *info, struct err *why)
{
    struct slice_dev *s = blk_driver_dev(dev);
    int rc;

    s->f.resized = slice_resized;
    rc = blk_filter_open(t, dev, param_str(params, "base"), "slice", info, why);
    if (rc < 0)
        return rc;
    rc = slice_place(s, params, info, why);
    if (rc < 0)
        blk_filter_close(t, dev);
    return rc;
}

static void slice_submit(struct blk_chan *chan, struct blk_req *req)
{
    const struct slice_dev *s = blk_driver_dev(blk_chan_dev(chan));

    blk_filter_prepare(req)->lba += s->first;
    blk_filter_pass(chan, req);
}

const struct blk_driver blk_slice_driver = {
    .name = "slice",
    .help = "a part of another device",
    .params = slice_params,
    .dev_bytes = sizeof(struct slice_dev),
    .chan_bytes = sizeof(struct blk_filter_chan),
    .open = slice_open,
    .close = blk_filter_close,
    .chan_open = blk_filter_chan_open,
    .chan_close = blk_filter_chan_close,
    .submit = slice_submit,
    .cancel = blk_filter_cancel,
};
