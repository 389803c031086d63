/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The io_uring backend. Files: one SQE per operation. Sockets: a multishot poll tells when one has
 * become ready, and data moves by recv and send straight to its place (docs/decisions/0002).
 * While it spins, the loop looks at two words of shared memory and makes no system call.
 */
#include "rt/internal.h"

#include <assert.h>
#include <fcntl.h>
#include <liburing.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <linux/capability.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SQ_ENTRIES 512
#define CQ_ENTRIES 8192
#define FILE_BATCH 8u                 /* so many I/Os wait for the end of a turn at most */
#define FILE_LARGE_BYTES (256u << 10) /* and none that moves so much */

/* Buffers that the kernel keeps mapped, by chunks, as they are used. */
#define FIXED_CHUNK_BYTES (256 * KIB)
#define FIXED_CHUNKS 4u
/* Rings are of the same memory that a user may lock: where it is little it is left for them. */
#define LOCKED_BYTES_MIN (64 * MIB)
static_assert(FIXED_CHUNK_BYTES % RT_BUF_SMALL_BYTES == 0, "no buffer lies in two chunks");

struct uring {
    struct io_uring ring;
    int wake_fd;
    uint64_t wake_count;
    bool wake_armed;
    struct list slots; /* of all sockets, so that fini finds them */
    unsigned to_submit;
    uint8_t *fixed; /* what may be registered; NULL: nothing */
    size_t fixed_bytes;
    bool fixed_table;      /* the kernel has one */
    uint32_t fixed_chunks; /* bits: in the table */
};
static_assert(FIXED_CHUNKS <= 32, "bits of fixed_chunks");

/* What outlives a closed rt_sock until the kernel has given the poll back. */
struct slot {
    struct rt_sock *sock; /* NULL: closed */
    struct list link;
    bool armed;
};

/* user_data: a pointer with its kind in the low bits. */
enum { UD_IO, UD_SLOT, UD_WAKE, UD_IGNORE, UD_MASK = 3 };

static struct uring *uring_of(struct rt_reactor *r)
{
    return r->backend;
}

static struct io_uring_sqe *get_sqe(struct uring *u)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);

    while (UNLIKELY(sqe == NULL)) {
        io_uring_submit(&u->ring);
        sqe = io_uring_get_sqe(&u->ring);
    }
    u->to_submit++;
    return sqe;
}

static void set_data(struct io_uring_sqe *sqe, void *ptr, unsigned kind)
{
    io_uring_sqe_set_data64(sqe, (uint64_t)(uintptr_t)ptr | kind);
}

static int ring_init(struct uring *u, bool loop_form, struct err *why)
{
    struct io_uring_params p = {.cq_entries = CQ_ENTRIES};
    int rc;

    p.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
    /* Completions run when this thread asks for them, and it knows from a flag that there are any.
     * Not for a loop that somebody else polls: it may move between threads. */
    if (!loop_form)
        p.flags |=
            IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG;
    rc = io_uring_queue_init_params(SQ_ENTRIES, &u->ring, &p);
    if (rc == -EINVAL && !loop_form) { /* before 6.1 */
        p = (struct io_uring_params){.cq_entries = CQ_ENTRIES};
        p.flags = IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
        rc = io_uring_queue_init_params(SQ_ENTRIES, &u->ring, &p);
    }
    if (rc < 0)
        return err_set(why, rc, "io_uring: %s", strerror(-rc));
    return 0;
}

/* Whether locked memory is no concern: by the limit, or by privilege (CAP_IPC_LOCK). */
static bool may_lock(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3] = {{0}};
    struct rlimit limit;

    if (getrlimit(RLIMIT_MEMLOCK, &limit) == 0 && limit.rlim_cur >= LOCKED_BYTES_MIN)
        return true;
    return syscall(SYS_capget, &head, caps) == 0 &&
           (caps[CAP_TO_INDEX(CAP_IPC_LOCK)].effective & CAP_TO_MASK(CAP_IPC_LOCK)) != 0;
}

static int uring_init(struct rt_reactor *r, struct err *why)
{
    struct uring *u = calloc(1, sizeof(*u));
    int rc;

    if (u == NULL)
        return -ENOMEM;
    list_init(&u->slots);
    u->fixed = rt_bufs_small(r).iov_base;
    if (may_lock())
        u->fixed_bytes =
            MIN(rt_bufs_small(r).iov_len / FIXED_CHUNK_BYTES, FIXED_CHUNKS) * FIXED_CHUNK_BYTES;
    rc = ring_init(u, r->rt->loop_form, why);
    if (rc < 0) {
        free(u);
        return rc;
    }
    u->wake_fd = eventfd(0, EFD_CLOEXEC); /* blocking: O_NONBLOCK would end the read at once */
    if (u->wake_fd < 0) {
        rc = -errno;
        io_uring_queue_exit(&u->ring);
        free(u);
        return rc;
    }
    r->backend = u;
    return 0;
}

static void uring_fini(struct rt_reactor *r)
{
    struct uring *u = uring_of(r);
    struct slot *slot;

    if (u == NULL)
        return;
    io_uring_queue_exit(&u->ring);
    close(u->wake_fd);
    while ((slot = list_pop_entry(&u->slots, struct slot, link)) != NULL)
        free(slot);
    free(u);
    r->backend = NULL;
}

/* --- completions
 * ---------------------------------------------------------------------------------- */

static void slot_free(struct slot *slot)
{
    list_del(&slot->link);
    free(slot);
}

static void slot_event(struct slot *slot, const struct io_uring_cqe *cqe)
{
    bool more = (cqe->flags & IORING_CQE_F_MORE) != 0;
    struct rt_sock *s = slot->sock;

    if (!more)
        slot->armed = false;
    if (s == NULL) {
        if (!more)
            slot_free(slot);
        return;
    }
    /* An error of the poll itself: let recv and send find out. */
    if (cqe->res < 0) {
        rt_sock_ready(s, true, true);
        return;
    }
    if (cqe->res & (POLLRDHUP | POLLHUP | POLLERR))
        s->hup = true;
    rt_sock_ready(s, (cqe->res & (POLLIN | POLLRDHUP | POLLHUP | POLLERR)) != 0,
                  (cqe->res & (POLLOUT | POLLHUP | POLLERR)) != 0);
}

static void cqe_event(struct uring *u, const struct io_uring_cqe *cqe)
{
    void *ptr = (void *)(uintptr_t)(cqe->user_data & ~(uint64_t)UD_MASK);
    struct rt_io *io = ptr;

    switch (cqe->user_data & UD_MASK) {
    case UD_IO:
        rt_req_complete(&io->req, cqe->res);
        break;
    case UD_SLOT:
        slot_event(ptr, cqe);
        break;
    case UD_WAKE:
        u->wake_armed = false;
        break;
    default:
        break;
    }
}

static bool reap(struct uring *u)
{
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;

    io_uring_for_each_cqe(&u->ring, head, cqe)
    {
        cqe_event(u, cqe);
        n++;
    }
    io_uring_cq_advance(&u->ring, n);
    return n > 0;
}

static void arm_wake(struct uring *u)
{
    struct io_uring_sqe *sqe;

    if (u->wake_armed)
        return;
    u->wake_armed = true;
    sqe = get_sqe(u);
    io_uring_prep_read(sqe, u->wake_fd, &u->wake_count, sizeof(u->wake_count), 0);
    set_data(sqe, NULL, UD_WAKE);
}

/* Whether the kernel has completions to run or has kept some back for want of room. */
static bool kernel_has_work(struct uring *u)
{
    unsigned flags = IO_URING_READ_ONCE(*u->ring.sq.kflags);

    return (flags & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

static bool uring_poll(struct rt_reactor *r, uint64_t timeout_ns)
{
    struct uring *u = uring_of(r);
    struct __kernel_timespec ts;
    struct io_uring_cqe *cqe;

    if (r->rt->loop_form)
        arm_wake(u);
    if (timeout_ns == 0) {
        if (u->to_submit > 0 || kernel_has_work(u)) {
            u->to_submit = 0;
            io_uring_submit_and_get_events(&u->ring);
        }
        return reap(u);
    }
    arm_wake(u);
    u->to_submit = 0;
    if (timeout_ns == UINT64_MAX) {
        io_uring_submit_and_wait(&u->ring, 1);
    } else {
        ts.tv_sec = (long long)(timeout_ns / NS_PER_S);
        ts.tv_nsec = (long long)(timeout_ns % NS_PER_S);
        io_uring_submit_and_wait_timeout(&u->ring, &cqe, 1, &ts, NULL);
    }
    return reap(u);
}

static void uring_wake(struct rt_reactor *r)
{
    uint64_t one = 1;
    ssize_t n = write(uring_of(r)->wake_fd, &one, sizeof(one));

    (void)n; /* a full counter wakes as well */
}

static int uring_fd(struct rt_reactor *r)
{
    return uring_of(r)->ring.ring_fd;
}

/* --- files
 * ------------------------------------------------------------------------------------------ */

/* False: an old kernel, or no more memory may be locked. It works without. */
static bool fix_chunk(struct uring *u, unsigned chunk)
{
    struct iovec iov = {u->fixed + chunk * FIXED_CHUNK_BYTES, FIXED_CHUNK_BYTES};
    __u64 tag = 0;

    if (!u->fixed_table && io_uring_register_buffers_sparse(&u->ring, FIXED_CHUNKS) < 0)
        return false;
    u->fixed_table = true;
    if (io_uring_register_buffers_update_tag(&u->ring, chunk, &iov, &tag, 1) != 1)
        return false;
    u->fixed_chunks |= 1u << chunk;
    return true;
}

/* The number of the chunk that data lies in; negative: in none. */
static int fixed_of(struct uring *u, const struct iovec *iov)
{
    size_t off = (size_t)((uintptr_t)iov->iov_base - (uintptr_t)u->fixed);
    unsigned chunk = (unsigned)(off / FIXED_CHUNK_BYTES);

    if (off >= u->fixed_bytes || iov->iov_len > FIXED_CHUNK_BYTES - off % FIXED_CHUNK_BYTES)
        return -1;
    if (LIKELY((u->fixed_chunks & 1u << chunk) != 0) || fix_chunk(u, chunk))
        return (int)chunk;
    u->fixed_bytes = 0; /* do not ask again */
    return -1;
}

static void prep_data(struct uring *u, struct io_uring_sqe *sqe, const struct rt_io *io)
{
    int fixed = io->iovcnt == 1 ? fixed_of(u, io->iov) : -1;

    if (io->op == RT_IO_READV && fixed >= 0)
        io_uring_prep_read_fixed(sqe, io->fd, io->iov->iov_base, (unsigned)io->iov->iov_len,
                                 io->off, fixed);
    else if (io->op == RT_IO_WRITEV && fixed >= 0)
        io_uring_prep_write_fixed(sqe, io->fd, io->iov->iov_base, (unsigned)io->iov->iov_len,
                                  io->off, fixed);
    else if (io->op == RT_IO_READV && io->iovcnt == 1)
        io_uring_prep_read(sqe, io->fd, io->iov->iov_base, (unsigned)io->iov->iov_len, io->off);
    else if (io->op == RT_IO_READV)
        io_uring_prep_readv(sqe, io->fd, io->iov, io->iovcnt, io->off);
    else if (io->iovcnt == 1)
        io_uring_prep_write(sqe, io->fd, io->iov->iov_base, (unsigned)io->iov->iov_len, io->off);
    else
        io_uring_prep_writev(sqe, io->fd, io->iov, io->iovcnt, io->off);
}

/* Prepares what io_uring does itself; false: it has to go to the offload pool. */
static bool prep(struct uring *u, struct rt_io *io)
{
    struct io_uring_sqe *sqe;

    switch ((enum rt_io_op)io->op) {
    case RT_IO_FTRUNCATE:
    case RT_IO_STAT:
    case RT_IO_READDIR:
    case RT_IO_LOCK:
    case RT_IO_GEOMETRY:
        return false;
    default:
        break;
    }
    sqe = get_sqe(u);
    switch ((enum rt_io_op)io->op) {
    case RT_IO_READV:
    case RT_IO_WRITEV:
        prep_data(u, sqe, io);
        break;
    case RT_IO_FSYNC:
        io_uring_prep_fsync(sqe, io->fd, 0);
        break;
    case RT_IO_FDATASYNC:
        io_uring_prep_fsync(sqe, io->fd, IORING_FSYNC_DATASYNC);
        break;
    case RT_IO_FALLOCATE:
        /* liburing 2.3 declares the length as off_t: both fields are set by hand. */
        io_uring_prep_fallocate(sqe, io->fd, io->flags, (off_t)io->off, (off_t)io->len);
        break;
    case RT_IO_OPEN:
        io_uring_prep_openat(sqe, io->fd, io->path, io->flags | O_CLOEXEC, io->mode);
        break;
    case RT_IO_CLOSE:
        io_uring_prep_close(sqe, io->fd);
        break;
    case RT_IO_RENAME:
        io_uring_prep_renameat(sqe, io->fd, io->path, io->fd2, io->path2, (unsigned)io->flags);
        break;
    case RT_IO_LINK:
        io_uring_prep_linkat(sqe, io->fd, io->path, io->fd2, io->path2, 0);
        break;
    case RT_IO_UNLINK:
        io_uring_prep_unlinkat(sqe, io->fd, io->path, io->flags);
        break;
    case RT_IO_MKDIR:
        io_uring_prep_mkdirat(sqe, io->fd, io->path, io->mode);
        break;
    default:
        must(!"operation of the offload pool");
    }
    set_data(sqe, io, UD_IO);
    return true;
}

static bool is_data(const struct rt_io *io)
{
    return io->op == RT_IO_READV || io->op == RT_IO_WRITEV;
}

static void uring_io_submit(struct rt_reactor *r, struct rt_io *io)
{
    struct uring *u = uring_of(r);

    if (!prep(u, io)) {
        rt_io_offload(r, io);
        return;
    }
    /* The device works while this thread goes on with its turn: else it has much at once, and
     * nothing in between. Who moves much has checksums to compute as well. */
    if (u->to_submit >= FILE_BATCH || (is_data(io) && io->len >= FILE_LARGE_BYTES)) {
        u->to_submit = 0;
        io_uring_submit(&u->ring);
    }
}

static void uring_io_cancel(struct rt_reactor *r, struct rt_io *io)
{
    struct io_uring_sqe *sqe = get_sqe(uring_of(r));

    io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)io | UD_IO, 0);
    set_data(sqe, NULL, UD_IGNORE);
}

static void uring_fd_wait(struct rt_reactor *r, struct rt_io *io)
{
    struct io_uring_sqe *sqe = get_sqe(uring_of(r));

    io_uring_prep_poll_add(sqe, io->fd, POLLIN);
    set_data(sqe, io, UD_IO);
}

/* --- sockets
 * ---------------------------------------------------------------------------------------- */

static int sock_take(struct rt_sock *s, int fd)
{
    struct slot *slot = calloc(1, sizeof(*slot));

    if (slot == NULL) {
        close(fd);
        return -ENOMEM;
    }
    slot->sock = s;
    list_add_tail(&uring_of(s->reactor)->slots, &slot->link);
    s->slot = slot;
    s->fd = fd;
    return 0;
}

static void uring_sock_arm(struct rt_sock *s)
{
    struct slot *slot = s->slot;
    struct io_uring_sqe *sqe;

    if (slot->armed)
        return;
    slot->armed = true;
    sqe = get_sqe(uring_of(s->reactor));
    io_uring_prep_poll_multishot(sqe, s->fd, POLLIN | POLLOUT | POLLRDHUP);
    set_data(sqe, slot, UD_SLOT);
}

static void uring_sock_close(struct rt_sock *s)
{
    struct uring *u = uring_of(s->reactor);
    struct slot *slot = s->slot;
    struct io_uring_sqe *sqe;

    slot->sock = NULL;
    s->slot = NULL;
    if (slot->armed) {
        /* The poll holds the file open: take it back, and let the peer know at once. */
        sqe = get_sqe(u);
        io_uring_prep_poll_remove(sqe, (uint64_t)(uintptr_t)slot | UD_SLOT);
        set_data(sqe, NULL, UD_IGNORE);
        shutdown(s->fd, SHUT_RDWR);
    } else {
        slot_free(slot);
    }
    close(s->fd);
}

const struct rt_backend_ops rt_uring_ops = {
    .name = "io_uring",
    .init = uring_init,
    .fini = uring_fini,
    .poll = uring_poll,
    .wake = uring_wake,
    .fd = uring_fd,
    .io_submit = uring_io_submit,
    .io_cancel = uring_io_cancel,
    .fd_wait = uring_fd_wait,
    .offload = rt_offload_thread,
    .sock_listen = rt_posix_listen,
    .sock_accept = rt_posix_accept,
    .sock_attach = sock_take,
    .sock_discard = rt_posix_discard,
    .sock_connect = rt_posix_connect,
    .sock_connected = rt_posix_connected,
    .sock_recv = rt_posix_recv,
    .sock_send = rt_posix_send,
    .sock_send_fds = rt_posix_send_fds,
    .sock_arm = uring_sock_arm,
    .sock_addr = rt_posix_addr,
    .sock_shutdown = rt_posix_shutdown,
    .sock_close = uring_sock_close,
    .now = rt_posix_now,
    .wall = rt_posix_wall,
    .random = rt_posix_random,
};
