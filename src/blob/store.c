/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stores: opened once per process and device and shared. The registry lives on reactor 0, where
 * the tasks that open and close meet; a store's metadata lives on the reactor that opened it.
 */
#include "blob/slow.h"

#define HOLDER "blobstore"

struct registry {
    struct list stores;
    struct rt_cond changed;
};

static const char registry_key;

static struct registry *registry(void)
{
    struct registry *r = rt_local(&registry_key, sizeof(*r));

    if (r->stores.next == NULL)
        list_init(&r->stores);
    return r;
}

/* --- one task at a time ----------------------------------------------------------------------- */

struct locked {
    struct blob_store *bs;
    rt_task_fn fn;
    void *arg;
};

static int run_locked(struct rt_task *t, void *arg)
{
    struct locked *l = arg;
    struct blob_store *bs = l->bs;
    int rc;

    rt_task_shield(t, true);
    if (bs->locked)
        rt_cond_wait(t, &bs->unlocked); /* who wakes us leaves it locked, for us */
    bs->locked = true;
    rc = l->fn(t, l->arg);
    bs->locked = !list_empty(&bs->unlocked.waiters);
    rt_cond_wake_one(&bs->unlocked);
    rt_task_shield(t, false);
    return rc;
}

int blob_locked(struct rt_task *t, struct blob_store *bs, rt_task_fn fn, void *arg)
{
    struct locked l = {bs, fn, arg};

    return rt_on(t, bs->home, run_locked, &l);
}

void blob_store_count(struct blob_store *bs)
{
    __atomic_store_n(&bs->free_clusters, blob_mask_free(&bs->clusters), __ATOMIC_RELAXED);
    __atomic_store_n(&bs->free_pages, blob_mask_free(&bs->pages), __ATOMIC_RELAXED);
}

/* --- memory ----------------------------------------------------------------------------------- */

static void map_free_all(struct map *m, void (*fn)(struct map_node *node))
{
    for (size_t i = 0; m->bucket != NULL && i <= m->mask; i++) {
        struct map_node *node = m->bucket[i];

        while (node != NULL) {
            struct map_node *next = node->next;

            fn(node);
            node = next;
        }
    }
    map_fini(m);
}

static void link_free(struct map_node *node)
{
    free(container_of(node, struct blob_link, node));
}

static void blob_node_free(struct map_node *node)
{
    blob_free(container_of(node, struct blob, node));
}

void blob_store_free(struct blob_store *bs)
{
    map_free_all(&bs->links, link_free);
    map_free_all(&bs->blobs, blob_node_free);
    blob_mask_fini(&bs->pages);
    blob_mask_fini(&bs->ids);
    blob_mask_fini(&bs->clusters);
    blob_mask_fini(&bs->unreadable);
    free(bs->super_page);
    free(bs->page);
    free(bs->io);
    free(bs->slot);
    free(bs);
}

struct blob_store *blob_store_new(struct blk_dev *dev, bool read_only)
{
    struct blob_store *bs = calloc(1, sizeof(*bs));

    if (bs == NULL)
        return NULL;
    bs->dev = dev;
    list_init(&bs->first_writes);
    bs->home = rt_self();
    bs->refs = 1;
    bs->read_only = read_only;
    bs->claim = read_only ? BLK_CLAIM_READ : BLK_CLAIM_EXCLUSIVE;
    bs->block_bytes = blk_info(dev)->block_bytes;
    bs->block_shift = (uint8_t)__builtin_ctz(bs->block_bytes);
    bs->nslots = rt_reactors();
    bs->slot = aligned_alloc(64, bs->nslots * sizeof(*bs->slot));
    bs->super_page = aligned_alloc(BLOB_PAGE_BYTES, BLOB_PAGE_BYTES);
    bs->page = aligned_alloc(BLOB_PAGE_BYTES, BLOB_PAGE_BYTES);
    bs->io = aligned_alloc(BLOB_PAGE_BYTES, BLOB_IO_BYTES);
    if (bs->slot == NULL || bs->super_page == NULL || bs->page == NULL || bs->io == NULL ||
        map_init(&bs->links, 16) < 0 || map_init(&bs->blobs, 16) < 0) {
        blob_store_free(bs);
        return NULL;
    }
    memset(bs->slot, 0, bs->nslots * sizeof(*bs->slot));
    for (unsigned i = 0; i < bs->nslots; i++)
        bs->slot[i].reactor = rt_reactor(i);
    return bs;
}

/* --- open ------------------------------------------------------------------------------------- */

struct meeting {
    struct blob_store *mine; /* goes on the list when there is none */
    struct blob_store *found;
    int rc;
};

/* On reactor 0: takes a reference to the store of a device, or puts ours on the list. */
static int meet(struct rt_task *t, void *arg)
{
    struct meeting *m = arg;
    struct registry *r = registry();
    struct blob_store *bs;
    int rc;

again:
    list_for_each (bs, &r->stores, struct blob_store, link) {
        if (bs->dev != m->mine->dev)
            continue;
        if (!bs->open) {
            rc = rt_cond_wait(t, &r->changed);
            if (rc < 0)
                return rc;
            goto again;
        }
        bs->refs++;
        m->found = bs;
        return 0;
    }
    list_add_tail(&r->stores, &m->mine->link);
    return 0;
}

/* On reactor 0: opening has ended, with the store there or not. */
static int met(struct rt_task *t, void *arg)
{
    struct meeting *m = arg;
    struct registry *r = registry();

    m->mine->open = m->rc == 0;
    if (m->rc < 0)
        list_del(&m->mine->link);
    rt_cond_wake_all(&r->changed);
    return 0;
}

static int bstype_check(const struct blob_store *bs, const uint8_t *bstype, struct err *why)
{
    if (bstype == NULL || memcmp(bs->super.bstype, bstype, 16) == 0)
        return 0;
    return err_set(why, -EINVAL, "%s: the blobstore is of type \"%.16s\", not \"%.16s\"",
                   blk_uri(bs->dev), (const char *)bs->super.bstype, (const char *)bstype);
}

static int open_here(struct rt_task *t, struct blob_store *bs, const uint8_t *bstype,
                     struct err *why)
{
    int rc = blk_claim(bs->dev, bs->claim, HOLDER, why);

    if (rc < 0)
        return rc;
    rc = blk_chan_get(t, bs->dev, &bs->blk);
    if (rc < 0) {
        blk_unclaim(bs->dev, bs->claim, HOLDER);
        return err_set(why, rc, "%s: %s", blk_uri(bs->dev), err_str(rc));
    }
    rc = blob_store_load(t, bs, why);
    if (rc == 0)
        rc = bstype_check(bs, bstype, why);
    if (rc < 0) {
        blk_chan_put(t, bs->blk);
        blk_unclaim(bs->dev, bs->claim, HOLDER);
    }
    return rc;
}

/* A reference to a store that was open: whether it is what is wanted. */
static int share(struct rt_task *t, struct blob_store *bs, const uint8_t *bstype, unsigned flags,
                 struct err *why)
{
    int rc = bstype_check(bs, bstype, why);

    if (rc == 0 && bs->read_only && !(flags & BLOB_OPEN_READ_ONLY))
        rc = err_set(why, -EBUSY, "%s: the blobstore is open for reading only", blk_uri(bs->dev));
    if (rc < 0)
        blob_store_close(t, bs);
    return rc;
}

static int store_open(struct rt_task *t, struct blk_dev *dev, const uint8_t *bstype, unsigned flags,
                      struct blob_store **out_bs, struct err *why)
{
    struct meeting m = {.mine = blob_store_new(dev, (flags & BLOB_OPEN_READ_ONLY) != 0)};
    int rc;

    if (m.mine == NULL)
        return err_set(why, -ENOMEM, "%s: out of memory", blk_uri(dev));
    rc = rt_on(t, rt_reactor(0), meet, &m);
    if (rc < 0 || m.found != NULL) {
        blob_store_free(m.mine);
        if (rc < 0)
            return err_set(why, rc, "%s: %s", blk_uri(dev), err_str(rc));
        rc = share(t, m.found, bstype, flags, why);
        if (rc == 0) {
            blk_close(t, dev); /* the store has its own */
            *out_bs = m.found;
        }
        return rc;
    }
    rt_task_shield(t, true);
    m.rc = open_here(t, m.mine, bstype, why);
    rt_on(t, rt_reactor(0), met, &m);
    rt_task_shield(t, false);
    if (m.rc < 0) {
        blob_store_free(m.mine);
        return m.rc;
    }
    *out_bs = m.mine;
    return 0;
}

int blob_store_open_dev(struct rt_task *t, struct blk_dev *dev, const uint8_t *bstype,
                        unsigned flags, struct blob_store **out_bs, struct err *why)
{
    int rc;

    if (blk_info(dev)->block_bytes > BLOB_PAGE_BYTES)
        return err_set(why, -ENOTSUP, "%s: a blobstore needs blocks of at most 4096 bytes",
                       blk_uri(dev));
    rc = store_open(t, blk_ref(dev), bstype, flags, out_bs, why);
    if (rc < 0)
        blk_close(t, dev);
    return rc;
}

int blob_store_open(struct rt_task *t, const char *blk_uri, const uint8_t *bstype, unsigned flags,
                    struct blob_store **out_bs, struct err *why)
{
    struct blk_dev *dev;
    int rc = blk_open(t, blk_uri, &dev, why);

    if (rc < 0)
        return rc;
    rc = blob_store_open_dev(t, dev, bstype, flags, out_bs, why);
    blk_close(t, dev);
    return rc;
}

/* --- close ------------------------------------------------------------------------------------ */

static int part(struct rt_task *t, void *arg)
{
    struct blob_store *bs = arg;

    must(bs->refs > 0);
    if (--bs->refs > 0)
        return 0;
    bs->open = false;
    return 1;
}

static int parted(struct rt_task *t, void *arg)
{
    struct blob_store *bs = arg;
    struct registry *r = registry();

    list_del(&bs->link);
    rt_cond_wake_all(&r->changed);
    return 0;
}

static int close_home(struct rt_task *t, void *arg)
{
    struct blob_store *bs = arg;

    must(bs->blobs.count == 0);
    for (unsigned i = 0; i < bs->nslots; i++)
        must(bs->slot[i].state == BLOB_SLOT_NONE);
    /* What fails here leaves the store unclean: the next open replays it. */
    if (!bs->read_only)
        blob_masks_write(t, bs);
    blk_chan_put(t, bs->blk);
    blk_unclaim(bs->dev, bs->claim, HOLDER);
    return 0;
}

void blob_store_close(struct rt_task *t, struct blob_store *bs)
{
    struct blk_dev *dev = bs->dev;

    rt_task_shield(t, true);
    if (rt_on(t, rt_reactor(0), part, bs) == 1) {
        blob_locked(t, bs, close_home, bs);
        rt_on(t, rt_reactor(0), parted, bs);
        blob_store_free(bs);
        blk_close(t, dev);
    }
    rt_task_shield(t, false);
}

void blob_abandon(void)
{
    struct registry *r = registry();
    struct blob_store *bs;

    list_for_each (bs, &r->stores, struct blob_store, link) {
        list_del(&bs->link);
        for (unsigned i = 0; i < bs->nslots; i++)
            blob_chan_abandon(bs->slot[i].chan);
        blob_store_free(bs);
    }
}

/* --- what it is ------------------------------------------------------------------------------- */

struct blk_dev *blob_store_dev(const struct blob_store *bs)
{
    return bs->dev;
}

struct rt_reactor *blob_store_home(const struct blob_store *bs)
{
    return bs->home;
}

void blob_store_set_esnap(struct blob_store *bs, blob_esnap_fn fn, void *arg)
{
    bs->esnap_arg = arg;
    bs->esnap_fn = fn;
}

void blob_store_info(const struct blob_store *bs, struct blob_store_info *out)
{
    const struct blob_super *s = &bs->super;
    uint64_t mask_pages =
        (s->id_mask_len > 0 ? s->id_mask_start : s->md_start) - s->cluster_mask_start;

    *out = (struct blob_store_info){
        .block_bytes = bs->block_bytes,
        .cluster_bytes = s->cluster_bytes,
        .size_bytes = s->size_bytes,
        .clusters = bs->total_clusters - blob_super_md_clusters(s),
        .free_clusters = __atomic_load_n(&bs->free_clusters, __ATOMIC_RELAXED),
        .md_pages = s->md_len,
        .flushes_shared = __atomic_load_n(&bs->flushes_shared, __ATOMIC_RELAXED),
        .free_md_pages = __atomic_load_n(&bs->free_pages, __ATOMIC_RELAXED),
        .super_blob = s->super_blob,
        .was_clean = bs->was_clean,
        .read_only = bs->read_only,
        .unreadable = bs->nunreadable,
    };
    out->max_size_bytes =
        (mask_pages * s->md_page_bytes - sizeof(struct blob_mask_disk)) * 8 * s->cluster_bytes;
    memcpy(out->bstype, s->bstype, sizeof(out->bstype));
}

struct set_super {
    struct blob_store *bs;
    uint64_t id;
};

static int set_super(struct rt_task *t, void *arg)
{
    const struct set_super *a = arg;
    struct blob_super s;
    int rc;

    if (a->id != BLOB_ID_NONE && (!blob_id_valid(a->id, a->bs->super.md_len) ||
                                  !blob_mask_test(&a->bs->ids, (uint32_t)a->id)))
        return -ENOENT;
    rc = blob_md_dirty(t, a->bs);
    if (rc < 0)
        return rc;
    s = a->bs->super;
    s.super_blob = a->id;
    return blob_super_write(t, a->bs, &s);
}

int blob_store_set_super(struct rt_task *t, struct blob_store *bs, uint64_t id)
{
    struct set_super a = {bs, id};

    return blob_locked(t, bs, set_super, &a);
}

static int settle(struct rt_task *t, void *arg)
{
    struct blob_store *bs = arg;

    return bs->read_only ? -EROFS : blob_masks_write(t, bs);
}

int blob_store_settle(struct rt_task *t, struct blob_store *bs)
{
    return blob_locked(t, bs, settle, bs);
}

/* --- growth ----------------------------------------------------------------------------------- */

static int grow(struct rt_task *t, void *arg)
{
    struct blob_store *bs = arg;
    struct blob_super s;
    struct blob_store_info info;
    uint64_t size, total;
    int rc = blk_refresh(t, bs->dev);

    if (rc < 0)
        return rc;
    size = blk_info(bs->dev)->nblocks * bs->block_bytes;
    total = size / bs->super.cluster_bytes;
    if (total <= bs->total_clusters)
        return 0;
    blob_store_info(bs, &info);
    if (size > info.max_size_bytes || total >= BLOB_CLUSTERS_MAX)
        return -ENOSPC;
    rc = blob_md_dirty(t, bs);
    if (rc == 0)
        rc = blob_mask_grow(&bs->clusters, total);
    if (rc < 0)
        return rc;
    s = bs->super;
    s.size_bytes = size;
    s.cluster_mask_len =
        (uint32_t)((sizeof(struct blob_mask_disk) + (total + 7) / 8 + s.md_page_bytes - 1) /
                   s.md_page_bytes);
    rc = blob_super_write(t, bs, &s);
    if (rc < 0)
        return rc;
    bs->total_clusters = total;
    blob_store_count(bs);
    return 0;
}

int blob_store_grow(struct rt_task *t, struct blob_store *bs)
{
    return blob_locked(t, bs, grow, bs);
}
