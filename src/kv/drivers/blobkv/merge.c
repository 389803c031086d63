/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The merge goes through the old tree once, in key order. Leaves that nothing changes are taken
 * over by their fences; the others are read, many at a time, and come out anew. Leaves changed one
 * after the other are a run: its entries are packed without regard to which leaf they come from, so
 * that leaves are nearly full where much changes at once. At the end of a run a last leaf that is
 * rather empty is joined with the one before it, or shared out evenly, or the leaf that follows
 * joins the run; only the last leaf of all may be small.
 *
 * New pages wait in `out` until there are many: then they get their places, are sealed and written,
 * and fences are made, in order with those that were taken over.
 */
#include "kv/drivers/blobkv/fence.h"
#include "kv/drivers/blobkv/leaf.h"
#include "kv/drivers/blobkv/tree.h"

#include "base/must.h"

#define IN_PAGES BKV_LEAVES_MAX
#define OUT_PAGES 64u /* written when there are so many, or two more at the end of a run */
#define ITEMS_MAX (2 * OUT_PAGES)
#define PACKED_BYTES (BKV_PAGE_BYTES / 100 * 93) /* room for a few more keys later */
#define SMALL_BYTES (BKV_PAGE_BYTES * 45 / 100)  /* smaller than this is not left alone */
#define SCAN_STEP 8192u                          /* leaves looked at between two yields */

/* A page of the new tree: what its fence will say. */
struct out_page {
    uint32_t sep_len;
    bool cached; /* some of it came from the cache and goes there */
    uint8_t sep[BKV_KEY_MAX];
};

/* What comes next in the new tree: a page of `out`, or leaves [from, to) of the old one. */
struct item {
    bool is_page;
    uint64_t from, to;
};

/* Addresses that were added, as runs of pages. */
struct added_run {
    uint64_t addr;
    uint64_t n;
};

struct merge {
    struct rt_task *t;
    struct bkv_tree *old;
    struct bkv_tree_io *io;
    const struct bkv_memtab *frozen;
    struct bkv_merge *cb;
    uint64_t number, nkeys;

    /* The plan: which leaves come next, and the first memtable entry behind them. */
    const struct bkv_mem_entry *plan_entry;
    uint64_t plan_leaf; /* leaves before it are planned or left alone */
    struct bkv_leaf_ref in[IN_PAGES];
    unsigned nin;
    uint8_t *in_pages;

    const struct bkv_mem_entry *entry; /* the next one to be merged */
    uint64_t next_leaf;                /* leaves before it are in the new tree */
    bool in_run;
    bool run_cached;

    /* Pages: `nfinal` that are queued, then one that is complete, then the one being filled. */
    uint8_t *out_pages;
    struct out_page *out;
    unsigned nfinal;
    bool has_last, has_cur;
    uint32_t last_used; /* bytes used of the complete one */
    struct bkv_leaf_build *build;
    uint32_t run_sep_len; /* the separator the run's first page gets */
    uint8_t run_sep[BKV_KEY_MAX];
    struct item item[ITEMS_MAX + 4];
    unsigned nitems;

    struct bkv_fence_build *fences;
    uint8_t *rewritten; /* a bit for each leaf of the old tree */
    struct added_run *added;
    size_t nadded, added_max;
    uint64_t addr[OUT_PAGES + 2];
    uint32_t gen[OUT_PAGES + 2];
    uint8_t key[BKV_KEY_MAX];
    uint8_t key2[BKV_KEY_MAX];
};

static struct bytes entry_key(const struct bkv_mem_entry *e)
{
    return art_key_bytes(&e->key);
}

static uint8_t *out_page(struct merge *m, unsigned i)
{
    return m->out_pages + (size_t)i * BKV_PAGE_BYTES;
}

/* --- writing ---------------------------------------------------------------------------------- */

static int remember_added(struct merge *m, uint64_t addr)
{
    struct added_run *last = m->nadded > 0 ? &m->added[m->nadded - 1] : NULL;

    if (last != NULL && last->addr + last->n * BKV_PAGE_BYTES == addr) {
        last->n++;
    } else {
        if (m->nadded == m->added_max) {
            size_t max = MAX((size_t)64, 2 * m->added_max);
            struct added_run *more = realloc(m->added, max * sizeof(*more));

            if (more == NULL)
                return -ENOMEM;
            m->added = more;
            m->added_max = max;
        }
        m->added[m->nadded++] = (struct added_run){addr, 1};
    }
    if (m->cb->added != NULL)
        m->cb->added(m->cb, addr);
    return 0;
}

/* Gives the final pages their places and writes them. */
static int write_pages(struct merge *m, uint32_t *crc)
{
    struct bkv_tree_io *io = m->io;
    int rc;

    if (m->nfinal == 0)
        return 0;
    rc = io->place(m->t, io, m->nfinal, m->addr, m->gen);
    if (rc < 0)
        return rc;
    for (unsigned i = 0; i < m->nfinal; i++) {
        rc = remember_added(m, m->addr[i]);
        if (rc < 0)
            return rc;
        if (m->out[i].cached && io->cache != NULL)
            bkv_cache_put(io->cache, m->addr[i], bytes_make(out_page(m, i), BKV_PAGE_BYTES));
    }
    for (unsigned i = 0; i < m->nfinal; i++) {
        rc = bkv_leaf_seal(io->codec, out_page(m, i), m->addr[i], m->gen[i], &crc[i]);
        if (rc < 0)
            return rc;
    }
    return io->write(m->t, io, m->addr, m->nfinal, m->out_pages);
}

static int flush(struct merge *m)
{
    uint32_t crc[OUT_PAGES + 2];
    unsigned page = 0;
    int rc = write_pages(m, crc);

    for (unsigned i = 0; rc == 0 && i < m->nitems; i++) {
        const struct item *item = &m->item[i];

        if (item->is_page) {
            const struct out_page *o = &m->out[page];

            rc = bkv_fence_add(m->fences, bytes_make(o->sep, o->sep_len), m->addr[page], crc[page]);
            page++;
        } else {
            rc = bkv_fence_add_range(m->fences, m->old, item->from, item->to, m->key2);
        }
    }
    if (rc < 0)
        return rc;
    must(page == m->nfinal);
    must(!m->has_cur);
    if (m->has_last) {
        memcpy(out_page(m, 0), out_page(m, m->nfinal), BKV_PAGE_BYTES);
        m->out[0] = m->out[m->nfinal];
    }
    m->nfinal = 0;
    m->nitems = 0;
    return 0;
}

static void queue_page(struct merge *m)
{
    m->item[m->nitems++] = (struct item){.is_page = true};
    m->nfinal++;
}

static int flush_if_full(struct merge *m)
{
    return m->nfinal >= OUT_PAGES || m->nitems >= ITEMS_MAX ? flush(m) : 0;
}

static int queue_range(struct merge *m, uint64_t from, uint64_t to)
{
    must(!m->has_last);
    if (from == to)
        return 0;
    m->item[m->nitems++] = (struct item){.from = from, .to = to};
    return flush_if_full(m);
}

/* --- packing ---------------------------------------------------------------------------------- */

/* The shortest separator between the key before and this one. */
static uint32_t separator_len(struct bytes before, struct bytes key)
{
    uint32_t n = 0;

    while (n < before.len && before.ptr[n] == key.ptr[n])
        n++;
    return n + 1;
}

/* Begins a page whose first key is `key`. */
static void begin_page(struct merge *m, struct bytes key)
{
    unsigned i = m->nfinal + m->has_last;
    struct out_page *o = &m->out[i];

    if (m->has_last) {
        /* The build still has the last key of the page before. */
        o->sep_len = separator_len(bytes_make(m->build->last, m->build->last_len), key);
        memcpy(o->sep, key.ptr, o->sep_len);
    } else {
        o->sep_len = m->run_sep_len;
        memcpy(o->sep, m->run_sep, m->run_sep_len);
    }
    o->cached = false;
    bkv_leaf_begin(m->build, out_page(m, i));
    m->build->limit = PACKED_BYTES;
    m->has_cur = true;
}

/* The page that is being filled is complete; the one that was is final. */
static int finish_page(struct merge *m)
{
    bkv_leaf_end(m->build, m->number);
    m->out[m->nfinal + m->has_last].cached |= m->run_cached;
    m->has_cur = false;
    if (m->has_last)
        queue_page(m);
    m->has_last = true;
    m->last_used = bkv_leaf_used(m->build);
    return flush_if_full(m);
}

static int emit(struct merge *m, struct bytes key, const struct bkv_place *place)
{
    int rc;

    if (!m->has_cur) {
        /* Only a damaged leaf can have keys that belong elsewhere. */
        if (m->has_last && bytes_cmp(bytes_make(m->build->last, m->build->last_len), key) >= 0)
            return -EBADMSG;
        begin_page(m, key);
    }
    rc = bkv_leaf_add(m->build, key, place);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    rc = finish_page(m);
    if (rc < 0)
        return rc;
    return emit(m, key, place);
}

/* Packs the entries of two pages anew, up to `limit` in the first. 1 they went into one page, 2
 * into two; *out_sep_len of the second's first key, which is in m->key, separates them. */
static int repack(struct merge *m, const uint8_t *const src[2], uint8_t *const dst[2],
                  uint32_t limit, uint32_t *out_sep_len)
{
    unsigned n = 0;

    bkv_leaf_begin(m->build, dst[0]);
    m->build->limit = limit;
    for (unsigned s = 0; s < 2; s++) {
        struct bkv_leaf_iter it;
        struct bkv_place place;
        int rc;

        bkv_leaf_first(&it, src[s], m->key2);
        while ((rc = bkv_leaf_next(&it, &place)) == 1) {
            struct bytes key = bytes_make(it.key, it.key_len);

            rc = bkv_leaf_add(m->build, key, &place);
            if (rc == 0 && n == 0) {
                *out_sep_len = separator_len(bytes_make(m->build->last, m->build->last_len), key);
                memcpy(m->key, key.ptr, key.len);
                bkv_leaf_end(m->build, m->number);
                bkv_leaf_begin(m->build, dst[1]);
                rc = bkv_leaf_add(m->build, key, &place);
                n = 1;
            }
            if (rc != 1)
                return rc < 0 ? rc : -ENOSPC;
        }
        if (rc < 0)
            return rc;
    }
    bkv_leaf_end(m->build, m->number);
    return (int)n + 1;
}

/* The last two pages of a run, the second of them small: becomes one page, or two alike. */
static int join_pages(struct merge *m, uint32_t small_used)
{
    uint8_t *last = out_page(m, m->nfinal), *small = out_page(m, m->nfinal + 1);
    /* Behind the pages in use there are always two more. */
    uint8_t *const dst[2] = {out_page(m, OUT_PAGES + 2), out_page(m, OUT_PAGES + 3)};
    const uint8_t *const src[2] = {last, small};
    struct out_page *o = &m->out[m->nfinal + 1];
    uint32_t sep_len = 0;
    int rc = repack(m, src, dst, BKV_PAGE_BYTES, &sep_len);

    if (rc == 2)
        rc = repack(m, src, dst, (m->last_used + small_used) / 2, &sep_len);
    if (rc == -ENOSPC)
        return 2; /* with keys so long that no other division fits: as they are */
    if (rc < 0)
        return rc;
    memcpy(last, dst[0], BKV_PAGE_BYTES);
    m->out[m->nfinal].cached |= o->cached;
    if (rc == 2) {
        memcpy(small, dst[1], BKV_PAGE_BYTES);
        memcpy(o->sep, m->key, sep_len);
        o->sep_len = sep_len;
    }
    return rc;
}

/* Everything of the run has been emitted. */
static int end_run(struct merge *m)
{
    unsigned npages = 1;
    int rc = 0;

    if (!m->in_run)
        return 0;
    m->in_run = false;
    if (m->has_cur) {
        uint32_t used = bkv_leaf_used(m->build);

        bkv_leaf_end(m->build, m->number);
        m->out[m->nfinal + m->has_last].cached |= m->run_cached;
        m->has_cur = false;
        /* At the end of the tree more is likely to come: keys that ascend fill leaf after leaf. */
        if (m->has_last && used < SMALL_BYTES && m->next_leaf < m->old->nleaves) {
            rc = join_pages(m, used);
            if (rc < 0)
                return rc;
            npages = (unsigned)rc;
        } else if (m->has_last) {
            npages = 2;
        }
    } else {
        npages = m->has_last;
    }
    m->has_last = false;
    m->run_cached = false;
    while (npages-- > 0)
        queue_page(m);
    return flush_if_full(m);
}

/* --- reading ---------------------------------------------------------------------------------- */

/* The next leaf from plan_leaf on that has to be rewritten; nleaves: none. */
static int plan_next(struct merge *m, uint64_t *out_leaf, struct bkv_fence_pos *out_pos)
{
    struct bkv_fence_pos pos = {0}, mem_pos = {0};
    uint64_t by_mem = m->old->nleaves;

    if (m->plan_entry != NULL) {
        mem_pos = bkv_fence_find(m->old, entry_key(m->plan_entry));
        by_mem = bkv_fence_leaf(m->old, mem_pos);
    }
    if (m->cb->must_rewrite != NULL && m->plan_leaf < by_mem) {
        pos = bkv_fence_pos(m->old, m->plan_leaf);
        for (uint64_t i = m->plan_leaf; i < by_mem; i++) {
            if (m->cb->must_rewrite(m->cb, bkv_fence_addr(bkv_fence_at(m->old, pos)))) {
                *out_leaf = i;
                *out_pos = pos;
                return 0;
            }
            (void)bkv_fence_next(m->old, &pos);
            if ((i + 1) % SCAN_STEP == 0) {
                int rc = rt_yield(m->t);

                if (rc < 0)
                    return rc;
            }
        }
    }
    *out_leaf = by_mem;
    *out_pos = mem_pos;
    return 0;
}

/* The separator after a leaf, in m->key2; empty at the end of the tree. */
static struct bytes separator_after(struct merge *m, struct bkv_fence_pos pos)
{
    if (!bkv_fence_next(m->old, &pos))
        return (struct bytes){0};
    return bytes_make(m->key2, bkv_fence_key(m->old->block[pos.block], pos.idx, m->key2));
}

/* The first memtable entry that belongs behind the leaf. */
static const struct bkv_mem_entry *entry_after(struct merge *m, struct bkv_fence_pos pos)
{
    struct bytes sep = separator_after(m, pos);

    return sep.len == 0 ? NULL : bkv_memtab_seek(m->frozen, sep, false);
}

static int load(struct merge *m, struct bkv_leaf_ref *ref, unsigned n)
{
    int rc = rt_yield(m->t);

    if (rc < 0)
        return rc;
    return bkv_tree_read_leaves(m->t, m->old, ref, n, m->in_pages, m->key, false);
}

/* Chooses and reads the next leaves. */
static int plan(struct merge *m)
{
    m->nin = 0;
    while (m->nin < IN_PAGES) {
        struct bkv_leaf_ref *in = &m->in[m->nin];
        uint64_t leaf;
        int rc = plan_next(m, &leaf, &in->pos);

        if (rc < 0)
            return rc;
        if (leaf == m->old->nleaves)
            break;
        m->plan_leaf = leaf + 1;
        m->plan_entry = m->plan_entry == NULL ? NULL : entry_after(m, in->pos);
        m->nin++;
    }
    return m->nin == 0 ? 0 : load(m, m->in, m->nin);
}

/* --- merging ---------------------------------------------------------------------------------- */

/* A memtable entry of a key that the leaf does not have. */
static int merge_new(struct merge *m, const struct bkv_mem_entry *e)
{
    if (e->place.type == BKV_DELETE)
        return 0;
    m->nkeys++;
    return emit(m, entry_key(e), &e->place);
}

/* A key that both have. */
static int merge_both(struct merge *m, const struct bkv_mem_entry *e, struct bytes key,
                      const struct bkv_place *leaf)
{
    if (e->place.seq < leaf->seq) {
        if (m->cb->ignored != NULL)
            m->cb->ignored(m->cb, &e->place);
        return emit(m, key, leaf);
    }
    if (m->cb->replaced != NULL)
        m->cb->replaced(m->cb, leaf);
    if (e->place.type != BKV_DELETE)
        return emit(m, key, &e->place);
    m->nkeys--;
    return 0;
}

static const struct bkv_mem_entry *next_entry(struct merge *m)
{
    return bkv_memtab_seek(m->frozen, entry_key(m->entry), true);
}

/* Memtable entries below a key (`end`: all up to `end`, NULL: all there are). */
static int merge_upto(struct merge *m, struct bytes key, const struct bkv_mem_entry *end)
{
    while (m->entry != end && (key.ptr == NULL || bytes_cmp(entry_key(m->entry), key) < 0)) {
        int rc = merge_new(m, m->entry);

        if (rc < 0)
            return rc;
        m->entry = next_entry(m);
    }
    return 0;
}

/* Leaves between runs are taken over as they are. */
static int begin_run(struct merge *m, const struct bkv_leaf_ref *in)
{
    int rc = end_run(m);

    if (rc == 0)
        rc = queue_range(m, m->next_leaf, bkv_fence_leaf(m->old, in->pos));
    m->in_run = true;
    m->run_sep_len = bkv_fence_key(m->old->block[in->pos.block], in->pos.idx, m->run_sep);
    return rc;
}

static int merge_leaf(struct merge *m, const struct bkv_leaf_ref *in)
{
    const struct bkv_mem_entry *end = entry_after(m, in->pos);
    const uint64_t leaf = bkv_fence_leaf(m->old, in->pos);
    struct bkv_leaf_iter it;
    struct bkv_place place;
    int rc;

    m->run_cached = in->cached;
    bkv_leaf_first(&it, in->page, m->key);
    while ((rc = bkv_leaf_next(&it, &place)) == 1) {
        struct bytes key = bytes_make(it.key, it.key_len);

        rc = merge_upto(m, key, end);
        if (rc == 0 && m->entry != end && bytes_eq(entry_key(m->entry), key)) {
            rc = merge_both(m, m->entry, key, &place);
            m->entry = next_entry(m);
        } else if (rc == 0) {
            rc = emit(m, key, &place);
        }
        if (rc < 0)
            return rc;
    }
    if (rc == 0)
        rc = merge_upto(m, (struct bytes){0}, end);
    m->rewritten[leaf / 8] |= (uint8_t)(1u << leaf % 8);
    m->next_leaf = leaf + 1;
    return rc;
}

/* Whether the run is so small that the leaf after it, which nothing else changes, is to join. */
static bool wants_next(const struct merge *m)
{
    return m->in_run && m->has_cur && !m->has_last && m->next_leaf < m->old->nleaves &&
           bkv_leaf_used(m->build) < SMALL_BYTES;
}

static int pull_next(struct merge *m)
{
    struct bkv_leaf_ref in = {.pos = bkv_fence_pos(m->old, m->next_leaf)};
    uint8_t *page = m->in_pages + IN_PAGES * BKV_PAGE_BYTES; /* others may be waiting before it */
    int rc = bkv_tree_read_leaves(m->t, m->old, &in, 1, page, m->key, false);

    return rc < 0 ? rc : merge_leaf(m, &in);
}

static int merge_planned(struct merge *m)
{
    for (unsigned i = 0; i < m->nin; i++) {
        const struct bkv_leaf_ref *in = &m->in[i];
        const uint64_t leaf = bkv_fence_leaf(m->old, in->pos);
        int rc = 0;

        if (leaf != m->next_leaf && wants_next(m))
            rc = pull_next(m);
        if (rc == 0 && (!m->in_run || leaf != m->next_leaf))
            rc = begin_run(m, in);
        if (rc == 0)
            rc = merge_leaf(m, in);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int merge_all(struct merge *m)
{
    int rc;

    m->entry = bkv_memtab_seek(m->frozen, bytes_make(NULL, 0), false);
    m->plan_entry = m->entry;
    if (m->old->nleaves == 0) {
        m->in_run = true;
        rc = merge_upto(m, (struct bytes){0}, NULL);
    } else {
        do {
            rc = plan(m);
            if (rc == 0)
                rc = merge_planned(m);
        } while (rc == 0 && m->nin > 0);
        if (rc == 0 && wants_next(m))
            rc = pull_next(m);
    }
    if (rc == 0)
        rc = end_run(m);
    if (rc == 0)
        rc = queue_range(m, m->next_leaf, m->old->nleaves);
    return rc == 0 ? flush(m) : rc;
}

/* --- around it -------------------------------------------------------------------------------- */

static void merge_free(struct merge **pm)
{
    struct merge *m = *pm;

    if (m == NULL)
        return;
    if (m->fences != NULL)
        bkv_fence_discard(m->fences);
    free(m->fences);
    free(m->in_pages);
    free(m->out_pages);
    free(m->out);
    free(m->build);
    free(m->rewritten);
    free(m->added);
    free(m);
}

static struct merge *merge_new_state(struct rt_task *t, struct bkv_tree *tree,
                                     const struct bkv_memtab *frozen, struct bkv_merge *cb)
{
    CLEANUP(merge_free) struct merge *m = calloc(1, sizeof(*m));

    if (m == NULL)
        return NULL;
    m->t = t;
    m->old = tree;
    m->io = tree->io;
    m->frozen = frozen;
    m->cb = cb;
    m->number = tree->number + 1;
    m->nkeys = tree->nkeys;
    m->in_pages = aligned_alloc(BKV_PAGE_BYTES, (IN_PAGES + 1) * BKV_PAGE_BYTES);
    m->out_pages = aligned_alloc(BKV_PAGE_BYTES, (OUT_PAGES + 4) * BKV_PAGE_BYTES);
    m->out = malloc((OUT_PAGES + 3) * sizeof(*m->out));
    m->build = malloc(sizeof(*m->build));
    m->fences = calloc(1, sizeof(*m->fences));
    m->rewritten = calloc(1, tree->nleaves / 8 + 1);
    if (m->in_pages == NULL || m->out_pages == NULL || m->out == NULL || m->build == NULL ||
        m->fences == NULL || m->rewritten == NULL)
        return NULL;
    return take_ptr(&m);
}

static void drop(struct merge *m, uint64_t addr)
{
    if (m->io->cache != NULL)
        bkv_cache_del(m->io->cache, addr);
    if (m->cb->dropped != NULL)
        m->cb->dropped(m->cb, addr);
}

static void drop_added(struct merge *m)
{
    for (size_t i = 0; i < m->nadded; i++) {
        for (uint64_t k = 0; k < m->added[i].n; k++)
            drop(m, m->added[i].addr + k * BKV_PAGE_BYTES);
    }
}

static void drop_rewritten(struct merge *m)
{
    struct bkv_fence_pos pos = {0};

    for (uint64_t i = 0; i < m->old->nleaves; i++) {
        if ((m->rewritten[i / 8] >> i % 8 & 1) != 0)
            drop(m, bkv_fence_addr(bkv_fence_at(m->old, pos)));
        (void)bkv_fence_next(m->old, &pos);
    }
}

int bkv_tree_merge(struct rt_task *t, struct bkv_tree *tree, const struct bkv_memtab *frozen,
                   struct bkv_merge *cb, struct bkv_tree **out_tree)
{
    CLEANUP(merge_free) struct merge *m = merge_new_state(t, tree, frozen, cb);
    struct bkv_tree *made = NULL;
    int rc;

    if (m == NULL)
        return -ENOMEM;
    bkv_tree_ref(tree);
    rc = merge_all(m);
    if (rc == 0) {
        made = bkv_fence_tree(m->fences, m->io);
        rc = made == NULL ? -ENOMEM : 0;
    }
    if (rc == 0) {
        made->number = m->number;
        made->nkeys = m->nkeys;
        drop_rewritten(m);
        *out_tree = made;
    } else {
        drop_added(m);
    }
    bkv_tree_put(tree);
    return rc;
}
