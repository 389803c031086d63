/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Changing a blob's metadata so that a crash leaves the old state or the new one. Two ways:
 *
 * - clusters come or go in one leaf that has an extent page: that page is written in place;
 * - anything else: new extent pages and chain pages go to free md pages; when they are durable the
 *   root is written in place, which is the commit; when that is durable the old pages are zeroed.
 *
 * Either is one write of 4 KiB that counts, between two flushes.
 */
#include "blob/internal.h"

#include "base/plant.h"

/* A leaf that is written anew. */
struct fresh {
    uint32_t leaf;
    uint32_t page; /* 0: it has no cluster, so no page */
};

struct writer {
    struct rt_task *t;
    struct blob_store *bs;
    struct blob *b;
    const struct blob_change *c;
    const struct blob_head *head; /* as it will be */
    struct blob_map *map;
    struct fresh *fresh;
    unsigned nfresh;
    struct blob_pages pages;
    uint32_t *where; /* md pages of the chain, root first */
};

static uint64_t leaf_of(uint64_t idx)
{
    return idx / BLOB_LEAF_CLUSTERS;
}

/* What a leaf will hold, into bs->leaf; false: nothing. */
static bool leaf_fill(struct writer *w, uint32_t leaf)
{
    const struct blob_leaf *now = w->map->leaf[leaf];
    uint64_t first = (uint64_t)leaf * BLOB_LEAF_CLUSTERS;
    uint64_t end = first + blob_map_leaf_len(w->map, leaf);
    uint32_t *cluster = w->bs->leaf.cluster, any = 0;

    if (now != NULL)
        memcpy(cluster, now->cluster, sizeof(now->cluster));
    else
        memset(cluster, 0, sizeof(w->bs->leaf.cluster));
    for (unsigned i = 0; i < w->c->nruns; i++) {
        const struct blob_run *r = &w->c->run[i];

        for (uint64_t x = MAX(r->idx, first); x < MIN(r->idx + r->n, end); x++)
            cluster[x - first] = r->cluster == 0 ? 0 : r->cluster + (uint32_t)(x - r->idx);
    }
    for (uint32_t i = 0; i < end - first; i++)
        any |= cluster[i];
    return any != 0;
}

/* Memory for what will be there, so that nothing can fail once it is on the disk. */
static int leaves_reserve(struct blob_map *m, const struct blob_change *c)
{
    for (unsigned i = 0; i < c->nruns; i++) {
        const struct blob_run *r = &c->run[i];

        for (uint64_t l = leaf_of(r->idx); r->cluster != 0 && l <= leaf_of(r->idx + r->n - 1);
             l++) {
            int rc = blob_map_reserve(m, l * BLOB_LEAF_CLUSTERS);

            if (rc < 0)
                return rc;
        }
    }
    return 0;
}

static void runs_apply(struct blob *b, const struct blob_change *c)
{
    for (unsigned i = 0; i < c->nruns; i++) {
        const struct blob_run *r = &c->run[i];

        for (uint32_t n = 0; n < r->n; n++) {
            uint32_t was = blob_map_get(b->map, r->idx + n);
            uint32_t is = r->cluster == 0 ? 0 : r->cluster + n;

            b->nallocated += (is != 0 ? 1u : 0u) - (was != 0 ? 1u : 0u);
            if (!(PLANTED("blob-stale") && was == 0 && is % 16 == 15))
                blob_map_set(b->map, r->idx + n, is);
        }
    }
}

/* --- in place --------------------------------------------------------------------------------- */

/* Whether all that changes is in extent pages that are there, and in one of them (or no matter). */
static bool fits_in_place(const struct blob *b, const struct blob_change *c)
{
    uint64_t leaf = UINT64_MAX;

    if (b->rle || c->head != NULL || c->map != NULL || c->fresh_from != UINT32_MAX || c->nruns == 0)
        return false;
    for (unsigned i = 0; i < c->nruns; i++) {
        uint64_t from = leaf_of(c->run[i].idx), to = leaf_of(c->run[i].idx + c->run[i].n - 1);

        if (leaf == UINT64_MAX)
            leaf = from;
        if (!c->in_place && (from != leaf || to != leaf))
            return false;
        for (uint64_t l = from; l <= to; l++) {
            if (b->map->page[l] == 0)
                return false;
        }
    }
    return true;
}

static int write_in_place(struct writer *w)
{
    struct blob_store *bs = w->bs;
    uint64_t done = UINT64_MAX; /* the leaf before */
    int rc = w->c->ordered && !PLANTED("blob-order") ? blob_md_flush(w->t, bs) : 0;

    for (unsigned i = 0; i < w->c->nruns && rc == 0; i++) {
        const struct blob_run *r = &w->c->run[i];

        for (uint64_t l = leaf_of(r->idx); l <= leaf_of(r->idx + r->n - 1) && rc == 0; l++) {
            if (l == done)
                continue;
            done = l;
            leaf_fill(w, (uint32_t)l);
            blob_extent_page(bs->page, w->b->id, (uint32_t)l * BLOB_LEAF_CLUSTERS, bs->leaf.cluster,
                             blob_map_leaf_len(w->map, (uint32_t)l));
            rc = blob_md_write(w->t, bs, w->b->map->page[l], bs->page);
            if (rc < 0)
                bs->failed = rc;
        }
    }
    bs->lazy |= w->c->lazy;
    if (rc == 0 && !w->c->lazy)
        rc = blob_md_flush(w->t, bs);
    if (rc == 0)
        runs_apply(w->b, w->c);
    return rc;
}

/* --- fresh pages and a new root --------------------------------------------------------------- */

static bool leaf_is_fresh(const struct blob_change *c, uint64_t leaf)
{
    if (leaf >= c->fresh_from)
        return true;
    for (unsigned i = 0; i < c->nruns; i++) {
        if (leaf_of(c->run[i].idx) <= leaf && leaf <= leaf_of(c->run[i].idx + c->run[i].n - 1))
            return true;
    }
    return false;
}

/* Page 0 is for a root only: in an extent table 0 says that there is no page. */
static int take_page(struct blob_store *bs, uint32_t *out)
{
    uint64_t page = blob_mask_next_clear(&bs->pages, 1);

    if (page == BLOB_MASK_NONE)
        return -ENOSPC;
    must(blob_mask_set(&bs->pages, page));
    *out = (uint32_t)page;
    return 0;
}

static int fresh_choose(struct writer *w)
{
    uint32_t n = 0;

    for (uint32_t l = 0; l < w->map->nleaves; l++)
        n += leaf_is_fresh(w->c, l);
    w->fresh = calloc(n + 1, sizeof(*w->fresh));
    if (w->fresh == NULL)
        return -ENOMEM;
    for (uint32_t l = 0; l < w->map->nleaves; l++) {
        struct fresh *f = &w->fresh[w->nfresh];
        int rc;

        if (!leaf_is_fresh(w->c, l))
            continue;
        f->leaf = l;
        w->nfresh++;
        rc = leaf_fill(w, l) ? take_page(w->bs, &f->page) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int encode_table(struct writer *w)
{
    struct blob_pairs_enc *e = &w->bs->enc;
    unsigned f = 0;
    int rc = 0;

    blob_pairs_begin(e, &w->pages, BLOB_DESC_TABLE, w->map->nclusters);
    for (uint32_t l = 0; l < w->map->nleaves && rc == 0; l++) {
        uint32_t page = w->map->page[l];

        if (f < w->nfresh && w->fresh[f].leaf == l)
            page = w->fresh[f++].page;
        rc = blob_pairs_add(e, page, 1);
    }
    return rc < 0 ? rc : blob_pairs_end(e);
}

static int encode_rle(struct writer *w)
{
    struct blob_pairs_enc *e = &w->bs->enc;
    int rc = 0;

    blob_pairs_begin(e, &w->pages, BLOB_DESC_RLE, 0);
    for (uint32_t l = 0; l < w->map->nleaves && rc == 0; l++) {
        uint32_t len = blob_map_leaf_len(w->map, l);

        if (!leaf_fill(w, l)) {
            rc = blob_pairs_add(e, 0, len);
            continue;
        }
        for (uint32_t i = 0; i < len && rc == 0; i++)
            rc = blob_pairs_add(e, w->bs->leaf.cluster[i], 1);
    }
    return rc < 0 ? rc : blob_pairs_end(e);
}

static int encode_chain(struct writer *w)
{
    int rc = blob_pages_head(&w->pages, w->head);

    if (rc == 0)
        rc = w->b->rle ? encode_rle(w) : encode_table(w);
    if (rc < 0)
        return rc;
    if (w->pages.n > BLOB_CHAIN_MAX)
        return -ENOSPC;
    w->where = calloc(w->pages.n, sizeof(*w->where));
    if (w->where == NULL)
        return -ENOMEM;
    w->where[0] = (uint32_t)w->b->id;
    for (unsigned i = 1; i < w->pages.n && rc == 0; i++)
        rc = take_page(w->bs, &w->where[i]);
    return rc;
}

/* Nothing refers to the fresh pages yet: they are free again. */
static void give_back(struct writer *w)
{
    for (unsigned i = 0; i < w->nfresh; i++) {
        if (w->fresh[i].page != 0)
            blob_mask_clear(&w->bs->pages, w->fresh[i].page);
    }
    for (unsigned i = 1; w->where != NULL && i < w->pages.n; i++) {
        if (w->where[i] != 0)
            blob_mask_clear(&w->bs->pages, w->where[i]);
    }
}

static int write_fresh(struct writer *w)
{
    struct blob_store *bs = w->bs;
    bool any = w->c->ordered || bs->lazy; /* the root must not come before pages it counts on */
    int rc = 0;

    for (unsigned i = 0; i < w->nfresh && rc == 0; i++) {
        uint32_t l = w->fresh[i].leaf;

        if (w->fresh[i].page == 0)
            continue;
        leaf_fill(w, l);
        blob_extent_page(bs->page, w->b->id, l * BLOB_LEAF_CLUSTERS, bs->leaf.cluster,
                         blob_map_leaf_len(w->map, l));
        rc = blob_md_write(w->t, bs, w->fresh[i].page, bs->page);
        any = true;
    }
    blob_pages_seal(&w->pages, w->b->id, w->where);
    for (unsigned i = 1; i < w->pages.n && rc == 0; i++) {
        rc = blob_md_write(w->t, bs, w->where[i], &w->pages.page[i]);
        any = true;
    }
    return rc == 0 && any ? blob_md_flush(w->t, bs) : rc;
}

static int write_root(struct writer *w)
{
    int rc = blob_md_write(w->t, w->bs, (uint32_t)w->b->id, &w->pages.page[0]);

    if (rc < 0) {
        w->bs->failed = rc;
        return rc;
    }
    return PLANTED("blob-early-ack") ? 0 : blob_md_flush(w->t, w->bs);
}

/* After the commit: pages the blob had and has no more are zeroed and free. */
static void drop_page(struct writer *w, uint32_t page)
{
    blob_md_zero(w->t, w->bs, &page, 1);
    must(blob_mask_clear(&w->bs->pages, page));
}

static void drop_old_pages(struct writer *w, const struct blob_map *old)
{
    for (unsigned i = 0; i < w->b->nchain; i++)
        drop_page(w, w->b->chain[i]);
    for (uint32_t l = 0; l < old->nleaves && !w->c->keeps_pages; l++) {
        if (old->page[l] != 0 && (l >= w->map->nleaves || w->map->page[l] != old->page[l]))
            drop_page(w, old->page[l]);
    }
}

/* The fresh pages into a map that still has the old ones: these go. */
static void take_fresh_pages(struct writer *w)
{
    for (unsigned i = 0; i < w->nfresh; i++) {
        uint32_t *page = &w->map->page[w->fresh[i].leaf];

        if (*page != 0 && w->c->map == NULL)
            drop_page(w, *page);
        *page = w->fresh[i].page;
    }
}

/* The new map takes the old one's place, which is freed when nobody can be reading in it. */
static void change_map(struct writer *w)
{
    struct blob *b = w->b;
    struct blob_map *old = b->map;

    __atomic_store_n(&b->map, w->map, __ATOMIC_RELEASE);
    if (blob_quiesce(w->t, w->bs) == 0) {
        blob_map_free(old);
        return;
    }
    old->older = b->old_maps;
    b->old_maps = old;
}

static uint64_t count_allocated(const struct blob_map *m)
{
    uint64_t n = 0;

    for (uint64_t i = 0; i < m->nclusters; i++) {
        if (m->leaf[leaf_of(i)] == NULL)
            i |= BLOB_LEAF_CLUSTERS - 1;
        else
            n += blob_map_get(m, i) != 0;
    }
    return n;
}

static void take_over(struct writer *w, struct blob_change *c)
{
    struct blob *b = w->b;

    take_fresh_pages(w);
    drop_old_pages(w, b->map);
    free(b->chain);
    b->chain = w->where;
    b->nchain = w->pages.n - 1;
    memmove(b->chain, b->chain + 1, b->nchain * sizeof(*b->chain));
    w->where = NULL;
    if (c->head != NULL) {
        blob_head_fini(&b->head);
        b->head = *c->head;
        *c->head = (struct blob_head){0};
        blob_flags_apply(b);
    }
    if (c->map != NULL) {
        b->nallocated = count_allocated(c->map);
        change_map(w);
        c->map = NULL;
    }
    runs_apply(b, c);
}

static int write_anew(struct writer *w, struct blob_change *c)
{
    int rc = w->b->rle ? 0 : fresh_choose(w);

    if (rc == 0)
        rc = encode_chain(w);
    if (rc == 0)
        rc = write_fresh(w);
    if (rc < 0) {
        give_back(w);
        return rc;
    }
    rc = write_root(w);
    if (rc == 0)
        take_over(w, c);
    return rc;
}

static void writer_fini(struct writer *w)
{
    free(w->fresh);
    free(w->where);
    blob_pages_fini(&w->pages);
}

int blob_change_commit(struct rt_task *t, struct blob *b, struct blob_change *c)
{
    struct writer w = {.t = t, .bs = b->bs, .b = b, .c = c};
    int rc;

    w.head = c->head != NULL ? c->head : &b->head;
    w.map = c->map != NULL ? c->map : b->map;
    rc = leaves_reserve(w.map, c);
    if (rc == 0)
        rc = blob_md_dirty(t, b->bs);
    if (rc < 0)
        return rc;
    rc = fits_in_place(b, c) ? write_in_place(&w) : write_anew(&w, c);
    writer_fini(&w);
    blob_store_count(b->bs);
    return rc;
}

int blob_write_new(struct rt_task *t, struct blob *b, uint32_t fresh_from)
{
    /* Clusters have been cleared: nobody is to see what they held before. */
    struct blob_change c = {.fresh_from = fresh_from, .ordered = b->nallocated > 0};
    struct writer w = {.t = t, .bs = b->bs, .b = b, .c = &c, .head = &b->head, .map = b->map};
    int rc = blob_md_dirty(t, b->bs);

    if (rc < 0)
        return rc;
    rc = write_anew(&w, &c);
    writer_fini(&w);
    return rc;
}
