/* SPDX-License-Identifier: Apache-2.0 */
/* A device in memory: one anonymous mapping, shared by all reactors; a request is one memcpy. */
#include "blk/blk.h"

#include <sys/mman.h>

#define PAGE_BYTES 4096u
#define ZERO_MAX_BYTES (64 * MIB) /* at a time: zeroing more would keep the reactor too long */

struct mem_dev {
    uint8_t *data;
    uint64_t size_bytes;
    uint32_t block_shift;
    char *name; /* NULL: nobody else finds it */
};

struct mem_chan {
    uint8_t *data;
    uint32_t block_shift;
};

static const struct param mem_params[] = {
    {"size", PARAM_SIZE, "1G", false, "size of the device; memory is taken when it is written"},
    {"block_size", PARAM_SIZE, "4096", false, "512 to 65536"},
    {"name", PARAM_STR, NULL, false, "opens of the same name share one device"},
    {"prealloc", PARAM_BOOL, "no", false,
     "takes all memory at once, in huge pages if there are any"},
    {.name = NULL},
};

static int mem_same(struct blk_dev *dev, const char *path, const struct param_values *params,
                    struct err *why)
{
    const struct mem_dev *m = blk_driver_dev(dev);
    const char *name = param_str(params, "name");

    if (name == NULL || m->name == NULL || strcmp(name, m->name) != 0)
        return 0;
    if ((param_given(params, "size") && param_u64(params, "size") != m->size_bytes) ||
        (param_given(params, "block_size") &&
         param_u64(params, "block_size") != 1ull << m->block_shift))
        return err_set(why, -EINVAL, "mem device %s is open with another size: %s", name,
                       blk_uri(dev));
    return 1;
}

static void mem_abandon(struct blk_dev *dev)
{
    struct mem_dev *m = blk_driver_dev(dev);

    munmap(m->data, m->size_bytes);
    free(m->name);
}

/*
 * On the offload pool: it takes a while. Huge pages are asked for only here, for clearing one when
 * it is first written would stop a reactor for longer than many requests take.
 */
static int take_memory(void *arg)
{
    struct mem_dev *m = arg;

    madvise(m->data, m->size_bytes, MADV_HUGEPAGE);
    return madvise(m->data, m->size_bytes, MADV_POPULATE_WRITE) == 0 ? 0 : -errno;
}

static int mem_open(struct rt_task *t, struct blk_dev *dev, const char *path,
                    const struct param_values *params, struct blk_info *info, struct err *why)
{
    struct mem_dev *m = blk_driver_dev(dev);
    uint64_t block_bytes = param_u64(params, "block_size");
    uint64_t size = param_u64(params, "size");
    const char *name = param_str(params, "name");

    if (path[0] != '\0')
        return err_set(why, -EINVAL, "mem:%s: mem: has no path; did you mean mem:?name=%s", path,
                       path);
    if (block_bytes < 512 || block_bytes > 65536 || (block_bytes & (block_bytes - 1)) != 0)
        return err_set(why, -EINVAL, "mem: block_size has to be a power of two from 512 to 65536");
    if (size == 0 || size % block_bytes != 0)
        return err_set(why, -EINVAL, "mem: size has to be a multiple of block_size (%llu)",
                       (unsigned long long)block_bytes);
    m->data = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);
    if (m->data == MAP_FAILED)
        return err_set(why, -ENOMEM, "mem: no address space for %llu bytes",
                       (unsigned long long)size);
    m->size_bytes = size;
    m->block_shift = (uint32_t)__builtin_ctzll(block_bytes);
    m->name = name != NULL ? strdup(name) : NULL;
    info->block_bytes = (uint32_t)block_bytes;
    info->nblocks = size >> m->block_shift;
    info->caps = BLK_CAP_FUA | BLK_CAP_WRITE_ZEROES | BLK_CAP_UNMAP | BLK_CAP_UNMAP_ZEROES |
                 BLK_CAP_COMPARE | BLK_CAP_NO_FLUSH;
    info->max_zero_bytes = ZERO_MAX_BYTES;
    info->buf_align = 1;
    if (param_flag(params, "prealloc") && rt_offload(t, take_memory, m) < 0) {
        mem_abandon(dev);
        return err_set(why, -ENOMEM, "mem: %llu bytes of memory are not to be had",
                       (unsigned long long)size);
    }
    if (name == NULL)
        rt_random(info->uuid, sizeof(info->uuid));
    return 0;
}

static void mem_close(struct rt_task *t, struct blk_dev *dev)
{
    mem_abandon(dev);
}

static int mem_chan_open(struct rt_task *t, struct blk_dev *dev, struct blk_chan *chan)
{
    const struct mem_dev *m = blk_driver_dev(dev);
    struct mem_chan *c = blk_driver_chan(chan);

    c->data = m->data;
    c->block_shift = m->block_shift;
    return 0;
}

/* Whole pages are given back to the kernel, which gives zeroes; the edges are written. */
static void zero(uint8_t *at, size_t len)
{
    uint8_t *end = at + len;
    uint8_t *first = (uint8_t *)round_up_u64((uintptr_t)at, PAGE_BYTES);
    uint8_t *last = (uint8_t *)((uintptr_t)end & ~(uintptr_t)(PAGE_BYTES - 1));

    if (first >= last || madvise(first, (size_t)(last - first), MADV_DONTNEED) < 0) {
        memset(at, 0, len);
        return;
    }
    memset(at, 0, (size_t)(first - at));
    memset(last, 0, (size_t)(end - last));
}

static int compare(const uint8_t *at, const struct iovec *iov, unsigned iovcnt)
{
    for (unsigned i = 0; i < iovcnt; at += iov[i++].iov_len) {
        if (memcmp(at, iov[i].iov_base, iov[i].iov_len) != 0)
            return -EILSEQ;
    }
    return 0;
}

static void mem_submit(struct blk_chan *chan, struct blk_req *req)
{
    const struct mem_chan *c = blk_driver_chan(chan);
    uint8_t *at = c->data + (req->lba << c->block_shift);
    size_t len = (size_t)req->nblocks << c->block_shift;
    int rc = 0;

    switch (req->op) {
    case BLK_READ:
        for (unsigned i = 0; i < req->iovcnt; at += req->iov[i++].iov_len)
            memcpy(req->iov[i].iov_base, at, req->iov[i].iov_len);
        break;
    case BLK_WRITE:
        for (unsigned i = 0; i < req->iovcnt; at += req->iov[i++].iov_len)
            memcpy(at, req->iov[i].iov_base, req->iov[i].iov_len);
        break;
    case BLK_WRITE_ZEROES:
        if (req->flags & BLK_F_UNMAP)
            zero(at, len);
        else
            memset(at, 0, len);
        break;
    case BLK_UNMAP:
        zero(at, len);
        break;
    case BLK_COMPARE:
        rc = compare(at, req->iov, req->iovcnt);
        break;
    default:
        rc = -ENOTSUP;
    }
    blk_complete(req, rc);
}

const struct blk_driver blk_mem_driver = {
    .name = "mem",
    .help = "memory, gone with the process",
    .params = mem_params,
    .dev_bytes = sizeof(struct mem_dev),
    .chan_bytes = sizeof(struct mem_chan),
    .open = mem_open,
    .same = mem_same,
    .close = mem_close,
    .chan_open = mem_chan_open,
    .submit = mem_submit,
    .abandon = mem_abandon,
};
