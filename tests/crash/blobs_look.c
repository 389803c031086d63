/* SPDX-License-Identifier: Apache-2.0 */
#include "blobs.h"
#include "own.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define BUF_BYTES (BLOBM_CLUSTERS_MAX * BLOBM_CLUSTER_BYTES)
#define BLOBS_MAX (BLOBM_FAMILIES * BLOBM_SLOTS + 8)

static const char *const xattr_name[BLOBM_XATTRS] = {"a", "name", "a.rather.long.name.of.an.xattr"};

/* What is in the store: read once, compared with what the families may be. */
struct found {
    struct blob_info info;
    struct blobm_xattr_found {
        uint16_t len;
        bool there;
        uint8_t value[4096];
    } xattr[BLOBM_XATTRS];
    unsigned external; /* what it stands on in the end: one of external.h + 1; 0: none */
    bool claimed;      /* by a family */
    uint8_t *data;
};

struct looker {
    struct rt_task *t;
    struct blob_store *bs;
    struct blob_chan *chan;
    struct look *l;
    struct found found[BLOBS_MAX];
    unsigned nfound;
    char why[WHY_MAX]; /* of the comparison being tried */
};

/* --- reading ---------------------------------------------------------------------------------- */

static unsigned external_under(const struct blob *b)
{
    const void *id;
    uint16_t len;
    bool open;

    return blob_esnap_id(b, &id, &len, &open) == 0 ? (unsigned)(external_of(id, len) + 1) : 0;
}

static int read_blob(struct looker *o, uint64_t id)
{
    struct found *f = &o->found[o->nfound];
    struct blob *b = NULL;
    int rc = blob_open(o->t, o->bs, id, &b);

    if (rc < 0 && o->l->tolerant)
        return look_error(o->l, "open", rc);
    if (rc < 0)
        return look_bad(o->l, "blob %llx cannot be opened: %d (%s)", (unsigned long long)id, rc,
                        strerror(-rc));
    blob_info(b, &f->info);
    f->external = external_under(b);
    for (unsigned i = 0; i < BLOBM_XATTRS; i++) {
        const void *value;

        f->xattr[i].there = blob_get_xattr(b, xattr_name[i], &value, &f->xattr[i].len) == 0;
        if (f->xattr[i].there)
            memcpy(f->xattr[i].value, value, MIN(f->xattr[i].len, sizeof(f->xattr[i].value)));
    }
    f->data = own_align(BUF_BYTES);
    must(f->data != NULL);
    if (f->info.clusters > BLOBM_CLUSTERS_MAX)
        rc = look_bad(o->l, "blob %llx has %llu clusters", (unsigned long long)id,
                      (unsigned long long)f->info.clusters);
    else if (f->info.clusters > 0)
        rc = blob_read(o->t, o->chan, b, f->data, 0, f->info.clusters * BLOBM_CLUSTER_BYTES);
    if (rc < 0 && o->l->tolerant && rc != -EILSEQ) {
        own_free(f->data);
        blob_close(o->t, b);
        return look_error(o->l, "read", rc);
    }
    if (rc < 0)
        look_bad(o->l, "blob %llx cannot be read: %d (%s)", (unsigned long long)id, rc,
                 strerror(-rc));
    blob_close(o->t, b);
    o->nfound++;
    return rc;
}

static int read_all(struct looker *o)
{
    uint64_t id, from = 0;
    int rc;

    while ((rc = blob_next(o->t, o->bs, from, &id)) == 0) {
        if (o->nfound == BLOBS_MAX)
            return look_bad(o->l, "there are more than %u blobs", BLOBS_MAX);
        rc = read_blob(o, id);
        if (rc < 0)
            return rc;
        from = id + 1;
    }
    return rc == -ENOENT ? 0 : look_error(o->l, "going through the blobs", rc);
}

/* --- comparing -------------------------------------------------------------------------------- */

static bool differs(struct looker *o, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(o->why, sizeof(o->why), fmt, ap);
    va_end(ap);
    return false;
}

static struct found *find(struct looker *o, uint64_t id)
{
    for (unsigned i = 0; i < o->nfound; i++)
        if (o->found[i].info.id == id)
            return &o->found[i];
    return NULL;
}

static bool xattrs_are(struct looker *o, const struct blobm_slot *s, const struct found *f)
{
    static uint8_t want[4096];

    for (unsigned i = 0; i < BLOBM_XATTRS; i++) {
        const struct blobm_xattr *x = &s->xattr[i];

        if (f->xattr[i].there != (x->content != 0))
            return differs(o, "xattr %u is %sthere", i, f->xattr[i].there ? "" : "not ");
        if (x->content == 0)
            continue;
        blobm_xattr_fill(want, x->content, x->len);
        if (f->xattr[i].len != x->len || memcmp(want, f->xattr[i].value, x->len) != 0)
            return differs(o, "xattr %u of %u bytes is another value of %u bytes", i, x->len,
                           f->xattr[i].len);
    }
    return true;
}

static bool data_is(struct looker *o, const struct blobm_slot *s, const struct found *f)
{
    for (uint32_t i = 0; i < s->clusters * BLOBM_CLUSTER_SECTORS; i++) {
        const uint8_t *bytes = f->data + (size_t)i * SECTOR_BYTES;
        uint64_t place;
        uint32_t id;

        if (blobm_sector_is(s, i, bytes))
            continue;
        sector_tell(bytes, &place, &id);
        return differs(o, "sector %u holds write %u of place %llu; durable is %u, %u since", i, id,
                       (unsigned long long)place, s->sector[i].id[0], s->sector[i].n - 1);
    }
    return true;
}

static bool slot_is(struct looker *o, const struct blobm_family *fam, unsigned slot,
                    unsigned fam_no)
{
    const struct blobm_slot *s = &fam->slot[slot];
    struct found *f = find(o, s->id);
    uint64_t parent;
    unsigned clones = 0;
    char why[WHY_MAX];

    if (f == NULL)
        return differs(o, "blob %llx (family %u, %u) is not there", (unsigned long long)s->id,
                       fam_no, slot);
    parent = s->parent != 0 ? fam->slot[s->parent - 1].id : BLOB_ID_NONE;
    if (f->info.clusters != s->clusters)
        return differs(o, "blob %llx has %llu clusters instead of %u", (unsigned long long)s->id,
                       (unsigned long long)f->info.clusters, s->clusters);
    for (unsigned i = 0; i < BLOBM_SLOTS; i++)
        clones += fam->slot[i].there && fam->slot[i].parent == slot + 1;
    if (f->info.parent != parent || f->info.nclones != clones)
        return differs(o, "blob %llx stands on %llx and carries %u, instead of %llx and %u",
                       (unsigned long long)s->id, (unsigned long long)f->info.parent,
                       f->info.nclones, (unsigned long long)parent, clones);
    if (f->info.esnap_clone != (s->external != 0) || f->external != blobm_external(fam, s))
        return differs(o, "blob %llx stands on external %d instead of %d",
                       (unsigned long long)s->id, (int)f->external - 1,
                       (int)blobm_external(fam, s) - 1);
    if ((!s->snapshot && !xattrs_are(o, s, f)) || !data_is(o, s, f)) {
        memcpy(why, o->why, sizeof(why));
        return differs(o, "blob %llx (family %u, %u): %.300s", (unsigned long long)s->id, fam_no,
                       slot, why);
    }
    f->claimed = true;
    return true;
}

/* Something was found to be damaged: what can still be read must be right. */
static int readable_fits(struct looker *o, unsigned f)
{
    const struct blobm_family *fam = blobm_family(f);

    for (unsigned i = 0; i < BLOBM_SLOTS; i++) {
        const struct blobm_slot *s = &fam->slot[i];

        if (s->there && find(o, s->id) != NULL && !data_is(o, s, find(o, s->id)))
            return look_bad(o->l, "%s", o->why);
    }
    return 0;
}

static bool family_is(struct looker *o, const struct blobm_family *fam, unsigned fam_no)
{
    for (unsigned i = 0; i < BLOBM_SLOTS; i++)
        if (fam->slot[i].there && !slot_is(o, fam, i, fam_no))
            return false;
    return true;
}

static bool is_somebodys(uint64_t id)
{
    for (unsigned f = 0; f < BLOBM_FAMILIES; f++)
        for (unsigned i = 0; i < BLOBM_SLOTS; i++)
            if (blobm_family(f)->slot[i].there && blobm_family(f)->slot[i].id == id)
                return true;
    return false;
}

/* A change that made a blob has failed, nobody knows its id: one that is nobody else's. */
static bool unknown_is(struct looker *o, struct blobm_family *next, unsigned fam_no)
{
    unsigned slot = 0;

    while (slot < BLOBM_SLOTS && (!next->slot[slot].there || next->slot[slot].id != 0))
        slot++;
    if (slot == BLOBM_SLOTS)
        return family_is(o, next, fam_no);
    for (unsigned i = 0; i < o->nfound; i++) {
        next->slot[slot].id = o->found[i].info.id;
        if (!o->found[i].claimed && !is_somebodys(next->slot[slot].id) &&
            family_is(o, next, fam_no))
            return true;
    }
    return false;
}

static bool has_removed(struct looker *o, const struct blobm_family *old,
                        const struct blobm_family *next)
{
    for (unsigned i = 0; i < BLOBM_SLOTS; i++)
        if (old->slot[i].there && !next->slot[i].there && find(o, old->slot[i].id) != NULL)
            return false;
    return true;
}

/* The family is as it was, or as the change under way makes it. */
static int family_fits(struct looker *o, unsigned f)
{
    const struct blobm_family *old = blobm_family(f);
    struct blobm_family next;
    char why[WHY_MAX];

    if (blobm_next(f, &next) && unknown_is(o, &next, f) && has_removed(o, old, &next))
        return 0;
    memcpy(why, o->why, sizeof(why));
    if (family_is(o, old, f))
        return 0;
    if (!blobm_next(f, &next))
        return look_bad(o->l, "%s", o->why);
    return look_bad(o->l, "neither old (%.180s) nor new (%.180s)", o->why, why);
}

static bool knows_all(unsigned fam_no)
{
    struct blobm_family next;

    if (!blobm_next(fam_no, &next))
        return true;
    for (unsigned i = 0; i < BLOBM_SLOTS; i++)
        if (next.slot[i].there && next.slot[i].id == 0)
            return false;
    return true;
}

static int account(struct looker *o)
{
    struct blob_store_info info;
    uint64_t sum = 0;

    blob_store_info(o->bs, &info);
    for (unsigned i = 0; i < o->nfound; i++) {
        sum += o->found[i].info.allocated_clusters;
        if (!o->found[i].claimed)
            return look_bad(o->l, "blob %llx (%llu clusters) is there, and nobody made it%s%.200s",
                            (unsigned long long)o->found[i].info.id,
                            (unsigned long long)o->found[i].info.clusters,
                            o->why[0] != '\0' ? "; " : "", o->why);
    }
    if (sum + info.free_clusters != info.clusters)
        return look_bad(o->l, "%llu clusters: %llu of blobs, %llu free",
                        (unsigned long long)info.clusters, (unsigned long long)sum,
                        (unsigned long long)info.free_clusters);
    if (info.unreadable != 0)
        return look_bad(o->l, "%u blobs were skipped", info.unreadable);
    return 0;
}

int blobs_look(struct rt_task *t, struct blob_store *bs, struct look *l)
{
    struct looker *o = own_alloc(sizeof(*o));
    struct blob_store_info info;
    int rc;

    must(o != NULL);
    o->t = t;
    o->bs = bs;
    o->l = l;
    rc = blob_chan_get(t, bs, &o->chan);
    if (rc < 0) {
        own_free(o);
        return look_bad(l, "no channel: %d", rc);
    }
    rc = read_all(o);
    blob_store_info(bs, &info);
    l->errors += info.unreadable;
    /* Those that know all their blobs first: what is left then is of the others. */
    for (unsigned f = 0; rc == 0 && f < 2 * BLOBM_FAMILIES; f++) {
        unsigned fam = f % BLOBM_FAMILIES;

        if (knows_all(fam) == (f < BLOBM_FAMILIES))
            rc = l->tolerant && l->errors > 0 ? readable_fits(o, fam) : family_fits(o, fam);
    }
    if (rc == 0 && !(l->tolerant && l->errors > 0))
        rc = account(o);
    blob_chan_put(t, o->chan);
    for (unsigned i = 0; i < o->nfound; i++)
        own_free(o->found[i].data);
    own_free(o);
    return rc;
}

/* --- going on --------------------------------------------------------------------------------- */

struct more {
    struct rt_task *t;
    struct blob_store *bs;
    struct blob_chan *chan;
    struct look *l;
    uint8_t *buf;
};

/* Writes a blob full, and reads it. */
static int fill(struct more *m, struct blob *b, uint32_t content, bool write)
{
    uint32_t n = 4 * BLOBM_CLUSTER_SECTORS;
    int rc;

    for (uint32_t i = 0; write && i < n; i++)
        sector_fill(m->buf + i * SECTOR_BYTES, i, content);
    rc = write ? blob_write(m->t, m->chan, b, m->buf, 0, n * SECTOR_BYTES, 0)
               : blob_read(m->t, m->chan, b, m->buf, 0, n * SECTOR_BYTES);
    if (rc < 0)
        return rc == -ENOSPC
                   ? 1
                   : look_bad(m->l, "going on: a %s answered %d", write ? "write" : "read", rc);
    for (uint32_t i = 0; !write && i < n; i++)
        if (!sector_is(m->buf + i * SECTOR_BYTES, i, content))
            return look_bad(m->l, "going on: sector %u of a new blob holds something else", i);
    return 0;
}

/* A blob, a snapshot of it, more writes; then both have what they have to, and go. */
static int make_more(struct more *m)
{
    struct blob_create_opts opts = {.clusters = 4, .thin = true};
    uint64_t id, snap;
    struct blob *b = NULL, *s = NULL;
    int rc = blob_create(m->t, m->bs, &opts, &id), full = 0;

    if (rc == -ENOSPC)
        return 0;
    if (rc == 0)
        rc = blob_open(m->t, m->bs, id, &b);
    if (rc < 0)
        return look_bad(m->l, "going on: no new blob: %d", rc);
    full = rc = fill(m, b, 7000001, true);
    if (rc == 0)
        rc = fill(m, b, 7000001, false);
    if (rc == 0) {
        rc = blob_snapshot(m->t, b, NULL, 0, &snap);
        if (rc == 0 && (rc = blob_open(m->t, m->bs, snap, &s)) == 0) {
            full = rc = fill(m, b, 7000002, true);
            if (rc == 0)
                rc = fill(m, s, 7000001, false);
            if (rc == 0)
                rc = fill(m, b, 7000002, false);
            blob_close(m->t, s);
        } else {
            rc = rc == -ENOSPC ? 1 : look_bad(m->l, "going on: no snapshot: %d", rc);
        }
    }
    blob_close(m->t, b);
    if (rc < 0)
        return rc;
    rc = blob_delete(m->t, m->bs, id);
    if (rc == 0 && s != NULL)
        rc = blob_delete(m->t, m->bs, snap);
    (void)full;
    return rc < 0 ? look_bad(m->l, "going on: a delete answered %d", rc) : 0;
}

int blobs_go_on(struct rt_task *t, struct blob_store *bs, struct look *l)
{
    struct more m = {.t = t, .bs = bs, .l = l, .buf = own_align(BUF_BYTES)};
    int rc = blob_chan_get(t, bs, &m.chan);

    must(m.buf != NULL);
    if (rc < 0) {
        own_free(m.buf);
        return look_bad(l, "no channel: %d", rc);
    }
    rc = make_more(&m);
    blob_chan_put(t, m.chan);
    own_free(m.buf);
    return rc;
}
