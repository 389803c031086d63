/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tree on an array of pages, against a model: merges of random batches, every failure of the
 * array, fences as bytes, and cursors while memtables change. Pages are counted: what a tree does
 * not keep has been dropped, and nothing twice.
 */
#include "kv/drivers/blobkv/fence.h"
#include "kv/drivers/blobkv/leaf.h"
#include "kv/drivers/blobkv/test_rng.h"
#include "kv/drivers/blobkv/tree.h"

#include "base/must.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

/* The number of the line that failed goes back to the main stack. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)

#define TEST(name)                                                                                 \
    static void name##_test(void **state)                                                          \
    {                                                                                              \
        struct rt_config cfg = {.reactors = 1, .poll = RT_POLL_NEVER, .buf_bytes = MIB};           \
        struct err why = {""};                                                                     \
        int rc = rt_run(&cfg, name, NULL, &why);                                                   \
                                                                                                   \
        (void)state;                                                                               \
        if (rc < 0)                                                                                \
            print_error("line %d (%s)\n", -rc, why.text);                                          \
        assert_int_equal(rc, 0);                                                                   \
    }

/* --- pages in an array ------------------------------------------------------------------------ */

#define PAGES_MAX 65536u
#define GEN 3u

struct array {
    struct bkv_tree_io io; /* first */
    uint8_t *pages;        /* page i lies at (i + 1) * 4096 */
    uint8_t *state;        /* FREE, PLACED, USED */
    uint32_t next;         /* where the search for free ones begins */
    uint32_t used;         /* not free */
    uint64_t reads, calls, pages_read, pages_written;
    uint64_t fail_at; /* this call fails; 0: none */
    int fail_rc;
};
enum { FREE, PLACED, USED };

static struct array *array_of(struct bkv_tree_io *io)
{
    return (struct array *)io;
}

static bool fails(struct array *a)
{
    return ++a->calls == a->fail_at;
}

static int array_read(struct rt_task *t, struct bkv_tree_io *io, const uint64_t *addr, unsigned n,
                      uint8_t *buf)
{
    struct array *a = array_of(io);

    a->reads++;
    a->pages_read += n;
    if (fails(a))
        return a->fail_rc;
    for (unsigned i = 0; i < n; i++)
        memcpy(buf + i * 4096ull, a->pages + (addr[i] - 4096), 4096);
    return rt_yield(t);
}

static int array_place(struct rt_task *t, struct bkv_tree_io *io, unsigned n, uint64_t *out_addr,
                       uint32_t *out_gen)
{
    struct array *a = array_of(io);

    if (fails(a))
        return a->fail_rc;
    for (unsigned i = 0; i < n; i++) {
        while (a->state[a->next % PAGES_MAX] != FREE)
            a->next++;
        a->state[a->next % PAGES_MAX] = PLACED;
        out_addr[i] = (a->next % PAGES_MAX + 1ull) * 4096;
        out_gen[i] = GEN;
    }
    return 0;
}

static int array_write(struct rt_task *t, struct bkv_tree_io *io, const uint64_t *addr, unsigned n,
                       const uint8_t *buf)
{
    struct array *a = array_of(io);

    a->pages_written += n;
    if (fails(a))
        return a->fail_rc;
    for (unsigned i = 0; i < n; i++)
        memcpy(a->pages + (addr[i] - 4096), buf + i * 4096ull, 4096);
    return rt_yield(t);
}

static uint32_t array_gen(struct bkv_tree_io *io, uint64_t addr)
{
    return GEN;
}

static int array_init(struct array *a, bool with_cache)
{
    *a = (struct array){
        .io = {.read = array_read, .place = array_place, .write = array_write, .gen = array_gen},
        .pages = calloc(PAGES_MAX, 4096),
        .state = calloc(PAGES_MAX, 1),
    };
    if (with_cache)
        a->io.cache = bkv_cache_new(MIB);
    return a->pages == NULL || a->state == NULL ? -ENOMEM : 0;
}

static void array_fini(struct array *a)
{
    free(a->pages);
    free(a->state);
    bkv_cache_free(a->io.cache);
}

/* --- the model -------------------------------------------------------------------------------- */

enum { KEYS = 16000 };

struct model {
    uint8_t key[KEYS][40]; /* in order */
    uint8_t len[KEYS];
    struct bkv_place place[KEYS]; /* seq 0: not there */
    uint64_t nkeys;
    uint64_t seq;
};

static struct rng rng = {11};

static struct bytes key_of(const struct model *m, unsigned i)
{
    return bytes_make(m->key[i], m->len[i]);
}

/* Keys of different lengths that ascend: the number in base 3, padded, and a tail. */
static void make_keys(struct model *m)
{
    for (unsigned i = 0; i < KEYS; i++) {
        int n = snprintf((char *)m->key[i], 40, "k/%06u", i * 7);
        unsigned tail = rng_below(&rng, 30);

        for (unsigned k = 0; k < tail; k++)
            m->key[i][(unsigned)n + k] = (uint8_t)rng_u64(&rng);
        m->len[i] = (uint8_t)((unsigned)n + tail);
    }
}

static struct bkv_place new_place(struct model *m)
{
    m->seq++;
    return (struct bkv_place){
        .addr = 16 * (1 + m->seq), .seq = m->seq, .value_len = 100, .rec_len = 192, .type = 1};
}

static bool same_place(const struct bkv_place *a, const struct bkv_place *b)
{
    return a->addr == b->addr && a->seq == b->seq;
}

/* --- a merge and what it told ----------------------------------------------------------------- */

struct merge_test {
    struct bkv_merge cb; /* first */
    struct array *a;
    uint64_t replaced_sum, nreplaced; /* of addresses */
    uint64_t nadded, ndropped;
    uint64_t rewrite_from, rewrite_to; /* addresses that have to move */
    bool wrong;
};

static void on_replaced(struct bkv_merge *cb, const struct bkv_place *old)
{
    struct merge_test *mt = (struct merge_test *)cb;

    mt->nreplaced++;
    mt->replaced_sum += old->addr;
}

static void on_added(struct bkv_merge *cb, uint64_t addr)
{
    struct merge_test *mt = (struct merge_test *)cb;

    mt->nadded++;
    mt->wrong |= mt->a->state[addr / 4096 - 1] != PLACED;
    mt->a->state[addr / 4096 - 1] = USED;
    mt->a->used++;
}

static void on_dropped(struct bkv_merge *cb, uint64_t addr)
{
    struct merge_test *mt = (struct merge_test *)cb;

    mt->ndropped++;
    mt->wrong |= mt->a->state[addr / 4096 - 1] != USED;
    mt->a->state[addr / 4096 - 1] = FREE;
    mt->a->used--;
}

static bool on_must_rewrite(struct bkv_merge *cb, uint64_t addr)
{
    struct merge_test *mt = (struct merge_test *)cb;

    return addr >= mt->rewrite_from && addr < mt->rewrite_to;
}

static struct merge_test merge_test(struct array *a)
{
    return (struct merge_test){
        .cb = {on_replaced, on_replaced, on_dropped, on_added, on_must_rewrite}, .a = a};
}

/* Every key is found as the model has it, and a walk sees them all, in order. */
static int check_tree(struct rt_task *t, struct bkv_tree *tree, const struct model *m)
{
    struct bkv_cursor *c = bkv_cursor_new(NULL, NULL, tree, 8);
    struct bkv_place place;
    struct bytes key;
    unsigned i = 0;

    CHECK(bkv_tree_nkeys(tree) == m->nkeys);
    for (; i < KEYS; i++) {
        if (m->place[i].seq == 0)
            continue;
        CHECK(bkv_cursor_next(t, c, &key, &place) == 1);
        CHECK(bytes_eq(key, key_of(m, i)));
        CHECK(same_place(&place, &m->place[i]));
    }
    CHECK(bkv_cursor_next(t, c, &key, &place) == 0);
    bkv_cursor_free(c);
    for (i = 0; i < KEYS; i += 1 + rng_below(&rng, 20)) {
        int rc = bkv_tree_find(t, tree, key_of(m, i), &place, NULL);

        CHECK(rc == (m->place[i].seq == 0 ? -ENOENT : 0));
        CHECK(rc < 0 || same_place(&place, &m->place[i]));
    }
    return 0;
}

static void put(struct bkv_memtab *tab, struct bytes key, const struct bkv_place *place)
{
    must(bkv_memtab_reserve(tab, (uint32_t)key.len));
    (void)bkv_memtab_put(tab, key, place, NULL);
}

static void put_all(struct model *m, struct bkv_memtab *tab)
{
    for (unsigned i = 0; i < KEYS; i++) {
        m->place[i] = new_place(m);
        m->nkeys++;
        put(tab, key_of(m, i), &m->place[i]);
    }
}

/* A random batch into the memtable, and what becomes of the model and the replaced. */
struct expect {
    uint64_t sum, n;
};

static struct expect random_batch(struct model *m, struct bkv_memtab *tab)
{
    unsigned style = rng_below(&rng, 6), from = rng_below(&rng, KEYS);
    unsigned n = style == 0 ? KEYS : 1 + rng_below(&rng, style == 1 ? 2000 : 60);
    unsigned deletes = rng_below(&rng, 3) * 50; /* per cent */
    struct expect ex = {0};

    for (unsigned k = 0; k < n; k++) {
        unsigned i = style < 4 ? rng_below(&rng, KEYS) : (from + k) % KEYS;
        struct bkv_place *old = &m->place[i], place;
        unsigned what = rng_below(&rng, 100);

        if (bkv_memtab_find(tab, key_of(m, i)) != NULL)
            continue;
        place = new_place(m);
        if (what < 3 && old->seq > 1) { /* one that the leaf knows better */
            place.seq = old->seq - 1;
            place.type = what == 0 ? BKV_DELETE : BKV_VALUE;
            put(tab, key_of(m, i), &place);
            ex.sum += place.addr;
            ex.n++;
            continue;
        }
        if (what < 10 && old->seq > 0) /* moved */
            place.seq = old->seq;
        else if (rng_below(&rng, 100) < deletes)
            place.type = BKV_DELETE;
        put(tab, key_of(m, i), &place);
        ex.n += old->seq > 0;
        ex.sum += old->seq > 0 ? old->addr : 0;
        m->nkeys += (place.type != BKV_DELETE) - (uint64_t)(old->seq > 0);
        *old = place.type == BKV_DELETE ? (struct bkv_place){0} : place;
    }
    return ex;
}

static int merges_against_model_with(struct rt_task *t, bool with_cache)
{
    CLEANUP(free_p) struct model *m = calloc(1, sizeof(*m));
    struct bkv_memtab *tab = bkv_memtab_new(8 * MIB);
    struct array a;
    struct bkv_tree *tree;

    CHECK(array_init(&a, with_cache) == 0);
    make_keys(m);
    tree = bkv_tree_new(&a.io);
    CHECK(check_tree(t, tree, m) == 0);
    for (unsigned round = 0; round < 120; round++) {
        struct merge_test mt = merge_test(&a);
        struct bkv_tree *next = NULL;
        struct expect ex = random_batch(m, tab);
        uint64_t before = a.used;

        if (round % 4 == 0) {
            mt.rewrite_from = rng_below(&rng, 100) * 4096ull;
            mt.rewrite_to = mt.rewrite_from + rng_below(&rng, 100) * 4096ull;
        }
        CHECK(bkv_tree_merge(t, tree, tab, &mt.cb, &next) == 0);
        CHECK(!mt.wrong);
        CHECK(mt.nreplaced == ex.n);
        CHECK(mt.replaced_sum == ex.sum);
        CHECK(a.used == before + mt.nadded - mt.ndropped);
        CHECK(a.used == bkv_tree_nleaves(next));
        bkv_tree_put(tree);
        tree = next;
        for (uint64_t i = 0; i < bkv_tree_nleaves(tree); i++) {
            uint64_t addr = bkv_tree_leaf(tree, i);

            CHECK(a.state[addr / 4096 - 1] == USED);
            /* What had to move has; its place may be taken by a new one. */
            CHECK(mt.rewrite_to == 0 || addr < mt.rewrite_from || addr >= mt.rewrite_to ||
                  le64_at(a.pages + (addr - 4096) + 40) == tree->number);
        }
        bkv_memtab_reset(tab);
        CHECK(check_tree(t, tree, m) == 0);
    }
    bkv_tree_put(tree);
    bkv_memtab_free(tab);
    array_fini(&a);
    return 0;
}

static int merges_against_model(struct rt_task *t, void *arg)
{
    int rc = merges_against_model_with(t, false);

    return rc < 0 ? rc : merges_against_model_with(t, true);
}
TEST(merges_against_model)

/* --- how full leaves are ---------------------------------------------------------------------- */

/* Used bytes of all leaves by their room, in per cent. */
static unsigned fill(const struct array *a, struct bkv_tree *tree)
{
    uint64_t used = 0, n = bkv_tree_nleaves(tree);

    for (uint64_t i = 0; i < n; i++) {
        const uint8_t *p = a->pages + (bkv_tree_leaf(tree, i) - 4096);

        used += le16_at(p + 52) + 2u * le16_at(p + 50);
    }
    return n == 0 ? 0 : (unsigned)(used * 100 / (n * 4096));
}

/* Merges keys [from, to) in steps of `step`; deletes with type BKV_DELETE. */
static int merge_range(struct rt_task *t, struct array *a, struct bkv_tree **ptree, uint32_t from,
                       uint32_t to, uint32_t step, uint8_t type)
{
    struct bkv_memtab *tab = bkv_memtab_new(32 * MIB);
    struct merge_test mt = merge_test(a);
    struct bkv_tree *next;
    char key[32];

    for (uint32_t i = from; i < to; i += step) {
        struct bkv_place place = {
            .addr = 4096, .seq = (*ptree)->number + 1, .rec_len = 64, .type = type};

        put(tab, bytes_make(key, (size_t)snprintf(key, sizeof(key), "key-%010u", i)), &place);
    }
    CHECK(bkv_tree_merge(t, *ptree, tab, &mt.cb, &next) == 0);
    bkv_tree_put(*ptree);
    *ptree = next;
    bkv_memtab_free(tab);
    return 0;
}

static int leaves_are_full(struct rt_task *t, void *arg)
{
    struct array a;
    struct bkv_tree *tree;
    uint64_t nleaves;

    CHECK(array_init(&a, false) == 0);
    tree = bkv_tree_new(&a.io);
    /* In bulk, then appended to in small steps. */
    CHECK(merge_range(t, &a, &tree, 0, 100000, 2, 1) == 0);
    CHECK(fill(&a, tree) >= 85);
    CHECK(fill(&a, tree) <= 95);
    for (uint32_t i = 100000; i < 110000; i += 200)
        CHECK(merge_range(t, &a, &tree, i, i + 200, 2, 1) == 0);
    CHECK(fill(&a, tree) >= 85);
    /* One key into each leaf or so: they are not taken apart. */
    nleaves = bkv_tree_nleaves(tree);
    CHECK(merge_range(t, &a, &tree, 1, 110000, 400, 1) == 0);
    CHECK(bkv_tree_nleaves(tree) <= nleaves + nleaves / 50);
    CHECK(bkv_tree_bytes(tree) <= bkv_tree_nleaves(tree) * 40);
    /* Most of it deleted: the rest is packed again. */
    for (uint32_t i = 0; i < 9; i++)
        CHECK(merge_range(t, &a, &tree, 2 * i, 110000, 20, BKV_DELETE) == 0);
    CHECK(fill(&a, tree) >= 60);
    /* Some scattered leaves emptied: nothing is left almost empty. */
    CHECK(merge_range(t, &a, &tree, 0, 110000, 2, 1) == 0);
    for (uint32_t i = 1000; i < 110000; i += 5000)
        CHECK(merge_range(t, &a, &tree, i, i + 270, 2, BKV_DELETE) == 0);
    for (uint64_t i = 0; i + 1 < bkv_tree_nleaves(tree); i++)
        CHECK(le16_at(a.pages + (bkv_tree_leaf(tree, i) - 4096) + 52) > 1000);
    CHECK(merge_range(t, &a, &tree, 0, 110000, 1, BKV_DELETE) == 0);
    CHECK(bkv_tree_nleaves(tree) == 0);
    CHECK(a.used == 0);
    bkv_tree_put(tree);
    array_fini(&a);
    return 0;
}
TEST(leaves_are_full)

/* --- failures --------------------------------------------------------------------------------- */

/* The n-th call of the array fails, for all n: the old tree is whole and no page is lost. */
static int survives_failures(struct rt_task *t, void *arg)
{
    CLEANUP(free_p) struct model *m = calloc(1, sizeof(*m));
    CLEANUP(free_p) struct model *old = calloc(1, sizeof(*m));
    struct bkv_memtab *tab = bkv_memtab_new(8 * MIB);
    struct bkv_tree *tree, *next = NULL;
    struct merge_test mt;
    struct array a;
    unsigned failed = 0;

    CHECK(array_init(&a, true) == 0);
    make_keys(m);
    tree = bkv_tree_new(&a.io);
    put_all(m, tab);
    mt = merge_test(&a);
    CHECK(bkv_tree_merge(t, tree, tab, &mt.cb, &next) == 0);
    bkv_tree_put(tree);
    tree = next;
    bkv_memtab_reset(tab);
    memcpy(old, m, sizeof(*m));
    for (unsigned i = 0; i < KEYS; i += 3) {
        m->place[i] = new_place(m);
        put(tab, key_of(m, i), &m->place[i]);
    }
    for (uint64_t n = 1;; n++) {
        uint64_t used = a.used;
        int rc;

        a.calls = 0;
        a.fail_at = n;
        a.fail_rc = n % 2 == 0 ? -EIO : -ENOSPC;
        mt = merge_test(&a);
        bkv_cache_drop(a.io.cache, 0, PAGES_MAX * 4096ull);
        rc = bkv_tree_merge(t, tree, tab, &mt.cb, &next);
        a.fail_at = 0;
        CHECK(!mt.wrong);
        if (rc == 0)
            break;
        failed++;
        CHECK(rc == a.fail_rc);
        CHECK(a.used == used);
        CHECK(mt.nadded == mt.ndropped);
        CHECK(n % 3 != 0 || check_tree(t, tree, old) == 0);
        for (unsigned i = 0; i < PAGES_MAX; i++)
            a.state[i] = a.state[i] == PLACED ? FREE : a.state[i];
    }
    CHECK(failed >= 5);
    CHECK(check_tree(t, next, m) == 0);
    bkv_tree_put(next);
    /* A leaf that is another one, though whole. */
    bkv_cache_drop(a.io.cache, 0, PAGES_MAX * 4096ull);
    memcpy(a.pages + (bkv_tree_leaf(tree, 5) - 4096), a.pages + (bkv_tree_leaf(tree, 6) - 4096),
           4096);
    mt = merge_test(&a);
    CHECK(bkv_tree_merge(t, tree, tab, &mt.cb, &next) == -EBADMSG);
    CHECK(mt.nadded == mt.ndropped);
    bkv_tree_put(tree);
    bkv_memtab_free(tab);
    array_fini(&a);
    return 0;
}
TEST(survives_failures)

/* --- fences as bytes -------------------------------------------------------------------------- */

static int feed(struct bkv_tree_io *io, const uint8_t *bytes, size_t len, bool pieces,
                struct bkv_tree **out)
{
    struct bkv_tree_decoder *d = bkv_tree_decoder_new(io);

    for (size_t at = 0; at < len;) {
        size_t piece = 1 + rng_below(&rng, rng_below(&rng, 2) == 0 ? 9 : 3000);
        size_t n = pieces ? MIN(len - at, piece) : len - at;

        if (bkv_tree_decode(d, bytes + at, n) < 0)
            break;
        at += n;
    }
    return bkv_tree_decoded(d, out);
}

static int fences_come_back(struct rt_task *t, void *arg)
{
    CLEANUP(free_p) struct model *m = calloc(1, sizeof(*m));
    CLEANUP(free_p) uint8_t *bytes = NULL;
    CLEANUP(free_p) uint8_t *damaged = NULL;
    struct bkv_memtab *tab = bkv_memtab_new(8 * MIB);
    struct bkv_tree *tree, *back = NULL;
    size_t len = 0, total, n;
    unsigned refused = 0;
    struct array a;
    uint64_t pos = 0;

    CHECK(array_init(&a, false) == 0);
    make_keys(m);
    tree = bkv_tree_new(&a.io);
    for (unsigned round = 0; round < 5; round++) {
        struct merge_test mt = merge_test(&a);

        (void)random_batch(m, tab);
        CHECK(bkv_tree_merge(t, tree, tab, &mt.cb, &back) == 0);
        bkv_tree_put(tree);
        tree = back;
        bkv_memtab_reset(tab);
        total = bkv_tree_encoded_bytes(tree);
        bytes = realloc(bytes, total + 8192);
        len = 0;
        pos = 0;
        while ((n = bkv_tree_encode(tree, &pos, bytes + len, 4096)) > 0)
            len += n;
        CHECK(len == total);
        for (unsigned pieces = 0; pieces < 2; pieces++) {
            CHECK(feed(&a.io, bytes, len, pieces == 1, &back) == 0);
            CHECK(bkv_tree_nleaves(back) == bkv_tree_nleaves(tree));
            CHECK(back->number == tree->number);
            CHECK(check_tree(t, back, m) == 0);
            bkv_tree_put(back);
        }
    }
    CHECK(feed(&a.io, bytes, len - 1, false, &back) == -EBADMSG);
    bytes[len] = 0;
    CHECK(feed(&a.io, bytes, len + 1, false, &back) == -EBADMSG);
    CHECK(feed(&a.io, bytes, 0, false, &back) == -EBADMSG);
    bkv_tree_put(NULL);
    CHECK(bkv_tree_decoded(NULL, &back) == -EBADMSG);
    /* Damaged: refused, or a tree with separators in order. */
    damaged = malloc(len);
    for (unsigned i = 0; i < 20000; i++) {
        memcpy(damaged, bytes, len);
        damaged[rng_below(&rng, (uint32_t)len)] = (uint8_t)rng_u64(&rng);
        if (feed(&a.io, damaged, len, i % 10 == 0, &back) < 0) {
            refused++;
            continue;
        }
        for (uint64_t k = 0; k < bkv_tree_nleaves(back); k++)
            CHECK(bkv_tree_leaf(back, k) > 0);
        bkv_tree_put(back);
    }
    CHECK(refused > 2000);
    bkv_tree_put(tree);
    bkv_memtab_free(tab);
    array_fini(&a);
    return 0;
}
TEST(fences_come_back)

/* --- cursors ---------------------------------------------------------------------------------- */

/* Three sources; keys come and go while it walks. What is there from beginning to end is seen once,
 * with the place it has at that time. */
static int cursor_while_changing(struct rt_task *t, void *arg)
{
    CLEANUP(free_p) struct model *m = calloc(1, sizeof(*m));
    struct bkv_memtab *tab[2] = {bkv_memtab_new(8 * MIB), bkv_memtab_new(8 * MIB)};
    struct merge_test mt;
    struct bkv_tree *tree, *next;
    struct array a;
    unsigned ran;

    CHECK(array_init(&a, true) == 0);
    make_keys(m);
    tree = bkv_tree_new(&a.io);
    put_all(m, tab[0]);
    mt = merge_test(&a);
    CHECK(bkv_tree_merge(t, tree, tab[0], &mt.cb, &next) == 0);
    bkv_memtab_reset(tab[0]);
    (void)random_batch(m, tab[1]);
    (void)random_batch(m, tab[0]);
    ran = 0;
    for (unsigned round = 0; round < 60; round++) {
        struct bkv_cursor *c = bkv_cursor_new(tab[0], tab[1], next, 1 + rng_below(&rng, 32));
        unsigned at = rng_below(&rng, KEYS);
        bool after = rng_below(&rng, 2) == 1;
        struct bkv_place place;
        struct bytes key;
        int rc;

        if (round % 3 == 0) {
            at = 0;
            after = false;
        } else {
            bkv_cursor_seek(c, key_of(m, at), after);
        }
        at += after;
        while ((rc = bkv_cursor_next(t, c, &key, &place)) == 1) {
            while (at < KEYS && m->place[at].seq == 0)
                at++;
            CHECK(at < KEYS);
            CHECK(bytes_eq(key, key_of(m, at)));
            CHECK(same_place(&place, &m->place[at]));
            at++;
            if (rng_below(&rng, 4) == 0) { /* as many as lie together, for their keys only */
                uint8_t buf[256];
                size_t used = 0, from = 0;
                int n = bkv_cursor_run(c, (struct bytes){0}, buf, sizeof(buf), &used);

                CHECK(n >= 0);
                ran += (unsigned)n;
                for (; n > 0; n--, at++) {
                    while (at < KEYS && m->place[at].seq == 0)
                        at++;
                    CHECK(at < KEYS);
                    CHECK(bytes_eq(bytes_make(buf + from + 2, le16_at(buf + from)), key_of(m, at)));
                    from += 2 + le16_at(buf + from);
                }
                CHECK(from == used);
            }
            if (rng_below(&rng, 30) == 0) {
                unsigned i = rng_below(&rng, 3) == 0 ? (at + rng_below(&rng, 3)) % KEYS
                                                     : rng_below(&rng, KEYS);
                struct bkv_place now = new_place(m);

                now.type = rng_below(&rng, 2) == 0 ? BKV_DELETE : BKV_VALUE;
                put(tab[0], key_of(m, i), &now);
                m->place[i] = now.type == BKV_DELETE ? (struct bkv_place){0} : now;
            }
        }
        CHECK(rc == 0);
        while (at < KEYS && m->place[at].seq == 0)
            at++;
        CHECK(at == KEYS);
        CHECK(bkv_cursor_next(t, c, &key, &place) == 0);
        bkv_cursor_free(c);
    }
    CHECK(ran > 100);
    /* In two halves: nothing is read by the first, much at once by the second. */
    {
        struct bkv_cursor *c = bkv_cursor_new(NULL, NULL, next, 32);
        struct bkv_place place;
        struct bytes key;
        uint64_t reads;
        int rc;

        bkv_cache_drop(a.io.cache, 0, PAGES_MAX * 4096ull);
        reads = a.reads;
        CHECK(bkv_cursor_step(c, &key, &place) == -EAGAIN);
        CHECK(a.reads == reads);
        while ((rc = bkv_cursor_next(t, c, &key, &place)) == 1)
            ;
        CHECK(rc == 0);
        CHECK((a.reads - reads) * 10 < bkv_tree_nleaves(next) + 60);
        /* A damaged leaf ends it. */
        bkv_cache_drop(a.io.cache, 0, PAGES_MAX * 4096ull);
        a.pages[bkv_tree_leaf(next, 2) - 4096 + 100] ^= 1;
        bkv_cursor_seek(c, (struct bytes){0}, false);
        while ((rc = bkv_cursor_next(t, c, &key, &place)) == 1)
            ;
        CHECK(rc == -EBADMSG);
        bkv_cursor_free(c);
    }
    bkv_tree_put(tree);
    bkv_tree_put(next);
    bkv_memtab_free(tab[0]);
    bkv_memtab_free(tab[1]);
    array_fini(&a);
    return 0;
}
TEST(cursor_while_changing)

/* --- keys as long as they may be -------------------------------------------------------------- */

static int longest_keys(struct rt_task *t, void *arg)
{
    enum { N = 300 };
    CLEANUP(free_p) uint8_t(*key)[BKV_KEY_MAX] = malloc(N * sizeof(*key));
    struct bkv_memtab *tab = bkv_memtab_new(8 * MIB);
    struct merge_test mt;
    struct bkv_tree *tree, *next;
    struct bkv_place place;
    struct array a;

    CHECK(array_init(&a, false) == 0);
    tree = bkv_tree_new(&a.io);
    for (unsigned i = 0; i < N; i++) {
        for (unsigned k = 0; k < BKV_KEY_MAX; k++)
            key[i][k] = i % 3 == 0 ? 'x' : (uint8_t)rng_u64(&rng);
        le32_put(key[i] + BKV_KEY_MAX - 4, i);
    }
    for (unsigned round = 0; round < 6; round++) {
        for (unsigned i = round; i < N; i += 1 + round) {
            place = (struct bkv_place){.addr = 16 * (i + 1),
                                       .seq = round + 1,
                                       .rec_len = 2080,
                                       .type = round == 4 ? BKV_DELETE : BKV_VALUE};
            put(tab, bytes_make(key[i], BKV_KEY_MAX), &place);
        }
        mt = merge_test(&a);
        CHECK(bkv_tree_merge(t, tree, tab, &mt.cb, &next) == 0);
        bkv_tree_put(tree);
        tree = next;
        bkv_memtab_reset(tab);
        CHECK(a.used == bkv_tree_nleaves(tree));
        for (unsigned i = 0; i < N; i++) {
            int rc = bkv_tree_find(t, tree, bytes_make(key[i], BKV_KEY_MAX), &place, NULL);

            CHECK(rc == 0 || (rc == -ENOENT && round >= 4));
            CHECK(rc < 0 || place.addr == 16 * (i + 1));
        }
    }
    bkv_tree_put(tree);
    bkv_memtab_free(tab);
    array_fini(&a);
    return 0;
}
TEST(longest_keys)

/* --- speed ------------------------------------------------------------------------------------ */

static int speed(struct rt_task *t, void *arg)
{
    enum { N = 200000 };
    struct bkv_memtab *tab = bkv_memtab_new(64 * MIB);
    struct merge_test mt;
    struct bkv_tree *tree, *next;
    struct bkv_place place;
    struct bytes key;
    struct array a;
    uint64_t since;

    CHECK(array_init(&a, false) == 0);
    tree = bkv_tree_new(&a.io);
    for (unsigned round = 0; round < 2; round++) {
        struct rng r = {round == 0 ? 1000 : 77};

        for (unsigned i = 0; i < N; i++) {
            uint64_t k[2] = {rng_u64(&r), rng_u64(&r)};

            place = (struct bkv_place){.addr = 4160 * (i + 1ull),
                                       .seq = i + round * N + 1ull,
                                       .value_len = 4096,
                                       .rec_len = 4144,
                                       .type = 1};
            put(tab, bytes_make(k, 16), &place);
        }
        mt = merge_test(&a);
        since = stopwatch();
        CHECK(bkv_tree_merge(t, tree, tab, &mt.cb, &next) == 0);
        stopwatch_say(round == 0 ? "merge, new" : "merge, as many as there are", since,
                      (round + 1ull) * N);
        bkv_tree_put(tree);
        tree = next;
        bkv_memtab_reset(tab);
    }
    CHECK(bkv_tree_nkeys(tree) == 2 * N);
    CHECK(bkv_tree_bytes(tree) <= bkv_tree_nleaves(tree) * 30);
    for (unsigned round = 0; round < 2; round++) {
        struct bkv_cursor *c = bkv_cursor_new(tab, NULL, tree, 32);
        uint64_t n = 0;
        int rc;

        since = stopwatch();
        while ((rc = bkv_cursor_next(t, c, &key, &place)) == 1)
            n++;
        stopwatch_say("cursor", since, n);
        CHECK(rc == 0 && n == 2 * N);
        bkv_cursor_free(c);
    }
    bkv_tree_put(tree);
    bkv_memtab_free(tab);
    array_fini(&a);
    return 0;
}
TEST(speed)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(merges_against_model_test),
        cmocka_unit_test(leaves_are_full_test),
        cmocka_unit_test(survives_failures_test),
        cmocka_unit_test(fences_come_back_test),
        cmocka_unit_test(cursor_while_changing_test),
        cmocka_unit_test(longest_keys_test),
        cmocka_unit_test(speed_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
