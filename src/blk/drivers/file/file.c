/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A regular file or a block device of the kernel. Each request is one rt_io; a short transfer goes
 * on where it stopped. Completed writes are volatile until a flush (fdatasync). A flush that fails
 * is never repeated as if nothing had been: the kernel may have dropped the pages and would say yes
 * the second time. The device then refuses writes and flushes until it is opened again.
 */
#include "blk/blk.h"
#include "blk/lockfile.h"

#include "rt/io.h"

#include "base/log.h"
#include "base/plant.h"

#include <assert.h>
#include <fcntl.h>
#include <stdio.h>

#define IOVCNT_MAX 1024          /* of the kernel */
#define IO_MAX_BYTES (1u << 30)  /* it moves less than 2 GiB at a time */
#define ZERO_MAX_BYTES (1 * GIB) /* so that zeroing much can be cancelled on the way */

struct file_dev {
    int fd;
    uint32_t block_shift;
    bool failed; /* atomic */
    bool direct;
    char *path;
#ifdef PLANT_SKIP_FLUSH
    unsigned flushes;
#endif
};

struct file_chan {
    struct file_dev *dev;
};

/* In blk_req.driver. */
struct file_req {
    struct rt_io io;
    struct iovec rest; /* of an iovec that was moved in part */
    uint64_t moved;
};

static const struct param file_params[] = {
    {"size", PARAM_SIZE, NULL, false, "makes the file with this size when it is not there"},
    {"block_size", PARAM_SIZE, NULL, false, "512 (what the device has, if more) to 65536"},
    {"direct", PARAM_STR, "auto", false, "on: past the page cache; off; auto: on where it works"},
    {"readonly", PARAM_BOOL, "no", false, "opens it for reading; others may do so as well"},
    {.name = NULL},
};

static struct file_req *file_req(struct blk_req *req)
{
    static_assert(sizeof(struct file_req) <= sizeof(req->driver), "room in a request");
    return (struct file_req *)req->driver;
}

/* --- open ------------------------------------------------------------------------------------- */

struct file_opts {
    const char *path;
    uint64_t size;
    uint64_t block_bytes; /* 0: not said */
    bool readonly, direct, direct_must;
};

static int opts_read(struct file_opts *o, const char *path, const struct param_values *params,
                     struct err *why)
{
    const char *direct = param_str(params, "direct");

    *o = (struct file_opts){.path = path, .readonly = param_flag(params, "readonly")};
    if (path[0] == '\0')
        return err_set(why, -EINVAL, "file: needs a path, as file:/srv/disk.img");
    if (param_given(params, "size"))
        o->size = param_u64(params, "size");
    if (param_given(params, "block_size"))
        o->block_bytes = param_u64(params, "block_size");
    o->direct_must = strcmp(direct, "on") == 0;
    o->direct = o->direct_must || strcmp(direct, "auto") == 0;
    if (!o->direct && strcmp(direct, "off") != 0)
        return err_set(why, -EINVAL, "file:%s: direct is on, off or auto, not %s", path, direct);
    return 0;
}

/* Makes a file of the wanted size. What a crash leaves behind is empty or whole. */
static int create(struct rt_task *t, const struct file_opts *o, struct err *why)
{
    int fd = rt_open(t, AT_FDCWD, o->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    int rc;

    if (fd == -EEXIST)
        return 0;
    if (fd < 0)
        return err_set(why, fd, "%s: cannot be made: %s", o->path, err_str(fd));
    rc = rt_ftruncate(t, fd, o->size);
    if (rc == 0)
        rc = rt_fsync(t, fd);
    rt_close(t, fd);
    if (rc < 0) {
        rt_unlink(t, AT_FDCWD, o->path, 0);
        return err_set(why, rc, "%s: no file of %llu bytes can be made: %s", o->path,
                       (unsigned long long)o->size, err_str(rc));
    }
    return 0;
}

static int open_fd(struct rt_task *t, const struct file_opts *o, bool direct)
{
    int flags = (o->readonly ? O_RDONLY : O_RDWR) | O_CLOEXEC | (direct ? O_DIRECT : 0);

    return rt_open(t, AT_FDCWD, o->path, flags, 0);
}

static int explain_open(const struct file_opts *o, int rc, struct err *why)
{
    if (rc == -ENOENT)
        return err_set(why, rc, "%s: no such file; add size= to make it", o->path);
    if ((rc == -EACCES || rc == -EPERM || rc == -EROFS) && !o->readonly)
        return err_set(why, rc == -EPERM ? -EACCES : rc,
                       "%s: cannot be opened for writing (%s); readonly=yes opens it for reading",
                       o->path, err_str(rc));
    return err_set(why, rc, "%s: cannot be opened: %s", o->path, err_str(rc));
}

/* Whether one block can be read past the page cache: some file systems only refuse then. */
static bool direct_works(struct rt_task *t, int fd, uint64_t block_bytes)
{
    CLEANUP(free_p) void *buf = aligned_alloc(4096, round_up_u64(block_bytes, 4096));

    return buf != NULL && rt_pread(t, fd, buf, block_bytes, 0) != -EINVAL;
}

static uint64_t block_bytes_of(const struct file_opts *o, const struct rt_geometry *geo)
{
    return o->block_bytes != 0 ? o->block_bytes : MAX(geo->logical_block_bytes, 512u);
}

/* Opens past the page cache if that is wanted and works; else through it. */
static int open_best(struct rt_task *t, struct file_dev *d, const struct file_opts *o,
                     struct rt_geometry *geo, struct err *why)
{
    int rc;

    d->fd = o->direct ? open_fd(t, o, true) : -EINVAL;
    if (d->fd >= 0) {
        rc = rt_geometry(t, d->fd, geo);
        d->direct = rc == 0 && block_bytes_of(o, geo) >= geo->logical_block_bytes &&
                    direct_works(t, d->fd, block_bytes_of(o, geo));
        if (d->direct)
            return 0;
        rt_close_p(&d->fd);
    } else if (d->fd != -EINVAL) {
        return explain_open(o, d->fd, why);
    }
    if (o->direct_must)
        return err_set(why, -ENOTSUP, "%s: direct I/O does not work here (blocks of %llu bytes)",
                       o->path, (unsigned long long)o->block_bytes);
    d->fd = open_fd(t, o, false);
    if (d->fd < 0)
        return explain_open(o, d->fd, why);
    rc = rt_geometry(t, d->fd, geo);
    if (rc < 0)
        return err_set(why, -EINVAL, "%s: is neither a regular file nor a block device", o->path);
    return 0;
}

static int describe(struct file_dev *d, const struct file_opts *o, const struct rt_geometry *geo,
                    struct blk_info *info, struct err *why)
{
    uint64_t block_bytes = block_bytes_of(o, geo);
    char id[256];

    if (block_bytes < 512 || block_bytes > 65536 || (block_bytes & (block_bytes - 1)) != 0)
        return err_set(why, -EINVAL, "%s: block_size has to be a power of two from 512 to 65536",
                       o->path);
    if (geo->is_block_device && block_bytes < geo->logical_block_bytes)
        return err_set(why, -EINVAL, "%s: the device has blocks of %u bytes; block_size is less",
                       o->path, geo->logical_block_bytes);
    if (o->size != 0 && o->size != geo->size_bytes)
        return err_set(why, -EINVAL, "%s: is there with %llu bytes; leave size= away", o->path,
                       (unsigned long long)geo->size_bytes);
    if (geo->size_bytes < block_bytes)
        return err_set(why, -EINVAL, "%s: does not hold one block of %llu bytes", o->path,
                       (unsigned long long)block_bytes);
    d->block_shift = (uint32_t)__builtin_ctzll(block_bytes);
    info->block_bytes = (uint32_t)block_bytes;
    info->phys_block_bytes = MAX(geo->physical_block_bytes, (uint32_t)block_bytes);
    info->nblocks = geo->size_bytes >> d->block_shift;
    info->caps |= BLK_CAP_VOLATILE_CACHE;
    info->max_io_bytes = IO_MAX_BYTES;
    info->max_iovcnt = IOVCNT_MAX;
    info->max_zero_bytes = ZERO_MAX_BYTES;
    info->buf_align = d->direct ? geo->logical_block_bytes : 1;
    snprintf(id, sizeof(id), "file:%s", o->path);
    blk_uuid_of(id, info->uuid);
    return 0;
}

/* A path that is open is the same device unless something else is asked of it than it is: then it
 * is opened anew, and the lock decides. */
static int file_same(struct blk_dev *dev, const char *path, const struct param_values *params,
                     struct err *why)
{
    const struct file_dev *d = blk_driver_dev(dev);
    const struct blk_info *info = blk_info(dev);
    bool readonly = (info->caps & BLK_CAP_READ_ONLY) != 0;

    if (strcmp(d->path, path) != 0 || param_flag(params, "readonly") != readonly ||
        strcmp(param_str(params, "direct"), d->direct ? "off" : "on") == 0)
        return 0;
    if (param_given(params, "block_size") && param_u64(params, "block_size") != info->block_bytes)
        return 0;
    return !param_given(params, "size") || param_u64(params, "size") == info->nblocks
                                                                            << d->block_shift;
}

static void probe_caps(struct rt_task *t, struct file_dev *d, const struct file_opts *o,
                       struct blk_info *info)
{
    uint64_t end = info->nblocks << d->block_shift;

    if (o->readonly) {
        info->caps |= BLK_CAP_READ_ONLY;
        return;
    }
    info->caps |= BLK_CAP_WRITE_ZEROES; /* what cannot answers -ENOTSUP, and the layer writes */
    /* A hole past the end changes nothing and tells whether holes can be made. */
    if (rt_fallocate(t, d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, end,
                     info->block_bytes) != -EOPNOTSUPP)
        info->caps |= BLK_CAP_UNMAP | BLK_CAP_UNMAP_ZEROES;
}

static void file_abandon(struct blk_dev *dev)
{
    struct file_dev *d = blk_driver_dev(dev);

    free(d->path);
}

static void file_close(struct rt_task *t, struct blk_dev *dev)
{
    struct file_dev *d = blk_driver_dev(dev);

    rt_close(t, d->fd);
    file_abandon(dev);
}

static int file_open(struct rt_task *t, struct blk_dev *dev, const char *path,
                     const struct param_values *params, struct blk_info *info, struct err *why)
{
    struct file_dev *d = blk_driver_dev(dev);
    struct rt_geometry geo = {0};
    struct file_opts o;
    int rc = opts_read(&o, path, params, why);

    if (rc < 0)
        return rc;
    if (o.size != 0 && !o.readonly) {
        rc = create(t, &o, why);
        if (rc < 0)
            return rc;
    }
    rc = open_best(t, d, &o, &geo, why);
    if (rc < 0)
        return rc;
    rc = blk_file_lock(t, d->fd, path, !o.readonly, why);
    d->path = strdup(path);
    if (rc == 0 && d->path == NULL)
        rc = err_set(why, -ENOMEM, "%s: out of memory", path);
    if (rc == 0)
        rc = describe(d, &o, &geo, info, why);
    if (rc < 0) {
        rt_close(t, d->fd);
        free_p(&d->path);
        return rc;
    }
    probe_caps(t, d, &o, info);
    return 0;
}

static int file_refresh(struct rt_task *t, struct blk_dev *dev, uint64_t *out_nblocks)
{
    struct file_dev *d = blk_driver_dev(dev);
    struct rt_geometry geo;
    int rc = rt_geometry(t, d->fd, &geo);

    if (rc < 0)
        return rc;
    *out_nblocks = geo.size_bytes >> d->block_shift;
    return 0;
}

/* --- requests --------------------------------------------------------------------------------- */

static int file_chan_open(struct rt_task *t, struct blk_dev *dev, struct blk_chan *chan)
{
    ((struct file_chan *)blk_driver_chan(chan))->dev = blk_driver_dev(dev);
    return 0;
}

static struct file_dev *dev_of(struct blk_req *req)
{
    return ((struct file_chan *)blk_driver_chan(req->chan))->dev;
}

/* The kernel's errno as one of ours. */
static int layer_rc(int rc)
{
    switch (-rc) {
    case ENOSPC:
    case EDQUOT:
        return -ENOSPC;
    case ECANCELED:
    case ENODEV:
    case ENOMEM:
        return rc;
    case ENXIO:
        return -ENODEV;
    case EOPNOTSUPP: /* the same number as ENOTSUP */
        return -ENOTSUP;
    default:
        return -EIO;
    }
}

/* Describes what is still to be moved in io->iov. */
static void aim_at_rest(struct blk_req *req, struct file_req *f)
{
    uint64_t off = f->moved;
    unsigned i = 0;

    while (off >= req->iov[i].iov_len)
        off -= req->iov[i++].iov_len;
    f->io.iov = &req->iov[i];
    f->io.iovcnt = req->iovcnt - i;
    f->io.off = (req->lba << dev_of(req)->block_shift) + f->moved;
    if (off == 0)
        return;
    f->rest = (struct iovec){.iov_base = (uint8_t *)req->iov[i].iov_base + off,
                             .iov_len = req->iov[i].iov_len - off};
    f->io.iov = &f->rest;
    f->io.iovcnt = 1;
}

static void move_done(struct rt_req *rreq)
{
    struct file_req *f = container_of(rreq, struct file_req, io.req);
    struct blk_req *req = container_of((void *)f, struct blk_req, driver);
    uint64_t len = (uint64_t)req->nblocks << dev_of(req)->block_shift;

    if (rreq->rc > 0)
        f->moved += (uint64_t)rreq->rc;
    if (LIKELY(f->moved == len)) {
        blk_complete(req, 0);
        return;
    }
    if (rreq->rc > 0 || rreq->rc == -EINTR || rreq->rc == -EAGAIN) {
#ifdef PLANT_DOUBLE_COMPLETE /* for sim to find: a short transfer answers for the first part too */
        blk_complete(req, 0);
#endif
        aim_at_rest(req, f);
        rt_io_submit(&f->io);
        return;
    }
    /* 0: the file ends here, so somebody has cut it. */
    blk_complete(req, rreq->rc == 0 ? -EIO : layer_rc(rreq->rc));
}

static void other_done(struct rt_req *rreq)
{
    struct file_req *f = container_of(rreq, struct file_req, io.req);
    struct blk_req *req = container_of((void *)f, struct blk_req, driver);
    struct file_dev *d = dev_of(req);

    if (rreq->rc < 0 && req->op == BLK_FLUSH &&
        !__atomic_exchange_n(&d->failed, true, __ATOMIC_RELAXED))
        log_error("%s: flush failed (%s): what was written may be lost; no more writes until it is "
                  "opened again",
                  d->path, err_str(rreq->rc));
    /* The kernel tells a failure once: a flush that was under way beside the failed one succeeds
     * without what that one has lost. */
    if (rreq->rc >= 0 && req->op == BLK_FLUSH && __atomic_load_n(&d->failed, __ATOMIC_RELAXED))
        rreq->rc = -EIO;
    blk_complete(req, rreq->rc < 0 ? layer_rc(rreq->rc) : 0);
}

/* For tests/crash to find: one flush in eight does nothing. */
static bool planted_skip(void)
{
    static unsigned flushes;

    return PLANTED("blk-skip-flush") && __atomic_fetch_add(&flushes, 1, __ATOMIC_RELAXED) % 8 == 7;
}

static void file_submit(struct blk_chan *chan, struct blk_req *req)
{
    struct file_dev *d = dev_of(req);
    struct file_req *f = file_req(req);
    struct rt_io *io = &f->io;

    if (req->op != BLK_READ && UNLIKELY(__atomic_load_n(&d->failed, __ATOMIC_RELAXED))) {
        blk_complete(req, -EIO);
        return;
    }
    rt_req_init(&io->req, req->op <= BLK_WRITE ? move_done : other_done);
    io->req.trace_id = req->req.trace_id;
    io->fd = d->fd;
    io->off = req->lba << d->block_shift;
    io->len = (uint64_t)req->nblocks << d->block_shift;
    io->iov = req->iov;
    io->iovcnt = req->iovcnt;
    f->moved = 0;
    switch (req->op) {
    case BLK_READ:
        io->op = RT_IO_READV;
        break;
    case BLK_WRITE:
        io->op = RT_IO_WRITEV;
        break;
    case BLK_FLUSH:
#ifdef PLANT_SKIP_FLUSH /* for sim to find: one flush in eight does nothing */
        if (__atomic_fetch_add(&d->flushes, 1, __ATOMIC_RELAXED) % 8 == 7) {
            blk_complete(req, 0);
            return;
        }
#endif
        if (planted_skip()) {
            blk_complete(req, 0);
            return;
        }
        io->op = RT_IO_FDATASYNC;
        break;
    case BLK_WRITE_ZEROES:
    case BLK_UNMAP:
        io->op = RT_IO_FALLOCATE;
        io->flags = FALLOC_FL_KEEP_SIZE |
                    (req->op == BLK_UNMAP || (req->flags & BLK_F_UNMAP) ? FALLOC_FL_PUNCH_HOLE
                                                                        : FALLOC_FL_ZERO_RANGE);
        break;
    default:
        must(!"an operation this driver does not claim");
    }
    rt_io_submit(io);
}

static void file_cancel(struct blk_chan *chan, struct blk_req *req)
{
    if (req->op <= BLK_WRITE) /* a flush that was cut off half way might count as failed */
        rt_req_cancel(&file_req(req)->io.req);
}

const struct blk_driver blk_file_driver = {
    .name = "file",
    .help = "a regular file or a block device of the kernel",
    .params = file_params,
    .dev_bytes = sizeof(struct file_dev),
    .chan_bytes = sizeof(struct file_chan),
    .open = file_open,
    .same = file_same,
    .close = file_close,
    .chan_open = file_chan_open,
    .submit = file_submit,
    .cancel = file_cancel,
    .refresh = file_refresh,
    .abandon = file_abandon,
};
