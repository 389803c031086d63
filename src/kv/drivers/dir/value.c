/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Values: written to a temporary file, made durable, then renamed to the key's name. Writers of
 * one key take turns (struct dir_lock) from the moment they look at what is there; readers open
 * the file and keep what they opened.
 */
#include "kv/drivers/dir/dir.h"

#include <fcntl.h>
#include <stdio.h>

#define IOV_STEP 32u
#define RETRIES 8

int dir_errno(int rc)
{
    switch (rc) {
    case -EDQUOT:
        return -ENOSPC;
    case -EPERM:
    case -EISDIR:
    case -ENOTEMPTY:
        return -EACCES; /* somebody else's directory has the key's name */
    case -ENOTDIR:
    case -ELOOP:
        return -ENOENT;
    case -EMFILE:
    case -ENFILE:
        return -ENOMEM;
    case -EXDEV:
    case -EINTR:
        return -EIO;
    default:
        return rc;
    }
}

/* --- one writer of a key at a time ------------------------------------------------------------ */

struct dir_lock {
    struct map_node node;
    struct bytes key;
    struct rt_cond released;
};

static struct dir_lock *lock_find(struct dir *d, struct bytes key, uint64_t hash)
{
    struct map_node *n = map_first(&d->locks, hash);

    while (n != NULL && !bytes_eq(container_of(n, struct dir_lock, node)->key, key))
        n = map_next(n);
    return n != NULL ? container_of(n, struct dir_lock, node) : NULL;
}

static int lock_take(struct rt_task *t, struct dir *d, struct bytes key, struct dir_lock *lock)
{
    uint64_t hash = hash_bytes(key);
    struct dir_lock *other;

    while ((other = lock_find(d, key, hash)) != NULL) {
        int rc = rt_cond_wait(t, &other->released);

        if (rc < 0)
            return rc;
    }
    *lock = (struct dir_lock){.key = key};
    map_add(&d->locks, &lock->node, hash);
    return 0;
}

static void lock_put(struct dir *d, struct dir_lock *lock)
{
    map_del(&d->locks, &lock->node);
    rt_cond_wake_all(&lock->released);
}

/* --- durable names ---------------------------------------------------------------------------- */

static void sync_once(struct rt_task *t, struct dir *d)
{
    struct dir_sync *s = &d->names_sync;
    uint64_t upto = s->asked;
    int rc;

    s->busy = true;
    rc = rt_fsync(t, d->fd);
    s->busy = false;
    if (rc < 0) {
        s->failed_from = s->done;
        s->failed_to = upto;
        s->failed_rc = dir_errno(rc);
    }
    s->done = upto;
    rt_cond_wake_all(&s->turned);
}

int dir_sync_names(struct rt_task *t, struct dir *d)
{
    struct dir_sync *s = &d->names_sync;
    uint64_t mine = ++s->asked;

    rt_task_shield(t, true);
    while (s->done < mine) {
        if (s->busy)
            (void)rt_cond_wait(t, &s->turned);
        else
            sync_once(t, d);
    }
    rt_task_shield(t, false);
    return mine > s->failed_from && mine <= s->failed_to ? s->failed_rc : 0;
}

/* After a change in the directory of `p`. Without sync short keys wait for a flush. */
static int sync_place(struct rt_task *t, struct dir *d, const struct dir_place *p)
{
    if (p->own_fd)
        return dir_errno(rt_fsync(t, p->fd));
#ifdef PLANT_EARLY_ACK /* for sim to find: takes a sync that began before this change for its own */
    if (d->names_sync.busy)
        return 0;
#endif
    return d->sync ? dir_sync_names(t, d) : 0;
}

/* --- files ------------------------------------------------------------------------------------ */

/* The part of the iovecs from `off` on, at most `len` bytes of it, in up to IOV_STEP entries. */
static unsigned iov_part(const struct iovec *iov, unsigned iovcnt, size_t off, size_t len,
                         struct iovec *out)
{
    unsigned n = 0;

    for (unsigned i = 0; i < iovcnt && n < IOV_STEP && len > 0; i++) {
        size_t here;

        if (off >= iov[i].iov_len) {
            off -= iov[i].iov_len;
            continue;
        }
        here = MIN(iov[i].iov_len - off, len);
        out[n++] = (struct iovec){.iov_base = (uint8_t *)iov[i].iov_base + off, .iov_len = here};
        off = 0;
        len -= here;
    }
    return n;
}

/* Reads or writes `len` bytes at file offset `off`. 0; -EIO when the file ends before. */
static int move(struct rt_task *t, enum rt_io_op op, int fd, const struct iovec *iov,
                unsigned iovcnt, uint64_t off, uint64_t len)
{
    struct iovec part[IOV_STEP];
    uint64_t done = 0;

    while (done < len) {
        unsigned n = iov_part(iov, iovcnt, (size_t)done, (size_t)(len - done), part);
        struct rt_io io = {
            .op = (uint8_t)op, .fd = fd, .iov = part, .iovcnt = n, .off = off + done};
        int rc;

        rt_req_init_task(&io.req, t);
        rt_io_submit(&io);
        rc = rt_wait(t, &io.req);
        if (rc == -EINTR)
            continue;
        if (rc <= 0)
            return rc < 0 ? dir_errno(rc) : -EIO;
        done += (uint64_t)rc;
    }
    return 0;
}

static uint64_t version_of(const struct stat *st)
{
    uint64_t mtime = (uint64_t)st->st_mtim.tv_sec * NS_PER_S + (uint64_t)st->st_mtim.tv_nsec;
    uint64_t v = hash_u64(hash_u64(hash_u64(st->st_ino + 1) ^ mtime) + (uint64_t)st->st_size);

    return v != 0 ? v : 1;
}

/* What is under a name; symbolic links are not followed. -ENOENT when it is no regular file. */
static int stat_name(struct rt_task *t, const struct dir_place *p, struct stat *st)
{
    struct rt_io io = {
        .op = RT_IO_STAT, .fd = p->fd, .path = p->name, .st = st, .flags = AT_SYMLINK_NOFOLLOW};
    int rc;

    rt_req_init_task(&io.req, t);
    rt_io_submit(&io);
    rc = rt_wait(t, &io.req);
    if (rc < 0)
        return dir_errno(rc);
    return S_ISREG(st->st_mode) ? 0 : -ENOENT;
}

/* Opens the key's file for reading. The descriptor, or an errno; -ENOENT for what is no file. */
static int open_value(struct rt_task *t, struct dir *d, struct bytes key, struct stat *st)
{
    struct dir_place p;
    int fd, rc;

    rc = dir_place_open(t, d, key, false, &p);
    if (rc < 0)
        return rc;
    fd = rt_open(t, p.fd, p.name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK, 0);
    dir_place_close(t, d, &p);
    if (fd < 0)
        return dir_errno(fd);
    rc = dir_errno(rt_stat(t, fd, "", st));
    if (rc == 0 && !S_ISREG(st->st_mode))
        rc = -ENOENT;
    if (rc < 0) {
        rt_close(t, fd);
        return rc;
    }
    return fd;
}

/* Copies `len` bytes from the start of one file to `off` of another. */
static int copy_file(struct rt_task *t, struct dir *d, int from, int to, uint64_t off, uint64_t len)
{
    int rc = 0;

    while (d->copying) {
        rc = rt_cond_wait(t, &d->copied);
        if (rc < 0)
            return rc;
    }
    d->copying = true;
    for (uint64_t done = 0; done < len && rc == 0;) {
        size_t n = (size_t)MIN(len - done, DIR_COPY_BYTES);

        rc = dir_errno(rt_pread_all(t, from, d->copy, n, done));
        if (rc == 0)
            rc = dir_errno(rt_pwrite_all(t, to, d->copy, n, off + done));
        done += n;
    }
    d->copying = false;
    rt_cond_wake_one(&d->copied);
    return rc;
}

/* --- putting a value in place ----------------------------------------------------------------- */

struct put {
    struct bytes key;
    uint32_t flags;
    uint64_t version;     /* in: asked for; out: of what was stored */
    struct dir_temp *tmp; /* the value, not yet durable */
    uint64_t len;
};

/* Whether it may happen, given what is there. The lock is held. */
static int check(struct rt_task *t, const struct dir_place *p, const struct put *put)
{
    struct stat st;
    int rc;

    if ((put->flags & (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST | KV_F_IF_VERSION)) == 0)
        return 0;
    rc = stat_name(t, p, &st);
    if (rc < 0 && rc != -ENOENT)
        return rc;
    if ((put->flags & KV_F_MUST_EXIST) != 0 && rc == -ENOENT)
        return -ENOENT;
    if ((put->flags & KV_F_MUST_NOT_EXIST) != 0 && rc == 0)
        return -EEXIST;
    if ((put->flags & KV_F_IF_VERSION) != 0 && (rc == -ENOENT || version_of(&st) != put->version))
        return -ESTALE;
    return 0;
}

/* Appending: *tmp becomes a new file of the present value and what it was. */
static int join_present(struct rt_task *t, struct dir *d, struct put *put)
{
    struct dir_temp joined = {.fd = -1};
    struct stat st;
    int old = open_value(t, d, put->key, &st);
    int rc;

    if (old < 0)
        return old == -ENOENT ? 0 : old;
    rc = put->len > DIR_VAL_MAX - (uint64_t)st.st_size ? -EFBIG : 0;
    if (rc == 0)
        rc = dir_temp_new(t, d, &joined);
    if (rc == 0)
        rc = copy_file(t, d, old, joined.fd, 0, (uint64_t)st.st_size);
    if (rc == 0)
        rc = copy_file(t, d, put->tmp->fd, joined.fd, (uint64_t)st.st_size, put->len);
    rt_close(t, old);
    if (rc < 0) {
        dir_temp_drop(t, d, &joined);
        return rc;
    }
    dir_temp_drop(t, d, put->tmp);
    *put->tmp = joined;
    return 0;
}

/* Renames, with the promise of must-not-exist kept also against other processes. */
static int rename_into(struct rt_task *t, struct dir *d, struct put *put, struct dir_place *p)
{
    bool fresh = (put->flags & KV_F_MUST_NOT_EXIST) != 0;
    int rc;

    rc = rt_rename(t, d->temp_fd, put->tmp->name, p->fd, p->name, fresh ? RENAME_NOREPLACE : 0);
    if (rc == -EINVAL && fresh) {
        /* The file system does not know the flag: a link is as good. */
        rc = rt_link(t, d->temp_fd, put->tmp->name, p->fd, p->name);
        if (rc == 0)
            (void)rt_unlink(t, d->temp_fd, put->tmp->name, 0);
    }
    if (rc == 0)
        put->tmp->name[0] = '\0';
    return dir_errno(rc);
}

/* From the rename on there is no way back: nothing of it is cancelled. */
static int place_value(struct rt_task *t, struct dir *d, struct put *put)
{
    struct dir_place p;
    int rc = 0;

    for (unsigned i = 0; i < RETRIES; i++) {
        rc = dir_place_open(t, d, put->key, true, &p);
        if (rc == -ENOENT)
            continue; /* a directory on the way was pruned as soon as it was made; again */
        if (rc < 0)
            break;
        rc = check(t, &p, put);
        if (rc == 0) {
            rt_task_shield(t, true);
            rc = rename_into(t, d, put, &p);
            if (rc == 0) {
                dir_index_note(d, put->key, true);
                rc = sync_place(t, d, &p);
                rt_task_shield(t, false);
                dir_place_close(t, d, &p);
                return rc;
            }
            rt_task_shield(t, false);
        }
        dir_place_close(t, d, &p);
        if (rc != -ENOENT || put->key.len <= DIR_PIECE_KEY_BYTES ||
            (put->flags & KV_F_MUST_EXIST) != 0)
            break; /* else: the directory was pruned in between; again */
    }
    return rc;
}

/* Makes the value durable, then visible. The temporary file is gone or renamed afterwards. */
static int put_value(struct rt_task *t, struct dir *d, struct put *put)
{
    bool wants_version = (put->flags & KV_F_NO_VERSION) == 0;
    struct dir_lock lock;
    struct stat st = {0};
    int rc = 0;

    if ((put->flags & KV_F_APPEND) == 0)
        rc = dir_errno(rt_fdatasync(t, put->tmp->fd));
    if (rc == 0)
        rc = lock_take(t, d, put->key, &lock);
    if (rc < 0) {
        dir_temp_drop(t, d, put->tmp);
        return rc;
    }
    if ((put->flags & KV_F_APPEND) != 0) {
        rc = join_present(t, d, put);
        if (rc == 0)
            rc = dir_errno(rt_fdatasync(t, put->tmp->fd));
    }
    if (rc == 0 && wants_version)
        rc = dir_errno(rt_stat(t, put->tmp->fd, "", &st));
    if (rc == 0)
        rc = place_value(t, d, put);
    lock_put(d, &lock);
    dir_temp_drop(t, d, put->tmp);
    if (rc == 0)
        put->version = wants_version ? version_of(&st) : 0;
    return rc;
}

/* --- requests --------------------------------------------------------------------------------- */

/* Refuses early what would be refused in the end, before the value is written. */
static int check_early(struct rt_task *t, struct dir *d, const struct kv_req *req)
{
    struct put put = {.key = req->key, .flags = req->flags, .version = req->version};
    struct dir_place p;
    int rc;

    if ((req->flags & (KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST | KV_F_IF_VERSION)) == 0)
        return 0;
    rc = dir_place_open(t, d, req->key, false, &p);
    if (rc == -ENOENT)
        return (req->flags & KV_F_MUST_EXIST) != 0   ? -ENOENT
               : (req->flags & KV_F_IF_VERSION) != 0 ? -ESTALE
                                                     : 0;
    if (rc < 0)
        return rc;
    rc = check(t, &p, &put);
    dir_place_close(t, d, &p);
    return rc;
}

int dir_store(struct rt_task *t, struct dir *d, struct kv_req *req)
{
    struct dir_temp tmp = {.fd = -1};
    struct put put = {.key = req->key,
                      .flags = req->flags,
                      .version = req->version,
                      .tmp = &tmp,
                      .len = req->len};
    int rc;

    rc = check_early(t, d, req);
    if (rc == 0)
        rc = dir_temp_new(t, d, &tmp);
    if (rc == 0)
        rc = move(t, RT_IO_WRITEV, tmp.fd, req->iov, req->iovcnt, 0, req->len);
    if (rc < 0) {
        dir_temp_drop(t, d, &tmp);
        return rc;
    }
    rc = put_value(t, d, &put);
    if (rc == 0)
        req->version = put.version;
    return rc;
}

int dir_retrieve(struct rt_task *t, struct dir *d, struct kv_req *req)
{
    struct stat st;
    int fd = open_value(t, d, req->key, &st);
    uint64_t len;
    int rc;

    if (fd < 0)
        return fd;
    req->value_len = (uint64_t)st.st_size;
    req->version = version_of(&st);
    len = req->off < req->value_len ? MIN(req->len, req->value_len - req->off) : 0;
    rc = move(t, RT_IO_READV, fd, req->iov, req->iovcnt, req->off, len);
    rt_close(t, fd);
    if (rc == 0)
        req->moved = len;
    return rc;
}

int dir_stat(struct rt_task *t, struct dir *d, struct kv_req *req)
{
    struct dir_place p;
    struct stat st;
    int rc = dir_place_open(t, d, req->key, false, &p);

    if (rc < 0)
        return rc;
    rc = stat_name(t, &p, &st);
    dir_place_close(t, d, &p);
    if (rc < 0)
        return rc;
    req->value_len = (uint64_t)st.st_size;
    req->version = version_of(&st);
    return 0;
}

static int delete_locked(struct rt_task *t, struct dir *d, struct kv_req *req, struct dir_place *p)
{
    struct stat st;
    int rc = stat_name(t, p, &st);

    if (rc < 0)
        return rc;
    if ((req->flags & KV_F_IF_VERSION) != 0 && version_of(&st) != req->version)
        return -ESTALE;
    rt_task_shield(t, true);
    rc = dir_errno(rt_unlink(t, p->fd, p->name, 0));
    if (rc == 0) {
        dir_index_note(d, req->key, false);
        rc = sync_place(t, d, p);
    }
    rt_task_shield(t, false);
    return rc;
}

int dir_delete(struct rt_task *t, struct dir *d, struct kv_req *req)
{
    struct dir_place p;
    struct dir_lock lock;
    int rc;

    rc = lock_take(t, d, req->key, &lock);
    if (rc < 0)
        return rc;
    rc = dir_place_open(t, d, req->key, false, &p);
    if (rc == 0) {
        rc = delete_locked(t, d, req, &p);
        dir_place_close(t, d, &p);
    }
    if (rc == 0 && req->key.len > DIR_PIECE_KEY_BYTES) {
        rt_task_shield(t, true);
        dir_place_prune(t, d, req->key);
        rt_task_shield(t, false);
    }
    lock_put(d, &lock);
    return rc;
}

/* --- streams ---------------------------------------------------------------------------------- */

static struct dir_stream *stream_of(const struct kv_req *req)
{
    return (struct dir_stream *)req->stream;
}

static struct dir_stream *stream_get(struct dir *d)
{
    struct dir_stream *st = rt_pool_get(&d->streams);

    if (st == NULL)
        return NULL;
    st->fd = -1;
    st->tmp = (struct dir_temp){.fd = -1};
    st->len = 0;
    return st;
}

int dir_store_open(struct rt_task *t, struct dir *d, struct kv_req *req)
{
    struct dir_stream *st;
    int rc = check_early(t, d, req);

    if (rc < 0)
        return rc;
    st = stream_get(d);
    if (st == NULL)
        return -ENOMEM;
    rc = dir_temp_new(t, d, &st->tmp);
    if (rc < 0) {
        rt_pool_put(&d->streams, st);
        return rc;
    }
    st->flags = req->flags;
    st->version = req->version;
    st->key_len = (uint16_t)req->key.len;
    memcpy(st->key, req->key.ptr, req->key.len);
    req->stream = (struct kv_stream *)st;
    return 0;
}

int dir_write(struct rt_task *t, struct dir *d, struct kv_req *req)
{
    struct dir_stream *st = stream_of(req);
    int rc = move(t, RT_IO_WRITEV, st->tmp.fd, req->iov, req->iovcnt, req->off, req->len);

    if (rc == 0)
        st->len = req->off + req->len;
    return rc;
}

int dir_commit(struct rt_task *t, struct dir *d, struct kv_req *req)
{
    struct dir_stream *st = stream_of(req);
    struct put put = {.key = bytes_make(st->key, st->key_len),
                      .flags = st->flags,
                      .version = st->version,
                      .tmp = &st->tmp,
                      .len = st->len};
    int rc = 0;

    if (req->op == KV_COMMIT) {
        rc = put_value(t, d, &put);
        req->version = put.version;
    } else {
        dir_temp_drop(t, d, &st->tmp);
    }
    rt_pool_put(&d->streams, st);
    return rc;
}

int dir_retrieve_open(struct rt_task *t, struct dir *d, struct kv_req *req)
{
    struct dir_stream *st = stream_get(d);
    struct stat sb;

    if (st == NULL)
        return -ENOMEM;
    st->fd = open_value(t, d, req->key, &sb);
    if (st->fd < 0) {
        int rc = st->fd;

        rt_pool_put(&d->streams, st);
        return rc;
    }
    st->len = req->value_len = (uint64_t)sb.st_size;
    req->version = version_of(&sb);
    req->stream = (struct kv_stream *)st;
    return 0;
}

int dir_read(struct rt_task *t, struct dir *d, struct kv_req *req)
{
    struct dir_stream *st = stream_of(req);
    uint64_t len = req->off < st->len ? MIN(req->len, st->len - req->off) : 0;
    int rc = move(t, RT_IO_READV, st->fd, req->iov, req->iovcnt, req->off, len);

    if (rc == 0)
        req->moved = len;
    return rc;
}

int dir_read_close(struct rt_task *t, struct dir *d, struct kv_req *req)
{
    struct dir_stream *st = stream_of(req);

    rt_close(t, st->fd);
    rt_pool_put(&d->streams, st);
    return 0;
}
