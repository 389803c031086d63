/* SPDX-License-Identifier: Apache-2.0 */
#include "blobs.h"
#include "own.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define ERRORS_MAX 8
#define RANGE_MAX 40      /* sectors of one write */
#define EXTERNAL_WORKER 3 /* all that it creates are external clones; of the others, some */

static const char *const xattr_name[BLOBM_XATTRS] = {"a", "name", "a.rather.long.name.of.an.xattr"};

struct worker {
    struct rt_req done;
    bool started; /* else there was no memory for it */
    struct blobs_work *w;
    struct blob_store *bs;
    struct blob_chan *chan;
    struct dice dice;
    unsigned idx, errors;
    bool lost;            /* a change failed: nobody knows what the family is like */
    unsigned maybe;       /* data changes since the last flush */
    uint8_t *buf, *aside; /* RANGE_MAX sectors each */
    struct blobm_family fam;
    struct blob *blob[BLOBM_SLOTS];
};

static int bad(struct worker *w, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (w->w->why[0] == '\0')
        vsnprintf(w->w->why, sizeof(w->w->why), fmt, ap);
    va_end(ap);
    return -EILSEQ;
}

static uint64_t below(struct worker *w, uint64_t n)
{
    return dice_below(&w->dice, n);
}

static bool is_trouble(const struct worker *w, int rc)
{
    return w->w->faulty && (rc == -EIO || rc == -ENOMEM || rc == -EROFS || rc == -ENODEV ||
                            rc == -ENOSPC || rc == -EBADMSG);
}

/* A blob of the family; -1: there is none of this kind. */
enum want { FREE, ANY, WRITABLE, PLAIN_THIN, SNAPSHOT, CLONE, EXTERNAL };

static bool fits(const struct blobm_slot *s, enum want want)
{
    switch (want) {
    case FREE:
        return !s->there;
    case ANY:
        return s->there;
    case WRITABLE:
        return s->there && !s->snapshot;
    case PLAIN_THIN:
        return s->there && !s->snapshot && s->thin && s->parent == 0 && s->external == 0;
    case SNAPSHOT:
        return s->there && s->snapshot;
    case CLONE:
        return s->there && !s->snapshot && (s->parent != 0 || s->external != 0);
    case EXTERNAL:
        return s->there && !s->snapshot && s->external != 0;
    }
    return false;
}

static int pick(struct worker *w, enum want want)
{
    unsigned start = (unsigned)below(w, BLOBM_SLOTS);

    for (unsigned i = 0; i < BLOBM_SLOTS; i++) {
        unsigned slot = (start + i) % BLOBM_SLOTS;

        if (fits(&w->fam.slot[slot], want))
            return (int)slot;
    }
    return -1;
}

/* Takes in what a change answered. */
static int ended(struct worker *w, struct blobm_op *op, uint32_t n, int rc, const char *what)
{
    w->w->done++;
    if (rc == 0) {
        blobm_end(n, BLOBM_DONE, op->id);
        if (op->kind < BLOBM_WRITE)
            blobm_apply(&w->fam, op);
        return 0;
    }
    if (rc == -ENOSPC && !w->w->faulty) {
        w->w->refused++;
        blobm_end(n, BLOBM_NOT_DONE, 0);
        return 0;
    }
    if (!is_trouble(w, rc))
        return bad(w, "%s of family %u, blob %u answered %d (%s)", what, w->idx, op->slot, rc,
                   strerror(-rc));
    blobm_end(n, BLOBM_UNKNOWN, 0);
    w->w->errors++;
    w->lost = true;
    return -ECANCELED;
}

static int open_slot(struct rt_task *t, struct worker *w, unsigned slot, uint64_t id)
{
    int rc = blob_open(t, w->bs, id, &w->blob[slot]);

    if (rc == 0)
        return 0;
    if (is_trouble(w, rc)) {
        w->lost = true;
        return -ECANCELED;
    }
    return bad(w, "blob %u, just made, cannot be opened: %d (%s)", slot, rc, strerror(-rc));
}

/* --- reads, also while something else happens to the blob ------------------------------------- */

struct aside {
    struct blob_req *req; /* NULL: there is nothing to read */
    struct iovec iov;
    unsigned slot;
    uint32_t first, n;
};

/* Of a blob that shows the same before and after. */
static void aside_begin(struct rt_task *t, struct worker *w, int slot, struct aside *a)
{
    uint32_t total = slot < 0 ? 0 : w->fam.slot[slot].clusters * BLOBM_CLUSTER_SECTORS;

    *a = (struct aside){.slot = (unsigned)MAX(slot, 0)};
    if (total == 0)
        return;
    a->first = (uint32_t)below(w, total);
    a->n = 1 + (uint32_t)below(w, MIN(RANGE_MAX, total - a->first));
    a->iov = (struct iovec){w->aside, (size_t)a->n * SECTOR_BYTES};
    a->req = own_alloc(sizeof(*a->req));
    must(a->req != NULL);
    rt_req_init_task(&a->req->req, t);
    a->req->op = BLOB_READ;
    a->req->iov = &a->iov;
    a->req->iovcnt = 1;
    a->req->off_bytes = (uint64_t)a->first * SECTOR_BYTES;
    a->req->len_bytes = a->iov.iov_len;
    a->req->blob = w->blob[a->slot];
    blob_submit(w->chan, a->req);
}

static int aside_end(struct rt_task *t, struct worker *w, struct aside *a)
{
    const struct blobm_slot *s = &w->fam.slot[a->slot];
    int rc;

    if (a->req == NULL)
        return 0;
    rc = rt_wait(t, &a->req->req);
    own_free(a->req);
    if (is_trouble(w, rc)) {
        w->w->errors++;
        return ++w->errors > ERRORS_MAX ? -ECANCELED : 0;
    }
    if (rc < 0)
        return bad(w, "reading blob %u answered %d", a->slot, rc);
    for (uint32_t i = 0; i < a->n; i++) {
        uint64_t place;
        uint32_t id;

        if (blobm_sector_is(s, a->first + i, w->aside + i * SECTOR_BYTES))
            continue;
        sector_tell(w->aside + i * SECTOR_BYTES, &place, &id);
        return bad(w, "family %u, blob %u: sector %u reads as write %u of place %llu, should be %u",
                   w->idx, a->slot, a->first + i, id, (unsigned long long)place,
                   s->sector[a->first + i].id[0]);
    }
    return 0;
}

/* --- changes of metadata ---------------------------------------------------------------------- */

static int create_external(struct rt_task *t, const struct worker *w,
                           const struct blob_create_opts *opts, struct blobm_op *op)
{
    const char *id = external_path(op->external - 1u);

    return blob_create_esnap_clone(t, w->bs, id, (uint16_t)strlen(id), opts->clusters, opts->xattrs,
                                   opts->nxattrs, &op->id);
}

static int do_create(struct rt_task *t, struct worker *w)
{
    static const uint16_t lens[] = {5, 100, 1000, 3900};
    int slot = pick(w, FREE);
    struct blobm_op op = {.kind = BLOBM_CREATE, .family = (uint8_t)w->idx};
    struct blob_create_opts opts = {0};
    struct blob_xattr x = {.name = xattr_name[0], .value = w->buf};
    uint32_t n;
    int rc;

    if (slot < 0)
        return 0;
    op.slot = (uint8_t)slot;
    if (w->idx == EXTERNAL_WORKER || below(w, 4) == 0)
        op.external = (uint8_t)(1 + below(w, EXTERNALS));
    op.thin = opts.thin = op.external != 0 || below(w, 4) != 0;
    op.n = (uint32_t)below(w, op.thin ? BLOBM_CLUSTERS_MAX + 1 : 5);
    opts.clusters = op.n;
    opts.extent_rle = below(w, 4) == 0;
    if (below(w, 2) == 0) {
        op.content = blobm_content();
        op.first = x.value_len = lens[below(w, ARRAY_LEN(lens))];
        blobm_xattr_fill(w->buf, op.content, x.value_len);
        opts.xattrs = &x;
        opts.nxattrs = 1;
    }
    n = blobm_issue(&op);
    rc =
        op.external != 0 ? create_external(t, w, &opts, &op) : blob_create(t, w->bs, &opts, &op.id);
    rc = ended(w, &op, n, rc, "create");
    return rc == 0 && w->fam.slot[slot].there ? open_slot(t, w, (unsigned)slot, op.id) : rc;
}

static int do_delete(struct rt_task *t, struct worker *w)
{
    int slot = pick(w, below(w, 2) == 0 ? ANY : SNAPSHOT);
    struct blobm_op op = {.kind = BLOBM_DELETE, .family = (uint8_t)w->idx};
    unsigned clones = 0;
    int rc, read, clone = -1;
    struct aside a;
    uint64_t id;
    uint32_t n;

    if (slot < 0)
        return 0;
    for (unsigned i = 0; i < BLOBM_SLOTS; i++) {
        if (!w->fam.slot[i].there || w->fam.slot[i].parent != slot + 1)
            continue;
        clones++;
        clone = (int)i;
    }
    op.slot = (uint8_t)slot;
    id = w->fam.slot[slot].id;
    blob_close(t, take_ptr(&w->blob[slot]));
    if (clones > 1) {
        rc = blob_delete(t, w->bs, id);
        if (rc != -EBUSY && !is_trouble(w, rc))
            return bad(w, "deleting a snapshot with %u clones answered %d", clones, rc);
        return open_slot(t, w, (unsigned)slot, id);
    }
    n = blobm_issue(&op);
    aside_begin(t, w, clone, &a);
    rc = blob_delete(t, w->bs, id);
    read = aside_end(t, w, &a);
    rc = ended(w, &op, n, rc, "delete");
    rc = rc == 0 ? read : rc;
    return rc == 0 && w->fam.slot[slot].there ? open_slot(t, w, (unsigned)slot, id) : rc;
}

static int do_resize(struct rt_task *t, struct worker *w)
{
    int slot = pick(w, WRITABLE);
    struct blobm_op op = {.kind = BLOBM_RESIZE, .family = (uint8_t)w->idx};
    uint32_t n;

    if (slot < 0)
        return 0;
    op.slot = (uint8_t)slot;
    op.n = (uint32_t)below(w, (w->fam.slot[slot].thin ? BLOBM_CLUSTERS_MAX : 4) + 1);
    n = blobm_issue(&op);
    return ended(w, &op, n, blob_resize(t, w->blob[slot], op.n), "resize");
}

static int do_xattr(struct rt_task *t, struct worker *w)
{
    int slot = pick(w, WRITABLE);
    struct blobm_op op = {.kind = BLOBM_XATTR, .family = (uint8_t)w->idx};
    const struct blobm_xattr *x;
    uint32_t n;
    int rc;

    if (slot < 0)
        return 0;
    op.slot = (uint8_t)slot;
    op.first = (uint32_t)below(w, BLOBM_XATTRS);
    x = &w->fam.slot[slot].xattr[op.first];
    if (x->content != 0 && below(w, 3) == 0) {
        n = blobm_issue(&op);
        rc = blob_remove_xattr(t, w->blob[slot], xattr_name[op.first]);
        return ended(w, &op, n, rc, "removing an xattr");
    }
    op.content = blobm_content();
    op.n = (uint32_t)below(w, below(w, 3) == 0 ? 3500 : 60);
    blobm_xattr_fill(w->buf, op.content, op.n);
    n = blobm_issue(&op);
    rc = blob_set_xattr(t, w->blob[slot], xattr_name[op.first], w->buf, (uint16_t)op.n);
    return ended(w, &op, n, rc, "setting an xattr");
}

static int do_snapshot(struct rt_task *t, struct worker *w, bool clone)
{
    int from = pick(w, clone ? SNAPSHOT : WRITABLE), to = pick(w, FREE);
    struct blobm_op op = {.kind = clone ? BLOBM_CLONE : BLOBM_SNAPSHOT, .family = (uint8_t)w->idx};
    struct aside a;
    uint32_t n;
    int rc, read;

    if (from < 0 || to < 0)
        return 0;
    op.slot = (uint8_t)from;
    op.slot2 = (uint8_t)to;
    n = blobm_issue(&op);
    aside_begin(t, w, from, &a);
    rc = clone ? blob_clone(t, w->bs, w->fam.slot[from].id, NULL, 0, &op.id)
               : blob_snapshot(t, w->blob[from], NULL, 0, &op.id);
    read = aside_end(t, w, &a);
    rc = ended(w, &op, n, rc, clone ? "clone" : "snapshot");
    rc = rc == 0 ? read : rc;
    return rc == 0 && w->fam.slot[to].there ? open_slot(t, w, (unsigned)to, op.id) : rc;
}

static int do_inflate(struct rt_task *t, struct worker *w)
{
    bool inflate = below(w, 2) == 0;
    int slot = pick(w, CLONE);
    struct blobm_op op = {.kind = inflate ? BLOBM_INFLATE : BLOBM_DECOUPLE,
                          .family = (uint8_t)w->idx};
    struct aside a;
    uint32_t n;
    int rc, read;

    if (slot < 0)
        return 0;
    op.slot = (uint8_t)slot;
    n = blobm_issue(&op);
    aside_begin(t, w, slot, &a);
    rc = inflate ? blob_inflate(t, w->blob[slot], NULL, NULL)
                 : blob_decouple(t, w->blob[slot], NULL, NULL);
    read = aside_end(t, w, &a);
    rc = ended(w, &op, n, rc, inflate ? "inflate" : "decouple");
    return rc == 0 ? read : rc;
}

static int do_range(struct rt_task *t, struct worker *w, bool release)
{
    int slot = pick(w, PLAIN_THIN);
    struct blobm_op op = {.kind = release ? BLOBM_RELEASE : BLOBM_ALLOCATE,
                          .family = (uint8_t)w->idx};
    uint32_t n, clusters;
    int rc;

    if (slot < 0 || w->fam.slot[slot].clusters == 0)
        return 0;
    clusters = w->fam.slot[slot].clusters;
    op.slot = (uint8_t)slot;
    op.first = (uint32_t)below(w, clusters);
    op.n = 1 + (uint32_t)below(w, clusters - op.first);
    n = blobm_issue(&op);
    w->maybe++;
    rc = release ? blob_release(t, w->blob[slot], op.first, op.n)
                 : blob_allocate(t, w->blob[slot], op.first, op.n);
    return ended(w, &op, n, rc, release ? "release" : "allocate");
}

/* What shows through cannot be given back. */
static int refuses_release(struct rt_task *t, struct worker *w)
{
    int slot = pick(w, EXTERNAL), rc;

    if (slot < 0 || w->fam.slot[slot].clusters == 0)
        return 0;
    rc = blob_release(t, w->blob[slot], 0, 1);
    if (rc == -EINVAL || is_trouble(w, rc))
        return 0;
    return bad(w, "giving a cluster of an external clone back answered %d", rc);
}

/* --- data ------------------------------------------------------------------------------------- */

static int submit(struct rt_task *t, struct worker *w, unsigned slot, enum blob_op kind,
                  uint32_t first, uint32_t n)
{
    struct iovec iov = {.iov_base = w->buf, .iov_len = (size_t)n * SECTOR_BYTES};
    struct blob_req *req = own_alloc(sizeof(*req));
    int rc;

    must(req != NULL);
    rt_req_init_task(&req->req, t);
    req->op = (uint8_t)kind;
    req->flags = kind == BLOB_WRITE && below(w, 10) == 0 ? BLOB_F_FUA : 0;
    req->iov = &iov;
    req->iovcnt = kind == BLOB_READ || kind == BLOB_WRITE;
    req->off_bytes = (uint64_t)first * SECTOR_BYTES;
    req->len_bytes = iov.iov_len;
    req->blob = w->blob[slot];
    blob_submit(w->chan, req);
    rc = rt_wait(t, &req->req);
    own_free(req);
    return rc;
}

static int do_flush(struct rt_task *t, struct worker *w)
{
    struct blobm_op op = {.kind = BLOBM_FLUSH, .family = (uint8_t)w->idx};
    int slot = pick(w, WRITABLE);
    uint32_t n;

    if (slot < 0)
        return 0;
    n = blobm_issue(&op);
    w->maybe = 0;
    return ended(w, &op, n, submit(t, w, (unsigned)slot, BLOB_FLUSH, 0, 0), "flush");
}

static int do_change(struct rt_task *t, struct worker *w)
{
    enum blobm_kind kind = below(w, 8) == 0   ? BLOBM_ZERO
                           : below(w, 8) == 0 ? BLOBM_UNMAP
                                              : BLOBM_WRITE;
    int slot = pick(w, kind == BLOBM_UNMAP ? PLAIN_THIN : WRITABLE), rc;
    struct blobm_op op = {.kind = (uint8_t)kind, .family = (uint8_t)w->idx};
    struct blobm_slot *s = &w->fam.slot[MAX(slot, 0)];
    uint32_t total = s->clusters * BLOBM_CLUSTER_SECTORS, n;

    if (slot < 0 || total == 0)
        return 0;
    if (w->maybe >= SECTOR_MAYBE - 3)
        return do_flush(t, w);
    w->maybe++;
    op.slot = (uint8_t)slot;
    if (kind == BLOBM_UNMAP) { /* whole clusters */
        op.first = (uint32_t)below(w, s->clusters) * BLOBM_CLUSTER_SECTORS;
        op.n = BLOBM_CLUSTER_SECTORS;
    } else {
        op.first = (uint32_t)below(w, total);
        op.n = 1 + (uint32_t)below(w, MIN(RANGE_MAX, total - op.first));
    }
    op.content = kind == BLOBM_WRITE ? blobm_content() : 0;
    for (uint32_t i = 0; i < op.n; i++)
        sector_fill(w->buf + i * SECTOR_BYTES, op.first + i, op.content);
    n = blobm_issue(&op);
    rc = submit(t, w, (unsigned)slot,
                kind == BLOBM_WRITE  ? BLOB_WRITE
                : kind == BLOBM_ZERO ? BLOB_WRITE_ZEROES
                                     : BLOB_UNMAP,
                op.first, op.n);
    if (rc == 0) {
        for (uint32_t i = op.first; i < op.first + op.n; i++) {
            sector_reset(&s->sector[i], op.content);
            if (kind == BLOBM_WRITE) /* zeroes may leave a hole, an unmap makes one */
                s->allocated |= 1u << i / BLOBM_CLUSTER_SECTORS;
            if (kind == BLOBM_UNMAP)
                s->allocated &= ~(1u << i / BLOBM_CLUSTER_SECTORS);
        }
    }
    return ended(w, &op, n, rc, "write, zero or unmap");
}

static int do_read(struct rt_task *t, struct worker *w)
{
    struct aside a;

    aside_begin(t, w, pick(w, ANY), &a);
    return aside_end(t, w, &a);
}

/* --- workers ---------------------------------------------------------------------------------- */

static int step(struct rt_task *t, struct worker *w)
{
    switch (below(w, 40)) {
    case 0 ... 3:
        return do_create(t, w);
    case 4 ... 5:
        return do_delete(t, w);
    case 6 ... 7:
        return do_resize(t, w);
    case 8 ... 10:
        return do_xattr(t, w);
    case 11 ... 12:
        return do_snapshot(t, w, false);
    case 13 ... 14:
        return do_snapshot(t, w, true);
    case 15:
        return do_inflate(t, w);
    case 16:
        return do_range(t, w, false);
    case 17:
        return do_range(t, w, true);
    case 18 ... 19:
        return do_flush(t, w);
    case 20 ... 25:
        return do_read(t, w);
    case 27:
        return w->idx == EXTERNAL_WORKER ? refuses_release(t, w) : do_change(t, w);
    case 26:
        if (w->idx == 0 && below(w, 3) == 0)
            return blob_store_settle(t, w->bs) < 0 && !w->w->faulty ? bad(w, "settle failed") : 0;
        return 0;
    default:
        return do_change(t, w);
    }
}

static void fam_init(struct blobm_family *fam)
{
    for (unsigned i = 0; i < BLOBM_SLOTS; i++) {
        fam->slot[i].sector = own_alloc(BLOBM_SECTORS * sizeof(struct sector));
        must(fam->slot[i].sector != NULL);
    }
}

static int worker(struct rt_task *t, void *arg)
{
    struct worker *w = arg;
    unsigned ops;
    int rc = blob_chan_get(t, w->bs, &w->chan);

    if (rc < 0)
        return w->w->faulty ? 0 : bad(w, "no channel: %d", rc);
    w->buf = own_align(RANGE_MAX * SECTOR_BYTES);
    w->aside = own_align(RANGE_MAX * SECTOR_BYTES);
    must(w->buf != NULL && w->aside != NULL);
    fam_init(&w->fam);
    ops = w->idx == EXTERNAL_WORKER ? w->w->external_ops : w->w->ops;
    for (unsigned i = 0; rc == 0 && i < ops; i++)
        rc = step(t, w);
    for (unsigned i = 0; i < BLOBM_SLOTS; i++) {
        if (w->blob[i] != NULL)
            blob_close(t, w->blob[i]);
        own_free(w->fam.slot[i].sector);
    }
    blob_chan_put(t, w->chan);
    own_free(w->buf);
    own_free(w->aside);
    return rc == -ECANCELED ? 0 : rc;
}

int blobs_work(struct rt_task *t, struct blob_store *bs, struct blobs_work *work)
{
    struct worker *w = own_alloc(BLOBM_FAMILIES * sizeof(*w));
    int rc = 0;

    must(w != NULL);
    for (unsigned i = 0; i < BLOBM_FAMILIES; i++) {
        w[i].w = work;
        w[i].bs = bs;
        w[i].dice = dice_of(work->seed, 300 + i);
        w[i].idx = i;
        rt_req_init_task(&w[i].done, t);
        w[i].started = rt_task_start("worker", worker, &w[i], &w[i].done, NULL) == 0;
    }
    for (unsigned i = 0; i < BLOBM_FAMILIES; i++) {
        int one = w[i].started ? rt_wait(t, &w[i].done) : 0;

        rc = rc == 0 ? one : rc;
    }
    own_free(w);
    return rc;
}
