/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Snapshots and clones. A snapshot takes over the clusters and extent pages of its origin, which
 * stands on it from then on and owns nothing; the origin's new root is the commit. Until then the
 * snapshot is marked SNAPTMP, and load drops it.
 */
#include "blob/internal.h"

/* --- who stands on whom ----------------------------------------------------------------------- */

int blob_head_stand(struct blob_head *head, uint64_t parent, const struct blob_head *esnap_of)
{
    const struct blob_attr *ext = NULL;
    uint8_t id[8];

    if (esnap_of != NULL && esnap_of->invalid & BLOB_INVALID_ESNAP)
        ext = blob_head_find(esnap_of, true, BLOB_X_EXTSNAP);
    blob_head_del(head, true, BLOB_X_SNAP);
    if (ext == NULL) {
        blob_head_del(head, true, BLOB_X_EXTSNAP);
        head->invalid &= ~(uint64_t)BLOB_INVALID_ESNAP;
    } else {
        head->invalid |= BLOB_INVALID_ESNAP;
        return blob_head_set(head, true, BLOB_X_EXTSNAP, (uint16_t)strlen(BLOB_X_EXTSNAP),
                             ext->value, ext->value_len);
    }
    if (parent == BLOB_ID_NONE)
        return 0;
    le64_put(id, parent);
    return blob_head_set(head, true, BLOB_X_SNAP, (uint16_t)strlen(BLOB_X_SNAP), id, sizeof(id));
}

/* Who reads through what was there before has to end, then it can go. */
static int leave(struct rt_task *t, struct blob *b, struct blob *was, struct blk_dev *was_esnap)
{
    int rc = blob_quiesce(t, b->bs);

    if (rc < 0)
        return rc; /* so it stays open, which is safe */
    if (was != NULL)
        blob_put(t, was);
    if (was_esnap != NULL)
        blk_close(t, was_esnap);
    return 0;
}

int blob_stand(struct rt_task *t, struct blob *b, struct blob *parent, struct blk_dev *esnap)
{
    struct blob *was = b->parent;
    struct blk_dev *was_esnap = b->esnap;

    /* In this order: who finds no parent any more finds the device. */
    __atomic_store_n(&b->esnap, esnap, __ATOMIC_RELEASE);
    __atomic_store_n(&b->parent, parent, __ATOMIC_RELEASE);
    return leave(t, b, was, was_esnap);
}

static int mark(struct blob_head *head, const char *name, uint64_t id)
{
    uint8_t value[8];

    le64_put(value, id);
    return blob_head_set(head, true, name, (uint16_t)strlen(name), value, sizeof(value));
}

/* --- snapshot --------------------------------------------------------------------------------- */

struct taking {
    struct blob_store *bs;
    struct blob *origin;
    uint64_t snapshot; /* of which a clone is made */
    const struct blob_xattr *xattrs;
    unsigned nxattrs;
    const void *esnap_id;
    uint16_t esnap_id_len;
    uint64_t clusters;
    uint64_t id;
};

/* The snapshot with all its origin has, marked: until the origin stands on it, it is none. */
static int snapshot_write(struct rt_task *t, const struct taking *k, uint64_t *out_id)
{
    struct blob *o = k->origin, *n;
    struct blob_create_opts opts = {.thin = true,
                                    .extent_rle = o->rle,
                                    .clear = (enum blob_clear)(o->head.md_ro & 3),
                                    .xattrs = k->xattrs,
                                    .nxattrs = k->nxattrs};
    int rc = blob_new(o->bs, &opts, &n);

    if (rc < 0)
        return rc;
    n->head.invalid = o->head.invalid;
    rc = blob_head_stand(&n->head, blob_parent_id(o), &o->head);
    if (rc == 0)
        rc = mark(&n->head, BLOB_X_SNAPTMP, o->id);
    blob_map_free(n->map);
    n->map = rc == 0 ? blob_map_copy(o->map, o->map->nclusters, true) : NULL;
    if (n->map == NULL) {
        blob_mask_clear(&o->bs->pages, (uint32_t)n->id);
        blob_free(n);
        return rc < 0 ? rc : -ENOMEM;
    }
    return blob_make(t, n, UINT32_MAX, out_id);
}

/* The commit: the origin stands on the snapshot and owns nothing. */
static int origin_write(struct rt_task *t, struct blob *o, struct blob *n)
{
    struct blob_head head;
    struct blob_change c = {.head = &head,
                            .map = blob_map_new(o->map->nclusters),
                            .fresh_from = UINT32_MAX,
                            .keeps_pages = true};
    int rc;

    if (c.map == NULL)
        return -ENOMEM;
    rc = blob_head_copy(&o->head, &head);
    if (rc < 0) {
        blob_map_free(c.map);
        return rc;
    }
    head.invalid |= BLOB_INVALID_THIN;
    rc = blob_head_stand(&head, n->id, NULL);
    if (rc == 0)
        rc = blob_change_commit(t, o, &c);
    blob_head_fini(&head);
    blob_map_free(c.map);
    return rc;
}

static int snapshot_unmark(struct rt_task *t, struct blob *n)
{
    struct blob_head head;
    struct blob_change c = {.head = &head, .fresh_from = UINT32_MAX};
    int rc = blob_head_copy(&n->head, &head);

    if (rc < 0)
        return rc;
    blob_head_del(&head, true, BLOB_X_SNAPTMP);
    head.data_ro |= BLOB_DATA_RO_READ_ONLY;
    rc = blob_change_commit(t, n, &c);
    blob_head_fini(&head);
    return rc;
}

/* What it has is its origin's still: only the root and the chain go. */
static void snapshot_drop(struct rt_task *t, struct blob *n)
{
    struct blob_store *bs = n->bs;

    if (bs->failed < 0 || blob_root_zero(t, n) < 0)
        return;
    blob_md_zero(t, bs, n->chain, n->nchain);
    for (unsigned i = 0; i < n->nchain; i++)
        blob_mask_clear(&bs->pages, n->chain[i]);
    blob_mask_clear(&bs->ids, (uint32_t)n->id);
    blob_mask_clear(&bs->pages, (uint32_t)n->id);
    blob_link_del(bs, n->id);
    blob_store_count(bs);
}

/* Nothing has come of it: the origin stands where it stood. */
static void snapshot_undo(struct rt_task *t, struct blob *o, struct blob *n, struct blob *parent)
{
    __atomic_store_n(&o->parent, parent, __ATOMIC_RELEASE);
    if (parent != NULL)
        blob_link_set(o->bs, o->id, parent->id);
    else
        blob_link_del(o->bs, o->id);
    snapshot_drop(t, n);
    leave(t, o, n, NULL);
}

static int snapshot_commit(struct rt_task *t, struct blob *o, uint64_t id)
{
    struct blob_store *bs = o->bs;
    struct blob *n, *parent = o->parent;
    struct blk_dev *esnap = o->esnap;
    int rc = blob_get(t, bs, id, &n);

    if (rc < 0)
        return rc;
    /* Who finds nothing in the origin's new map looks here; until then nobody does. */
    __atomic_store_n(&o->parent, n, __ATOMIC_RELEASE);
    if (parent != NULL)
        rc = blob_link_set(bs, id, parent->id);
    if (rc == 0)
        rc = blob_link_set(bs, o->id, id);
    if (rc == 0)
        rc = origin_write(t, o, n);
    if (rc < 0) {
        snapshot_undo(t, o, n, parent);
        return rc;
    }
    __atomic_store_n(&o->esnap, NULL, __ATOMIC_RELEASE);
    leave(t, o, parent, esnap);
    return snapshot_unmark(t, n);
}

static int snapshot_home(struct rt_task *t, void *arg)
{
    struct taking *k = arg;
    struct blob *o = k->origin;
    int rc;

    if (o->bs->read_only || o->md_read_only)
        return -EROFS;
    __atomic_store_n(&o->frozen, true, __ATOMIC_RELEASE);
    rc = blob_quiesce(t, o->bs);
    if (rc == 0)
        rc = snapshot_write(t, k, &k->id);
    if (rc == 0)
        rc = snapshot_commit(t, o, k->id);
    __atomic_store_n(&o->frozen, false, __ATOMIC_RELEASE);
    return rc;
}

int blob_snapshot(struct rt_task *t, struct blob *b, const struct blob_xattr *xattrs,
                  unsigned nxattrs, uint64_t *out_id)
{
    struct taking k = {.bs = b->bs, .origin = b, .xattrs = xattrs, .nxattrs = nxattrs};
    int rc = blob_locked(t, b->bs, snapshot_home, &k);

    if (rc == 0)
        *out_id = k.id;
    return rc;
}

/* --- clone ------------------------------------------------------------------------------------ */

static int clone_of(struct rt_task *t, struct taking *k, const struct blob *s)
{
    struct blob_create_opts opts = {.thin = true,
                                    .clusters = s->map->nclusters,
                                    .extent_rle = s->rle,
                                    .clear = (enum blob_clear)(s->head.md_ro & 3),
                                    .xattrs = k->xattrs,
                                    .nxattrs = k->nxattrs};
    struct blob *n;
    int rc;

    if (!s->read_only) /* what stands on it would change with it */
        return -EINVAL;
    rc = blob_new(k->bs, &opts, &n);
    if (rc < 0)
        return rc;
    rc = blob_head_stand(&n->head, s->id, NULL);
    if (rc == 0)
        rc = blob_link_set(k->bs, n->id, s->id);
    if (rc < 0) {
        blob_mask_clear(&k->bs->pages, (uint32_t)n->id);
        blob_free(n);
        return rc;
    }
    k->id = n->id;
    rc = blob_make(t, n, 0, &k->id);
    if (rc < 0)
        blob_link_del(k->bs, k->id);
    return rc;
}

static int clone_home(struct rt_task *t, void *arg)
{
    struct taking *k = arg;
    struct blob *s;
    int rc = blob_get(t, k->bs, k->snapshot, &s);

    if (rc < 0)
        return rc;
    rc = clone_of(t, k, s);
    blob_put(t, s);
    return rc;
}

int blob_clone(struct rt_task *t, struct blob_store *bs, uint64_t snapshot,
               const struct blob_xattr *xattrs, unsigned nxattrs, uint64_t *out_id)
{
    struct taking k = {.bs = bs, .snapshot = snapshot, .xattrs = xattrs, .nxattrs = nxattrs};
    int rc = blob_locked(t, bs, clone_home, &k);

    if (rc == 0)
        *out_id = k.id;
    return rc;
}

static int esnap_clone_home(struct rt_task *t, void *arg)
{
    struct taking *k = arg;
    struct blob_create_opts opts = {
        .thin = true, .clusters = k->clusters, .xattrs = k->xattrs, .nxattrs = k->nxattrs};
    struct blob *n;
    int rc = blob_new(k->bs, &opts, &n);

    if (rc < 0)
        return rc;
    n->head.invalid |= BLOB_INVALID_ESNAP;
    rc = blob_head_set(&n->head, true, BLOB_X_EXTSNAP, (uint16_t)strlen(BLOB_X_EXTSNAP),
                       k->esnap_id, k->esnap_id_len);
    if (rc < 0) {
        blob_mask_clear(&k->bs->pages, (uint32_t)n->id);
        blob_free(n);
        return rc;
    }
    return blob_make(t, n, 0, &k->id);
}

int blob_create_esnap_clone(struct rt_task *t, struct blob_store *bs, const void *id,
                            uint16_t id_len, uint64_t clusters, const struct blob_xattr *xattrs,
                            unsigned nxattrs, uint64_t *out_id)
{
    struct taking k = {.bs = bs,
                       .esnap_id = id,
                       .esnap_id_len = id_len,
                       .clusters = clusters,
                       .xattrs = xattrs,
                       .nxattrs = nxattrs};
    int rc = id_len == 0 || id_len + strlen(BLOB_X_EXTSNAP) > BLOB_XATTR_MAX
                 ? -EINVAL
                 : blob_locked(t, bs, esnap_clone_home, &k);

    if (rc == 0)
        *out_id = k.id;
    return rc;
}
