/* SPDX-License-Identifier: Apache-2.0 */
/* Blobs: making, opening, listing, sizes, xattrs, removing. */
#include "blob/internal.h"

/* --- open blobs, and who stands on whom ------------------------------------------------------- */

struct blob *blob_find(struct blob_store *bs, uint64_t id)
{
    struct map_node *node = map_first(&bs->blobs, hash_u64(id));

    for (; node != NULL; node = map_next(node)) {
        struct blob *b = container_of(node, struct blob, node);

        if (b->id == id)
            return b;
    }
    return NULL;
}

static struct blob_link *link_find(const struct blob_store *bs, uint64_t id)
{
    struct map_node *node = map_first(&bs->links, hash_u64(id));

    for (; node != NULL; node = map_next(node)) {
        struct blob_link *l = container_of(node, struct blob_link, node);

        if (l->id == id)
            return l;
    }
    return NULL;
}

/* What blob_info() shows of an open blob. */
static void show_clones(struct blob_store *bs, uint64_t parent)
{
    struct blob *b = blob_find(bs, parent);

    if (b != NULL)
        __atomic_store_n(&b->nclones, blob_nclones(bs, parent, NULL), __ATOMIC_RELAXED);
}

int blob_link_set(struct blob_store *bs, uint64_t id, uint64_t parent)
{
    struct blob_link *l = link_find(bs, id);
    uint64_t was = l != NULL ? l->parent : BLOB_ID_NONE;

    if (l == NULL) {
        l = calloc(1, sizeof(*l));
        if (l == NULL)
            return -ENOMEM;
        l->id = id;
        map_add(&bs->links, &l->node, hash_u64(id));
    }
    l->parent = parent;
    show_clones(bs, was);
    show_clones(bs, parent);
    return 0;
}

void blob_link_del(struct blob_store *bs, uint64_t id)
{
    struct blob_link *l = link_find(bs, id);

    if (l == NULL)
        return;
    map_del(&bs->links, &l->node);
    show_clones(bs, l->parent);
    free(l);
}

uint32_t blob_nclones(const struct blob_store *bs, uint64_t id, uint64_t *out_one)
{
    uint32_t n = 0;

    for (size_t i = 0; i <= bs->links.mask; i++) {
        for (struct map_node *node = bs->links.bucket[i]; node != NULL; node = node->next) {
            const struct blob_link *l = container_of(node, struct blob_link, node);

            if (l->parent != id)
                continue;
            n++;
            if (out_one != NULL)
                *out_one = l->id;
        }
    }
    return n;
}

/* --- open and close --------------------------------------------------------------------------- */

static bool listed(const struct blob_store *bs, uint64_t id)
{
    return blob_id_valid(id, bs->super.md_len) && blob_mask_test(&bs->ids, (uint32_t)id);
}

static int get_one(struct rt_task *t, struct blob_store *bs, uint64_t id, struct blob **out_b)
{
    struct blob *b = blob_find(bs, id);
    int rc;

    if (b == NULL) {
        if (!listed(bs, id))
            return -ENOENT;
        rc = blob_md_parse(t, bs, id, &b);
        if (rc < 0)
            return rc;
        if (b->unknown || blob_mask_test(&bs->unreadable, (uint32_t)id)) {
            rc = b->unknown ? -ENOTSUP : -EBADMSG;
            blob_free(b);
            return rc;
        }
        map_add(&bs->blobs, &b->node, hash_u64(id));
        b->nclones = blob_nclones(bs, id, NULL);
    }
    b->inside++;
    *out_b = b;
    return 0;
}

/* What a clone of an external snapshot stands on; without it only its own clusters can be read. A
 * device with larger blocks than ours is none: what we read of it would not be whole blocks. */
static void esnap_open(struct rt_task *t, struct blob *b)
{
    const struct blob_attr *a = blob_head_find(&b->head, true, BLOB_X_EXTSNAP);
    struct blk_dev *dev;
    struct err why;

    if (!(b->head.invalid & BLOB_INVALID_ESNAP) || a == NULL || b->esnap != NULL ||
        b->bs->esnap_fn == NULL)
        return;
    if (b->bs->esnap_fn(t, b->bs->esnap_arg, a->value, a->value_len, &dev, &why) < 0)
        return;
    if (b->bs->block_bytes % blk_info(dev)->block_bytes == 0)
        b->esnap = dev;
    else
        blk_close(t, dev);
}

int blob_esnap_id(const struct blob *b, const void **out_id, uint16_t *out_len, bool *out_open)
{
    const struct blob_attr *a;

    while (b->parent != NULL)
        b = b->parent;
    a = blob_head_find(&b->head, true, BLOB_X_EXTSNAP);
    if (!(b->head.invalid & BLOB_INVALID_ESNAP) || a == NULL)
        return -ENOENT;
    *out_id = a->value;
    *out_len = a->value_len;
    *out_open = b->esnap != NULL;
    return 0;
}

int blob_get(struct rt_task *t, struct blob_store *bs, uint64_t id, struct blob **out_b)
{
    struct blob *b, *at, *parent;
    unsigned depth = 0;
    int rc = get_one(t, bs, id, &b);

    if (rc < 0)
        return rc;
    /* Its parents are open as long as it is. */
    for (at = b; at->parent == NULL; at = parent) {
        uint64_t parent_id = blob_parent_id(at);

        if (parent_id == BLOB_ID_NONE)
            break;
        rc = depth++ < BLOB_DEPTH_MAX ? get_one(t, bs, parent_id, &parent) : -EBADMSG;
        if (rc < 0) {
            blob_put(t, b);
            return rc == -ENOENT ? -EBADMSG : rc;
        }
        at->parent = parent;
    }
    /* The last of them may have been open without what it stands on. */
    while (at->parent != NULL)
        at = at->parent;
    esnap_open(t, at);
    *out_b = b;
    return 0;
}

void blob_put(struct rt_task *t, struct blob *b)
{
    while (b != NULL && --b->inside == 0) {
        struct blob *parent = b->parent;

        must(b->users == 0);
        map_del(&b->bs->blobs, &b->node);
        if (b->esnap != NULL)
            blk_close(t, b->esnap);
        blob_free(b);
        b = parent;
    }
}

struct opening {
    struct blob_store *bs;
    uint64_t id;
    struct blob *b;
};

static int open_home(struct rt_task *t, void *arg)
{
    struct opening *o = arg;
    int rc = blob_get(t, o->bs, o->id, &o->b);

    if (rc == 0)
        o->b->users++;
    return rc;
}

int blob_open(struct rt_task *t, struct blob_store *bs, uint64_t id, struct blob **out_b)
{
    struct opening o = {.bs = bs, .id = id};
    int rc = blob_locked(t, bs, open_home, &o);

    if (rc == 0)
        *out_b = o.b;
    return rc;
}

static int close_home(struct rt_task *t, void *arg)
{
    struct blob *b = arg;

    must(b->users > 0);
    b->users--;
    blob_put(t, b);
    return 0;
}

void blob_close(struct rt_task *t, struct blob *b)
{
    rt_task_shield(t, true);
    blob_locked(t, b->bs, close_home, b);
    rt_task_shield(t, false);
}

static int next_home(struct rt_task *t, void *arg)
{
    struct opening *o = arg;
    uint64_t page = o->id <= BLOB_ID_BASE ? 0 : o->id - BLOB_ID_BASE;

    for (; (page = blob_mask_next_set(&o->bs->ids, page)) != BLOB_MASK_NONE; page++) {
        if (blob_mask_test(&o->bs->unreadable, page))
            continue;
        o->id = BLOB_ID_BASE | page;
        return 0;
    }
    return -ENOENT;
}

int blob_next(struct rt_task *t, struct blob_store *bs, uint64_t from, uint64_t *out_id)
{
    struct opening o = {.bs = bs, .id = from};
    int rc = blob_locked(t, bs, next_home, &o);

    if (rc == 0)
        *out_id = o.id;
    return rc;
}

/* --- what it is ------------------------------------------------------------------------------- */

struct blob_store *blob_store_of(const struct blob *b)
{
    return b->bs;
}

void blob_info(const struct blob *b, struct blob_info *out)
{
    const struct blob_map *m = __atomic_load_n(&b->map, __ATOMIC_ACQUIRE);
    uint32_t nclones = __atomic_load_n(&b->nclones, __ATOMIC_RELAXED);
    uint64_t parent = __atomic_load_n(&b->parent_id, __ATOMIC_RELAXED);

    *out = (struct blob_info){
        .id = b->id,
        .clusters = m->nclusters,
        .allocated_clusters = __atomic_load_n(&b->nallocated, __ATOMIC_RELAXED),
        .len_bytes = m->nclusters * b->bs->super.cluster_bytes,
        .thin = (b->head.invalid & BLOB_INVALID_THIN) != 0,
        .read_only = b->read_only,
        .md_read_only = b->md_read_only,
        .snapshot = nclones > 0,
        .clone = parent != BLOB_ID_NONE,
        .esnap_clone = (b->head.invalid & BLOB_INVALID_ESNAP) != 0,
        .extent_rle = b->rle,
        .clear = (enum blob_clear)(b->head.md_ro & BLOB_MD_RO_CLEAR_MASK),
        .parent = parent,
        .nclones = nclones,
    };
}

/* --- create ----------------------------------------------------------------------------------- */

static int xattr_check(const struct blob_xattr *x)
{
    size_t len = strlen(x->name);

    return len == 0 || len + x->value_len > BLOB_XATTR_MAX ? -EINVAL : 0;
}

static int new_thick(struct blob *b, uint64_t n)
{
    CLEANUP(free_p) struct blob_run *run = NULL;
    unsigned nruns = 0;
    int rc = 0;

    for (uint64_t i = 0; i < n && rc == 0; i += BLOB_LEAF_CLUSTERS)
        rc = blob_map_reserve(b->map, i);
    if (rc == 0)
        rc = blob_take_clusters(b->bs, n, &run, &nruns);
    for (unsigned i = 0; rc == 0 && i < nruns; i++) {
        for (uint32_t k = 0; k < run[i].n; k++)
            blob_map_set(b->map, run[i].idx + k, run[i].cluster + k);
    }
    b->nallocated = rc == 0 ? n : 0;
    return rc;
}

static int new_fill(struct blob *b, const struct blob_create_opts *o)
{
    b->rle = o->extent_rle;
    b->head.invalid = (o->thin ? BLOB_INVALID_THIN : 0) | (o->extent_rle ? 0 : BLOB_INVALID_TABLE);
    b->head.md_ro = o->clear;
    for (unsigned i = 0; i < o->nxattrs; i++) {
        const struct blob_xattr *x = &o->xattrs[i];
        int rc = xattr_check(x);

        if (rc == 0)
            rc = blob_head_set(&b->head, false, x->name, (uint16_t)strlen(x->name), x->value,
                               x->value_len);
        if (rc < 0)
            return rc;
    }
    b->map = blob_map_new(o->clusters);
    if (b->map == NULL)
        return -ENOMEM;
    return o->thin || o->clusters == 0 ? 0 : new_thick(b, o->clusters);
}

int blob_new(struct blob_store *bs, const struct blob_create_opts *opts, struct blob **out_b)
{
    struct blob *b;
    uint64_t page;
    int rc;

    if (opts->clusters > BLOB_CLUSTERS_MAX - 1 || (unsigned)opts->clear > BLOB_CLEAR_ZEROES)
        return -EINVAL;
    if (bs->read_only)
        return -EROFS;
    b = calloc(1, sizeof(*b));
    if (b == NULL)
        return -ENOMEM;
    page = blob_mask_take(&bs->pages);
    if (page == BLOB_MASK_NONE) {
        free(b);
        return -ENOSPC;
    }
    b->bs = bs;
    b->id = BLOB_ID_BASE | page;
    rc = new_fill(b, opts);
    if (rc < 0) {
        blob_mask_clear(&bs->pages, page);
        blob_free(b);
        return rc;
    }
    *out_b = b;
    return 0;
}

static void give_back_all(struct blob *b)
{
    for (uint64_t i = 0; i < b->map->nclusters; i++) {
        uint32_t cluster = blob_map_get(b->map, i);

        if (cluster != 0)
            blob_mask_clear(&b->bs->clusters, cluster);
    }
}

int blob_make(struct rt_task *t, struct blob *b, uint32_t fresh_from, uint64_t *out_id)
{
    struct blob_store *bs = b->bs;
    int rc = blob_write_new(t, b, fresh_from);

    if (rc == 0) {
        blob_mask_set(&bs->ids, (uint32_t)b->id);
        *out_id = b->id;
    } else if (bs->failed == 0) {
        /* It is not on the disk: what it had is free again, but for what another one owns. */
        blob_mask_clear(&bs->pages, (uint32_t)b->id);
        if (fresh_from == 0)
            give_back_all(b);
    }
    blob_store_count(bs);
    blob_free(b);
    return rc;
}

/* Clusters of a thick blob read as zeroes from the start. */
static int clear_thick(struct rt_task *t, const struct blob *b)
{
    CLEANUP(free_p) struct blob_run *run = NULL;
    uint64_t how = b->head.md_ro & BLOB_MD_RO_CLEAR_MASK;
    unsigned nruns = 0;
    int rc;

    if (how == BLOB_CLEAR_NONE || b->nallocated == 0)
        return 0;
    rc = blob_runs_from(b->map, 0, b->map->nclusters, &run, &nruns);
    for (unsigned i = 0; i < nruns && rc == 0; i++)
        rc = blk_zero(t, b->bs->blk, blob_cluster_lba(b->bs, run[i].cluster),
                      run[i].n * blob_cluster_blocks(b->bs),
                      how == BLOB_CLEAR_ZEROES ? 0 : BLK_F_UNMAP);
    return rc;
}

struct creating {
    struct blob_store *bs;
    const struct blob_create_opts *opts;
    uint64_t id;
};

static int create_home(struct rt_task *t, void *arg)
{
    struct creating *c = arg;
    struct blob *b;
    int rc = blob_new(c->bs, c->opts, &b);

    if (rc < 0)
        return rc;
    rc = clear_thick(t, b);
    if (rc < 0) {
        blob_mask_clear(&c->bs->pages, (uint32_t)b->id);
        give_back_all(b);
        blob_free(b);
        return rc;
    }
    return blob_make(t, b, 0, &c->id);
}

int blob_create(struct rt_task *t, struct blob_store *bs, const struct blob_create_opts *opts,
                uint64_t *out_id)
{
    struct creating c = {.bs = bs, .opts = opts};
    int rc = blob_locked(t, bs, create_home, &c);

    if (rc == 0)
        *out_id = c.id;
    return rc;
}

/* --- xattrs ----------------------------------------------------------------------------------- */

struct set_xattr {
    struct blob *b;
    const char *name;  /* NULL: make it read-only */
    const void *value; /* NULL: remove */
    uint16_t len;
};

static int change_head(struct rt_task *t, void *arg)
{
    const struct set_xattr *a = arg;
    struct blob_head head;
    struct blob_change c = {.head = &head, .fresh_from = UINT32_MAX};
    int rc;

    if (a->b->bs->read_only || (a->b->md_read_only && a->name != NULL))
        return -EROFS;
    rc = blob_head_copy(&a->b->head, &head);
    if (rc < 0)
        return rc;
    if (a->name == NULL)
        head.data_ro |= BLOB_DATA_RO_READ_ONLY;
    else if (a->value != NULL)
        rc = blob_head_set(&head, false, a->name, (uint16_t)strlen(a->name), a->value, a->len);
    else if (!blob_head_del(&head, false, a->name))
        rc = -ENOENT;
    if (rc == 0)
        rc = blob_change_commit(t, a->b, &c);
    blob_head_fini(&head);
    return rc;
}

int blob_set_xattr(struct rt_task *t, struct blob *b, const char *name, const void *value,
                   uint16_t len)
{
    struct blob_xattr x = {.name = name, .value_len = len};
    struct set_xattr a = {b, name, len > 0 ? value : "", len};
    int rc = xattr_check(&x);

    return rc < 0 ? rc : blob_locked(t, b->bs, change_head, &a);
}

int blob_remove_xattr(struct rt_task *t, struct blob *b, const char *name)
{
    struct set_xattr a = {.b = b, .name = name};

    return blob_locked(t, b->bs, change_head, &a);
}

int blob_set_read_only(struct rt_task *t, struct blob *b)
{
    struct set_xattr a = {.b = b};

    return blob_locked(t, b->bs, change_head, &a);
}

int blob_get_xattr(const struct blob *b, const char *name, const void **out_value,
                   uint16_t *out_len)
{
    const struct blob_attr *a = blob_head_find(&b->head, false, name);

    if (a == NULL)
        return -ENOENT;
    *out_value = a->value;
    *out_len = a->value_len;
    return 0;
}

int blob_xattr_at(const struct blob *b, unsigned i, struct blob_xattr *out)
{
    for (unsigned k = 0; k < b->head.nattrs; k++) {
        const struct blob_attr *a = &b->head.attr[k];

        if (a->internal || i-- > 0)
            continue;
        *out = (struct blob_xattr){a->name, a->value, a->value_len};
        return 0;
    }
    return -ENOENT;
}
