/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sorted index. A directory has no order and no way to begin in the middle, so a scan reads all
 * names and keeps the smallest from some key on, as many as memory allows: the index is complete
 * for [lo, hi). Lists are served from it as long as it holds; beyond hi the next scan begins there.
 *
 * What this process changes goes into the index at once, also while a scan is under way. What
 * others change shows in the time of the directory, and makes the index invalid; only while this
 * process writes too, so that the time changes anyway, is the index used up to a certain age.
 *
 * A spread directory stands in the index as its prefix, and is read when a list gets there.
 */
#include "kv/drivers/dir/dir.h"

#include <dirent.h>
#include <fcntl.h>

#define AGE_MIN_NS NS_PER_S
#define AGE_SCANS 8              /* or so many times what the scan took */
#define RACY_NS (20 * NS_PER_MS) /* times of files move in steps; none is longer */

int dir_index_init(struct dir_index *x, uint64_t memory_bytes)
{
    int rc = slab_init(&x->slab, memory_bytes);

    if (rc < 0)
        return rc;
    x->lo = calloc(4, KV_KEY_MAX);
    x->entries = malloc(DIR_READDIR_BYTES);
    if (x->lo == NULL || x->entries == NULL) {
        dir_index_fini(x);
        return -ENOMEM;
    }
    x->hi = x->lo + KV_KEY_MAX;
    x->at = x->hi + KV_KEY_MAX;
    x->probe = x->at + KV_KEY_MAX;
    x->fits = true;
    art_init(&x->names, &x->slab);
    return 0;
}

void dir_index_fini(struct dir_index *x)
{
    slab_fini(&x->slab);
    free(x->lo);
    free(x->entries);
    x->lo = NULL;
    x->entries = NULL;
}

/* --- names ------------------------------------------------------------------------------------ */

static struct bytes lo_of(const struct dir_index *x)
{
    return bytes_make(x->lo, x->lo_len);
}

static struct bytes hi_of(const struct dir_index *x)
{
    return bytes_make(x->hi, x->hi_len);
}

static struct dir_leaf *leaf_of(struct art_key *k)
{
    return k != NULL ? container_of(k, struct dir_leaf, key) : NULL;
}

static struct dir_leaf *leaf_find(const struct dir_index *x, struct bytes key)
{
    return leaf_of(art_find(&x->names, key));
}

static void leaf_drop(struct dir_index *x, struct dir_leaf *leaf)
{
    art_del(&x->names, &leaf->key);
    slab_free(&x->slab, leaf);
}

static void set_hi(struct dir_index *x, struct bytes key)
{
    memmove(x->hi, key.ptr, key.len);
    x->hi_len = key.len;
    x->to_end = false;
}

static bool below_hi(const struct dir_index *x, struct bytes key)
{
    return x->to_end || bytes_cmp(key, hi_of(x)) < 0;
}

/* Whether the index is to have this name. A spread directory also when lo lies inside it. */
static bool in_range(const struct dir_index *x, struct bytes key, uint8_t flag)
{
    int cmp = bytes_cmp(key, lo_of(x));

    if (!below_hi(x, key))
        return false;
    if (cmp > 0 || (cmp == 0 && (!x->lo_after || flag == LEAF_SPREAD)))
        return true;
    return flag == LEAF_SPREAD && bytes_has_prefix(lo_of(x), key);
}

static struct dir_leaf *leaf_new(struct dir_index *x, struct bytes key)
{
    struct dir_leaf *leaf = slab_alloc(&x->slab, sizeof(*leaf) + key.len);

    if (leaf == NULL)
        return NULL;
    leaf->flags = 0;
    leaf->key.len = (uint16_t)key.len;
    memcpy(leaf->key.bytes, key.ptr, key.len);
    if (art_add(&x->names, &leaf->key) < 0) {
        slab_free(&x->slab, leaf);
        return NULL;
    }
    return leaf;
}

/* A name's leaf, made when it is not there. Full: the largest names make room, and the range ends
 * before them. NULL: the name itself is beyond the range now. */
static struct dir_leaf *leaf_get(struct dir_index *x, struct bytes key)
{
    struct dir_leaf *leaf = leaf_find(x, key);

    while (leaf == NULL) {
        struct dir_leaf *last;

        leaf = leaf_new(x, key);
        if (leaf != NULL)
            break;
        last = leaf_of(art_last(&x->names));
        if (x->to_end)
            x->capacity = x->names.count;
        if (last == NULL || bytes_cmp(key, art_key_bytes(&last->key)) > 0) {
            set_hi(x, key);
            return NULL;
        }
        set_hi(x, art_key_bytes(&last->key));
        leaf_drop(x, last);
    }
    return leaf;
}

/* What a scan has found. */
static void found(struct dir_index *x, struct bytes key, uint8_t flag)
{
    struct dir_leaf *leaf;

    x->seen++;
    if (!in_range(x, key, flag))
        return;
    leaf = leaf_get(x, key);
    if (leaf != NULL && !(flag == LEAF_FILE && (leaf->flags & LEAF_GONE) != 0))
        leaf->flags |= flag;
}

static void note_stored(struct dir_index *x, struct bytes key)
{
    struct dir_leaf *leaf = in_range(x, key, LEAF_FILE) ? leaf_get(x, key) : NULL;

    if (leaf == NULL)
        return;
    leaf->flags |= LEAF_FILE;
    leaf->flags &= (uint8_t)~LEAF_GONE;
}

static void note_deleted(struct dir_index *x, struct bytes key)
{
    struct dir_leaf *leaf = leaf_find(x, key);

    if (x->scanning && leaf == NULL && in_range(x, key, LEAF_FILE))
        leaf = leaf_get(x, key);
    if (leaf == NULL)
        return;
    leaf->flags &= (uint8_t)~LEAF_FILE;
    if (x->scanning)
        leaf->flags |= LEAF_GONE;
    else if (leaf->flags == 0)
        leaf_drop(x, leaf);
}

void dir_index_note(struct dir *d, struct bytes key, bool stored)
{
    struct dir_index *x = &d->index;

    if (!x->valid && !x->scanning)
        return;
    x->own_changes++;
    for (size_t n = DIR_PIECE_KEY_BYTES; n < key.len; n += DIR_PIECE_KEY_BYTES) {
        struct bytes prefix = bytes_make(key.ptr, n);
        struct dir_leaf *leaf = leaf_find(x, prefix);

        if (leaf != NULL && (leaf->flags & LEAF_EXPANDED) != 0)
            continue;
        /* Its directory has not been read yet: that will find the key. */
        if (stored && in_range(x, prefix, LEAF_SPREAD)) {
            leaf = leaf_get(x, prefix);
            if (leaf != NULL)
                leaf->flags |= LEAF_SPREAD;
        }
        return;
    }
    if (stored)
        note_stored(x, key);
    else
        note_deleted(x, key);
}

/* --- scanning --------------------------------------------------------------------------------- */

/* DT_UNKNOWN: some file systems do not say. */
static uint8_t type_of(struct rt_task *t, int fd, const struct rt_dirent *e)
{
    struct stat st;
    struct rt_io io = {
        .op = RT_IO_STAT, .fd = fd, .path = e->name, .st = &st, .flags = AT_SYMLINK_NOFOLLOW};

    if (e->type != DT_UNKNOWN)
        return e->type;
    rt_req_init_task(&io.req, t);
    rt_io_submit(&io);
    if (rt_wait(t, &io.req) < 0)
        return DT_UNKNOWN;
    return S_ISREG(st.st_mode) ? DT_REG : S_ISDIR(st.st_mode) ? DT_DIR : DT_UNKNOWN;
}

/* Takes in the names of one directory, whose keys begin with the x->probe[0..prefix_len). */
static int scan_dir(struct rt_task *t, struct dir_index *x, int fd, size_t prefix_len)
{
    bool rewind = true;

    for (;;) {
        int n = rt_readdir(t, fd, rewind, x->entries, DIR_READDIR_BYTES);

        if (n <= 0)
            return dir_errno(n);
        rewind = false;
        for (int at = 0; at < n;) {
            const struct rt_dirent *e = (const void *)(x->entries + at);
            size_t len = 0;
            enum dir_name is;
            uint8_t type;

            at += e->size;
            if (prefix_len + DIR_PIECE_KEY_BYTES > KV_KEY_MAX &&
                strlen(e->name) / 2 > KV_KEY_MAX - prefix_len)
                continue;
            is = dir_name_parse(e->name, x->probe + prefix_len, &len);
            if (is == DIR_NAME_OTHER)
                continue;
            type = type_of(t, fd, e);
            if (is == DIR_NAME_KEY && type == DT_REG)
                found(x, bytes_make(x->probe, prefix_len + len), LEAF_FILE);
            else if (is == DIR_NAME_SPREAD && type == DT_DIR)
                found(x, bytes_make(x->probe, prefix_len + len), LEAF_SPREAD);
        }
    }
}

/* Reads the namespace anew, for keys from `lo` on. */
static int scan(struct rt_task *t, struct dir *d, struct bytes lo, bool lo_after)
{
    struct dir_index *x = &d->index;
    uint64_t wall = rt_wall_ns(), mtime;
    struct stat st;
    int fd, rc;

    x->valid = false;
    memmove(x->lo, lo.ptr, lo.len);
    x->lo_len = lo.len;
    x->lo_after = lo_after;
    x->to_end = true;
    slab_reset(&x->slab);
    art_init(&x->names, &x->slab);
    x->own_changes = 0;
    x->expanded = false;
    x->seen = 0;
    x->scanned_ns = rt_now();
    rc = rt_stat(t, d->fd, "", &st);
    if (rc < 0)
        return dir_errno(rc);
    fd = dir_spread_open(t, d, bytes_make(NULL, 0));
    if (fd < 0)
        return fd;
    x->scanning = true;
    rc = scan_dir(t, x, fd, 0);
    rt_close(t, fd);
    x->scanning = false; /* not before the close, which waits: what changes meanwhile counts */
    if (rc < 0)
        return rc;
    x->mtime = st.st_mtim;
    mtime = (uint64_t)st.st_mtim.tv_sec * NS_PER_S + (uint64_t)st.st_mtim.tv_nsec;
    x->racy = mtime + RACY_NS > wall;
    x->scan_took_ns = rt_now() - x->scanned_ns;
    x->fits = x->to_end || x->seen < x->capacity / 2;
    x->valid = true;
    return 0;
}

/* Reads the spread directory of a prefix into the index. */
static int expand(struct rt_task *t, struct dir *d, struct dir_leaf *leaf)
{
    struct dir_index *x = &d->index;
    size_t len = leaf->key.len;
    int fd, rc;

    memcpy(x->probe, leaf->key.bytes, len);
    leaf->flags |= LEAF_EXPANDED;
    x->expanded = true;
    x->scanning = true;
    fd = dir_spread_open(t, d, bytes_make(x->probe, len));
    rc = fd < 0 ? fd : scan_dir(t, x, fd, len);
    x->scanning = false;
    if (fd >= 0)
        rt_close(t, fd);
    if (rc == -ENOENT)
        return 0; /* pruned since */
    if (rc < 0)
        x->valid = false;
    return rc;
}

/* Whether the index may still be used, given the present time of the directory. */
static bool still_good(const struct dir_index *x, const struct stat *now)
{
    bool same = now->st_mtim.tv_sec == x->mtime.tv_sec && now->st_mtim.tv_nsec == x->mtime.tv_nsec;

    bool young = rt_now() - x->scanned_ns < MAX(AGE_MIN_NS, AGE_SCANS * x->scan_took_ns);

    if (!x->valid)
        return false;
    if (same && !x->racy) /* spread directories have times of their own */
        return young || !x->expanded;
    return young && x->own_changes > 0;
}

/* Whether keys from `from` on are what the index is about. */
static bool covers(const struct dir_index *x, struct bytes from, bool after)
{
    int cmp = bytes_cmp(from, lo_of(x));

    if (cmp < 0 || (cmp == 0 && x->lo_after && !after))
        return false;
    return below_hi(x, from);
}

static int cover(struct rt_task *t, struct dir *d, struct bytes from, bool after)
{
    struct dir_index *x = &d->index;
    struct stat st;
    int rc = dir_errno(rt_stat(t, d->fd, "", &st));

    if (rc < 0)
        return rc;
    if (still_good(x, &st) && covers(x, from, after))
        return 0;
    if (x->fits) {
        rc = scan(t, d, bytes_make(x->lo, 0), false);
        if (rc < 0 || covers(x, from, after))
            return rc;
    }
    return scan(t, d, from, after);
}

/* Expands the directories that what follows `from` lies inside of; a list meets the others. */
static int expand_above(struct rt_task *t, struct dir *d, struct bytes from, bool after)
{
    for (size_t n = DIR_PIECE_KEY_BYTES; n < from.len + after; n += DIR_PIECE_KEY_BYTES) {
        struct dir_leaf *leaf = leaf_find(&d->index, bytes_make(from.ptr, n));
        int rc;

        if (leaf == NULL || (leaf->flags & LEAF_SPREAD) == 0)
            return 0;
        if ((leaf->flags & LEAF_EXPANDED) != 0)
            continue;
        rc = expand(t, d, leaf);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* --- lists ------------------------------------------------------------------------------------ */

/* Where a list has got to. The key is x->at, which stays while the index changes. */
struct cursor {
    size_t len;
    bool after;
    size_t used;
};

static struct bytes at_of(const struct dir_index *x, const struct cursor *c)
{
    return bytes_make(x->at, c->len);
}

static void move_to(struct dir_index *x, struct cursor *c, struct bytes key, bool after)
{
    memmove(x->at, key.ptr, key.len);
    c->len = key.len;
    c->after = after;
}

enum step { STEP_DONE, STEP_SCAN, STEP_EXPAND };

/* Gives out what the index has. DONE: that was all, or the buffer is full; SCAN: go on at the
 * cursor, beyond the range; EXPAND: *out_leaf first. */
static enum step give(struct dir_index *x, struct kv_req *req, struct cursor *c,
                      struct dir_leaf **out_leaf)
{
    for (;;) {
        struct dir_leaf *leaf = leaf_of(art_seek(&x->names, at_of(x, c), c->after));
        struct bytes key;

        if (leaf == NULL) {
            if (x->to_end)
                return STEP_DONE;
            move_to(x, c, hi_of(x), false);
            /* Beyond the prefix there is nothing to look for. */
            return bytes_has_prefix(at_of(x, c), req->prefix) ? STEP_SCAN : STEP_DONE;
        }
        key = art_key_bytes(&leaf->key);
        if (!bytes_has_prefix(key, req->prefix))
            return STEP_DONE;
        if ((leaf->flags & LEAF_FILE) != 0) {
            if (!kv_list_put(req->iov[0].iov_base, req->iov[0].iov_len, &c->used, key)) {
                req->more = true;
                return STEP_DONE;
            }
            req->nkeys++;
        }
        move_to(x, c, key, true);
        if ((leaf->flags & (LEAF_SPREAD | LEAF_EXPANDED)) == LEAF_SPREAD) {
            *out_leaf = leaf;
            return STEP_EXPAND;
        }
        if (leaf->flags == LEAF_GONE)
            leaf_drop(x, leaf);
    }
}

static int list(struct rt_task *t, struct dir *d, struct kv_req *req, struct cursor *c)
{
    struct dir_index *x = &d->index;
    int rc;

    for (;;) {
        struct dir_leaf *leaf = NULL;
        enum step step;

        rc = cover(t, d, at_of(x, c), c->after);
        if (rc == 0)
            rc = expand_above(t, d, at_of(x, c), c->after);
        if (rc < 0)
            return rc;
        do {
            step = covers(x, at_of(x, c), c->after) ? give(x, req, c, &leaf) : STEP_SCAN;
            if (step == STEP_EXPAND)
                rc = expand(t, d, leaf);
        } while (step == STEP_EXPAND && rc == 0);
        if (step != STEP_SCAN || rc < 0)
            return rc;
    }
}

int dir_list(struct rt_task *t, struct dir *d, struct kv_req *req)
{
    struct dir_index *x = &d->index;
    struct cursor c = {0};
    int rc = 0;

    while (x->busy) {
        rc = rt_cond_wait(t, &x->idle);
        if (rc < 0)
            return rc;
    }
    x->busy = true;
    req->nkeys = 0;
    req->more = false;
    if (bytes_cmp(req->key, req->prefix) < 0)
        move_to(x, &c, req->prefix, false);
    else
        move_to(x, &c, req->key, (req->flags & KV_F_AFTER) != 0);
    rc = list(t, d, req, &c);
    req->moved = c.used;
    x->busy = false;
    rt_cond_wake_one(&x->idle);
    return rc;
}
