/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where the cursor is, is a key: `last`, and whether it has been given out. Each source has its
 * next key ready; a memtable that has new keys is asked again, since one may lie in between.
 */
#include "kv/drivers/blobkv/fence.h"
#include "kv/drivers/blobkv/leaf.h"
#include "kv/drivers/blobkv/tree.h"

#include "base/must.h"

#define FIRST_AHEAD 4u   /* short lists do not read far */
#define DELETED_MAX 512u /* passed in one step */

struct source {
    const struct bkv_memtab *tab; /* NULL: none */
    const struct bkv_mem_entry *next;
    uint64_t changes;
    bool found; /* `next` is set, for these changes */
};

struct bkv_cursor {
    struct source mem[2]; /* active, frozen */
    struct bkv_tree *tree;
    unsigned ahead, window;

    /* The tree: the leaf at `pos`, and its entry that comes next. */
    struct bkv_fence_pos pos;
    bool tree_end;  /* there is no leaf at pos */
    bool leaf_open; /* `it` walks the leaf at pos */
    bool has_entry; /* `it` stands on a key, `place` is its place */
    bool must_seek; /* the leaf has to be entered at `last`, not at its first key */
    struct bkv_leaf_iter it;
    struct bkv_place place;

    /* Leaves read ahead: ref[at] is the one at pos. */
    struct bkv_leaf_ref ref[BKV_LEAVES_MAX];
    unsigned nref, at;
    uint8_t *pages;
    unsigned npages;

    bool paused; /* many deleted keys were passed: the other tasks are to run */
    bool after;  /* `last` has been given out */
    uint32_t last_len;
    uint8_t last[BKV_KEY_MAX];
    uint8_t leaf_key[BKV_KEY_MAX];
    uint8_t scratch[BKV_KEY_MAX];
};

static int pages_grow(struct bkv_cursor *c, unsigned n)
{
    uint8_t *more;

    if (c->npages >= n)
        return 0;
    more = aligned_alloc(BKV_PAGE_BYTES, (size_t)n * BKV_PAGE_BYTES);
    if (more == NULL)
        return -ENOMEM;
    free(c->pages);
    c->pages = more;
    c->npages = n;
    return 0;
}

struct bkv_cursor *bkv_cursor_new(const struct bkv_memtab *active, const struct bkv_memtab *frozen,
                                  struct bkv_tree *tree, unsigned ahead)
{
    struct bkv_cursor *c = malloc(sizeof(*c));

    if (c == NULL)
        return NULL;
    memset(c, 0, offsetof(struct bkv_cursor, last));
    c->ahead = MIN(MAX(ahead, 1u), BKV_LEAVES_MAX);
    if (pages_grow(c, 1) < 0) {
        free(c);
        return NULL;
    }
    bkv_cursor_use(c, active, frozen, tree);
    return c;
}

void bkv_cursor_free(struct bkv_cursor *c)
{
    if (c == NULL)
        return;
    bkv_tree_put(c->tree);
    free(c->pages);
    free(c);
}

void bkv_cursor_use(struct bkv_cursor *c, const struct bkv_memtab *active,
                    const struct bkv_memtab *frozen, struct bkv_tree *tree)
{
    struct bkv_tree *old = c->tree;

    c->mem[0].tab = active;
    c->mem[1].tab = frozen;
    c->tree = tree == NULL ? NULL : bkv_tree_ref(tree);
    bkv_tree_put(old);
    if (tree != NULL)
        bkv_cursor_seek(c, bytes_make(c->last, c->last_len), c->after);
}

void bkv_cursor_seek(struct bkv_cursor *c, struct bytes key, bool after)
{
    must(key.len <= BKV_KEY_MAX);
    if (key.len > 0)
        memmove(c->last, key.ptr, key.len);
    c->last_len = (uint32_t)key.len;
    c->after = after;
    c->mem[0].found = c->mem[1].found = false;
    c->has_entry = c->leaf_open = c->paused = false;
    c->nref = 0;
    c->window = MIN(FIRST_AHEAD, c->ahead);
    c->tree_end = c->tree->nleaves == 0;
    c->must_seek = key.len > 0;
    c->pos = (struct bkv_fence_pos){0};
    if (!c->tree_end && key.len > 0)
        c->pos = bkv_fence_find(c->tree, key);
}

/* --- the tree --------------------------------------------------------------------------------- */

/* Opens the leaf at pos, from what was read ahead or the cache. 0, -EAGAIN, -EBADMSG. */
static int leaf_enter(struct bkv_cursor *c)
{
    int rc;

    if (c->nref == 0) {
        c->ref[0].pos = c->pos;
        rc = bkv_tree_read_leaves(NULL, c->tree, c->ref, 1, c->pages, c->scratch, false);
        if (rc < 0)
            return rc;
        c->nref = 1;
        c->at = 0;
    }
    bkv_leaf_first(&c->it, c->ref[c->at].page, c->leaf_key);
    if (c->must_seek) {
        rc = bkv_leaf_seek(&c->it, bytes_make(c->last, c->last_len), c->after);
        if (rc < 0)
            return rc;
        c->must_seek = false;
    }
    c->leaf_open = true;
    return 0;
}

static void leaf_leave(struct bkv_cursor *c)
{
    c->leaf_open = false;
    c->tree_end = !bkv_fence_next(c->tree, &c->pos);
    if (++c->at >= c->nref)
        c->nref = 0;
}

/* Has the tree's next entry ready, unless there is none. 0, -EAGAIN, -EBADMSG. */
static int tree_ready(struct bkv_cursor *c)
{
    while (!c->has_entry && !c->tree_end) {
        int rc = c->leaf_open ? 0 : leaf_enter(c);

        if (rc < 0)
            return rc;
        rc = bkv_leaf_next(&c->it, &c->place);
        if (rc < 0)
            return rc;
        if (rc == 0)
            leaf_leave(c);
        c->has_entry = rc == 1;
    }
    return 0;
}

int bkv_cursor_load(struct rt_task *t, struct bkv_cursor *c)
{
    struct bkv_fence_pos pos = c->pos;
    unsigned n = 0;
    int rc;

    if (c->paused) {
        c->paused = false;
        return rt_yield(t);
    }
    rc = pages_grow(c, c->window);
    if (rc < 0)
        return rc;
    must(!c->leaf_open);
    must(!c->tree_end);
    do {
        c->ref[n++].pos = pos;
    } while (n < c->window && bkv_fence_next(c->tree, &pos));
    c->nref = 0;
    rc = bkv_tree_read_leaves(t, c->tree, c->ref, n, c->pages, c->scratch, true);
    if (rc < 0)
        return rc;
    c->nref = n;
    c->at = 0;
    c->window = MIN(2 * c->window, c->ahead);
    return 0;
}

/* --- all together ----------------------------------------------------------------------------- */

static void mem_ready(struct bkv_cursor *c, struct source *s)
{
    uint64_t changes;

    if (s->tab == NULL)
        return;
    changes = bkv_memtab_changes(s->tab);
    if (s->found && s->changes == changes)
        return;
    s->next = bkv_memtab_seek(s->tab, bytes_make(c->last, c->last_len), c->after);
    s->changes = changes;
    s->found = true;
}

/* What the next key is, and the newest place among the sources that have it. */
static bool choose(const struct bkv_cursor *c, struct bytes *out_key, struct bkv_place *out_place)
{
    bool any = c->has_entry;

    if (any) {
        *out_key = bytes_make(c->it.key, c->it.key_len);
        *out_place = c->place;
    }
    for (unsigned i = ARRAY_LEN(c->mem); i-- > 0;) {
        const struct bkv_mem_entry *e = c->mem[i].tab == NULL ? NULL : c->mem[i].next;
        int cmp;

        if (e == NULL)
            continue;
        cmp = any ? bytes_cmp(art_key_bytes(&e->key), *out_key) : -1;
        if (cmp < 0 || (cmp == 0 && e->place.seq >= out_place->seq)) {
            *out_key = art_key_bytes(&e->key);
            *out_place = e->place;
        }
        any = true;
    }
    return any;
}

/* Every source that stands on `last` goes on. */
static void advance(struct bkv_cursor *c)
{
    struct bytes last = bytes_make(c->last, c->last_len);

    if (c->has_entry && bytes_eq(bytes_make(c->it.key, c->it.key_len), last))
        c->has_entry = false;
    for (unsigned i = 0; i < ARRAY_LEN(c->mem); i++) {
        const struct bkv_mem_entry *e = c->mem[i].tab == NULL ? NULL : c->mem[i].next;

        if (e != NULL && bytes_eq(art_key_bytes(&e->key), last))
            c->mem[i].found = false;
    }
}

int bkv_cursor_step(struct bkv_cursor *c, struct bytes *out_key, struct bkv_place *out_place)
{
    for (unsigned deleted = 0; !c->paused; deleted++) {
        struct bkv_place place;
        struct bytes key;
        int rc = tree_ready(c);

        if (rc < 0)
            return rc;
        mem_ready(c, &c->mem[0]);
        mem_ready(c, &c->mem[1]);
        if (!choose(c, &key, &place))
            return 0;
        memcpy(c->last, key.ptr, key.len);
        c->last_len = (uint32_t)key.len;
        c->after = true;
        advance(c);
        if (place.type != BKV_DELETE) {
            *out_key = bytes_make(c->last, c->last_len);
            *out_place = place;
            return 1;
        }
        c->paused = deleted >= DELETED_MAX;
    }
    return -EAGAIN;
}

int bkv_cursor_run(struct bkv_cursor *c, struct bytes prefix, uint8_t *buf, size_t max,
                   size_t *used)
{
    struct bytes limit = {0};
    int n;

    if (!c->leaf_open || c->has_entry)
        return 0;
    for (unsigned i = 0; i < ARRAY_LEN(c->mem); i++) {
        struct bytes key;

        mem_ready(c, &c->mem[i]);
        if (c->mem[i].tab == NULL || c->mem[i].next == NULL)
            continue;
        key = art_key_bytes(&c->mem[i].next->key);
        if (limit.ptr == NULL || bytes_cmp(key, limit) < 0)
            limit = key;
    }
    n = bkv_leaf_run(&c->it, prefix, limit, buf, max, used);
    if (n > 0) {
        memcpy(c->last, c->it.key, c->it.key_len);
        c->last_len = c->it.key_len;
    }
    return n;
}

int bkv_cursor_next(struct rt_task *t, struct bkv_cursor *c, struct bytes *out_key,
                    struct bkv_place *out_place)
{
    int rc;

    while ((rc = bkv_cursor_step(c, out_key, out_place)) == -EAGAIN) {
        rc = bkv_cursor_load(t, c);
        if (rc < 0)
            return rc;
    }
    return rc;
}
