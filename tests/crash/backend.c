/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend of the runtime whose only file is the disk (and those of external.h, to be read), and
 * whose clock is virtual: an operation is submitted, takes effect some time later, in an order that
 * the dice make, and is told then.
 */
#include "disk.h"
#include "external.h"
#include "own.h"

#include "blk/blk.h"
#include "blob/blob.h"
#include "kv/kv.h"
#include "rt/backend.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <string.h>

#define DISK_FD 100
#define REACTORS_MAX 4
#define TURN_NS 500
#define IDLE_TURNS_MAX 1000000 /* of a run that makes no progress on the disk */

struct pend {
    uint64_t due_ns;
    struct rt_io *io;
    struct rt_offload_req *oreq;
    uint32_t op;
    bool on_disk;
};

static struct {
    struct pend *pend[REACTORS_MAX];
    unsigned npend[REACTORS_MAX], cap[REACTORS_MAX];
    uint32_t cut_at;
} be;

static bool is_cut(void)
{
    return be.cut_at != 0 && disk.log.ticks >= be.cut_at;
}

static int backend_init(struct rt_reactor *r, struct err *why)
{
    (void)why;
    must(rt_index(r) < REACTORS_MAX);
    be.npend[rt_index(r)] = 0;
    rt_backend_set(r, &be);
    return 0;
}

static void backend_fini(struct rt_reactor *r)
{
    rt_backend_set(r, NULL);
}

static void add(struct rt_reactor *r, struct pend p, uint64_t delay_ns)
{
    unsigned i = rt_index(r);

    if (be.npend[i] == be.cap[i]) {
        be.cap[i] = MAX(64u, be.cap[i] * 2);
        be.pend[i] = own_realloc(be.pend[i], be.cap[i] * sizeof(struct pend));
        must(be.pend[i] != NULL);
    }
    p.due_ns = disk.now_ns + delay_ns;
    be.pend[i][be.npend[i]++] = p;
}

/* --- what an operation does ------------------------------------------------------------------- */

/* Descriptors: of the disk, then of the external ones. */
static int fd_of(const char *path)
{
    int which = external_of(path, strlen(path));

    if (which >= 0)
        return DISK_FD + 1 + which;
    return strcmp(path, DISK_PATH) == 0 ? DISK_FD : -ENOENT;
}

static uint64_t bytes_of(int fd)
{
    return fd == DISK_FD ? disk.bytes
                         : (uint64_t)external_sectors((unsigned)(fd - DISK_FD - 1)) * 512;
}

static int do_open(const struct rt_io *io)
{
    int fd = fd_of(io->path);

    if (fd > DISK_FD && (io->flags & O_ACCMODE) != O_RDONLY)
        return -EROFS;
    return fd >= 0 && (io->flags & O_EXCL) != 0 ? -EEXIST : fd;
}

static int do_stat(const struct rt_io *io)
{
    int fd = io->path[0] != '\0' ? fd_of(io->path) : io->fd;

    if (fd < 0)
        return fd;
    *io->st = (struct stat){.st_mode = S_IFREG | 0600,
                            .st_ino = (ino_t)(7 + fd - DISK_FD),
                            .st_nlink = 1,
                            .st_size = (off_t)bytes_of(fd),
                            .st_blksize = 4096,
                            .st_blocks = disk.sparse ? 0 : (blkcnt_t)(bytes_of(fd) / 512)};
    return 0;
}

static int do_read(const struct rt_io *io)
{
    if (io->fd == DISK_FD)
        return disk_read(io->off, io->iov, io->iovcnt);
    return external_read((unsigned)(io->fd - DISK_FD - 1), io->off, io->iov, io->iovcnt);
}

/* What has no part in a crash happens at once, when it is due. */
static int do_other(const struct rt_io *io)
{
    switch (io->op) {
    case RT_IO_OPEN:
        return do_open(io);
    case RT_IO_READV:
        return do_read(io);
    case RT_IO_STAT:
        return do_stat(io);
    case RT_IO_GEOMETRY:
        *io->geo = (struct rt_geometry){.size_bytes = bytes_of(io->fd),
                                        .logical_block_bytes = 512,
                                        .physical_block_bytes = disk.block_bytes};
        return 0;
    case RT_IO_FALLOCATE: /* past the end, or only asking for room */
    case RT_IO_CLOSE:
    case RT_IO_LOCK:
        return 0;
    default:
        return -ENOTSUP;
    }
}

static bool unchanged(const struct disk_op *op, const struct rt_io *io)
{
    size_t at = 0;

    for (unsigned i = 0; i < io->iovcnt && at < op->len; at += io->iov[i++].iov_len)
        if (memcmp(op->data + at, io->iov[i].iov_base, MIN(io->iov[i].iov_len, op->len - at)) != 0)
            return false;
    return true;
}

static void run(struct pend p)
{
    int rc;

    if (p.oreq != NULL) {
        p.oreq->fn_rc = p.oreq->fn(p.oreq->arg);
        rt_req_complete(&p.oreq->req, p.oreq->fn_rc);
        return;
    }
    if (p.on_disk && disk.log.op[p.op].kind == DISK_WRITE)
        must(unchanged(&disk.log.op[p.op], p.io)); /* a buffer was changed in flight */
    rc = p.on_disk ? disk_complete(p.op) : do_other(p.io);
    rt_req_complete(&p.io->req, rc);
}

/* Takes in what is due; those that are due at one time in the order of their delays. */
static bool backend_poll(struct rt_reactor *r, uint64_t timeout_ns)
{
    unsigned i = rt_index(r);
    bool any = false;

    (void)timeout_ns;
    for (;;) {
        unsigned first = UINT32_MAX;
        struct pend p;

        for (unsigned k = 0; k < be.npend[i]; k++)
            if (be.pend[i][k].due_ns <= disk.now_ns &&
                (first == UINT32_MAX || be.pend[i][k].due_ns < be.pend[i][first].due_ns))
                first = k;
        if (first == UINT32_MAX || is_cut())
            return any;
        p = be.pend[i][first];
        be.pend[i][first] = be.pend[i][--be.npend[i]];
        run(p);
        any = true;
    }
}

/* --- submission ------------------------------------------------------------------------------- */

static uint64_t delay(enum rt_io_op op)
{
    uint64_t base = op == RT_IO_FSYNC || op == RT_IO_FDATASYNC ? 60 : 8;

    return (base + dice_below(&disk.dice, base * 3)) * NS_PER_US;
}

static bool is_zeroing(const struct rt_io *io)
{
    return io->op == RT_IO_FALLOCATE &&
           (io->flags & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) != 0 &&
           io->off + io->len <= disk.bytes;
}

static void backend_io_submit(struct rt_reactor *r, struct rt_io *io)
{
    struct pend p = {.io = io};

    if (io->op == RT_IO_WRITEV) {
        uint64_t len = 0;

        for (unsigned i = 0; i < io->iovcnt; i++)
            len += io->iov[i].iov_len;
        must(io->fd == DISK_FD && io->off + len <= disk.bytes);
        p.op = disk_submit(DISK_WRITE, io->off, len, io->iov, io->iovcnt);
        p.on_disk = true;
    } else if (is_zeroing(io)) {
        must(io->fd == DISK_FD);
        p.op = disk_submit(DISK_ZERO, io->off, io->len, NULL, 0);
        p.on_disk = true;
    } else if (io->op == RT_IO_FSYNC || io->op == RT_IO_FDATASYNC) {
        p.op = disk_submit(DISK_FLUSH, 0, 0, NULL, 0);
        p.on_disk = true;
    }
    add(r, p, delay((enum rt_io_op)io->op));
}

static void backend_offload(struct rt_reactor *r, struct rt_offload_req *oreq)
{
    add(r, (struct pend){.oreq = oreq}, 5 * NS_PER_US);
}

static void backend_wake(struct rt_reactor *r)
{
    (void)r;
}

static void backend_io_cancel(struct rt_reactor *r, struct rt_io *io)
{
    (void)r;
    (void)io;
}

static void backend_fd_wait(struct rt_reactor *r, struct rt_io *io)
{
    (void)r;
    rt_req_complete(&io->req, -ENOTSUP);
}

static uint64_t backend_now(void)
{
    return disk.now_ns;
}

static uint64_t backend_wall(void)
{
    return 1793491200ull * NS_PER_S + disk.now_ns;
}

static void backend_random(void *buf, size_t len)
{
    uint8_t *out = buf;

    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)dice_roll(&disk.dice);
}

static const struct rt_backend_ops backend_ops = {
    .name = "crash",
    .init = backend_init,
    .fini = backend_fini,
    .poll = backend_poll,
    .wake = backend_wake,
    .io_submit = backend_io_submit,
    .io_cancel = backend_io_cancel,
    .fd_wait = backend_fd_wait,
    .offload = backend_offload,
    .now = backend_now,
    .wall = backend_wall,
    .random = backend_random,
};

/* --- a run ------------------------------------------------------------------------------------ */

static uint64_t next_due(struct rt *rt, unsigned nreactors)
{
    uint64_t at = UINT64_MAX;

    for (unsigned i = 0; i < nreactors; i++) {
        at = MIN(at, rt_manual_next_timer(rt, i));
        for (unsigned k = 0; k < be.npend[i]; k++)
            at = MIN(at, be.pend[i][k].due_ns);
    }
    return at;
}

struct run {
    struct rt_req done;
    bool ended;
    int rc;
};

static void run_done(struct rt_req *req)
{
    struct run *run = container_of(req, struct run, done);

    run->ended = true;
    run->rc = req->rc;
}

/* Turns the reactors until fn has returned, or the run is cut. */
static void turn_all(struct rt *rt, struct disk_boot *b, struct run *run, unsigned n)
{
    uint64_t idle = 0, ticks = 0;

    while (!run->ended) {
        bool worked = false;

        for (unsigned i = 0; i < n && !is_cut(); i++)
            worked |= rt_manual_turn(rt, i);
        if (is_cut()) {
            b->was_cut = true;
            return;
        }
        idle = disk.log.ticks + disk.reads == ticks ? idle + 1 : 0;
        ticks = disk.log.ticks + disk.reads;
        if (worked && idle < IDLE_TURNS_MAX) {
            disk.now_ns += TURN_NS;
            continue;
        }
        disk.now_ns = MAX(disk.now_ns, next_due(rt, n));
        if (disk.now_ns == UINT64_MAX || idle >= IDLE_TURNS_MAX) {
            disk.now_ns = 0;
            b->stuck = true;
            return;
        }
    }
}

int disk_boot(struct disk_boot *b)
{
    unsigned n = MAX(1u, b->reactors);
    struct rt_config cfg = {.reactors = n, .buf_bytes = 2 * MIB, .offload_threads = 1};
    struct run run = {.ended = false};
    struct err why = {""};
    bool abandon;
    struct rt *rt;
    int rc = rt_manual_new(&cfg, &backend_ops, &rt, &why);

    b->was_cut = b->stuck = false;
    if (rc < 0) /* no memory */
        return rc;
    be.cut_at = b->cut_at;
    rt_manual_enter(rt, 0);
    rt_req_init(&run.done, run_done);
    rc = rt_task_start("crash", b->fn, b->arg, &run.done, NULL);
    if (rc < 0) {
        rt_manual_free(rt, false);
        return rc;
    }
    turn_all(rt, b, &run, n);
    abandon = !run.ended || b->abandon || run.rc < 0;
    rt_manual_enter(rt, 0);
    if (abandon) {
        kv_abandon();
        blob_abandon();
        blk_abandon();
        disk.inflight = 0;
    }
    rt_manual_free(rt, abandon);
    be.cut_at = 0;
    return run.ended ? run.rc : -ECANCELED;
}
