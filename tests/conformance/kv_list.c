/* SPDX-License-Identifier: Apache-2.0 */
/* Lists: a lot of keys, pages of all sizes, prefixes, and keys that come and go meanwhile. */
#include "kv_suite.h"

#include <string.h>

#define WINDOW 64 /* stores in flight when a lot of keys are made */

/* A key of 16 bytes from a number; numbers ascend, keys do too when `ordered`. */
static void many_key(uint8_t key[16], uint64_t i, bool ordered)
{
    uint64_t a = ordered ? i : hash_u64(i + 1), b = hash_u64(~i);

    for (unsigned j = 0; j < 8; j++) {
        key[j] = (uint8_t)(a >> (56 - 8 * j));
        key[8 + j] = (uint8_t)(b >> (8 * j));
    }
}

struct maker {
    struct rt_req done;
    struct kvs *s;
    struct kv_chan *chan;
    unsigned *next; /* number of the next key */
    bool ordered;
};

static int maker(struct rt_task *t, void *arg)
{
    struct maker *m = arg;

    while (*m->next < m->s->many) {
        uint64_t i = (*m->next)++;
        uint8_t key[16];
        int rc;

        many_key(key, i, m->ordered);
        do
            rc = kvs_put(t, m->s, m->chan, bytes_make(key, 16), i + 1, i % 60, 0);
        while (rc == -EIO && m->s->faulty);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int make_many(struct rt_task *t, struct kvs *s, bool ordered)
{
    CLEANUP(free_p) struct maker *m = calloc(WINDOW, sizeof(*m));
    unsigned next = 0;
    int rc = 0;

    for (unsigned i = 0; i < WINDOW; i++) {
        m[i] = (struct maker){.s = s, .chan = s->chan, .next = &next, .ordered = ordered};
        rt_req_init_task(&m[i].done, t);
        CHECK_RC(rt_task_start("maker", maker, &m[i], &m[i].done, NULL), 0);
    }
    for (unsigned i = 0; i < WINDOW; i++)
        rc |= rt_wait(t, &m[i].done); /* only whether one failed */
    CHECK_RC(rc, 0);
    return 0;
}

/* A walk through a list, page by page, that checks what can be checked without knowing the keys. */
struct walk {
    struct kvs *s;
    struct kv_chan *chan;
    struct bytes prefix;
    size_t page_max;
    uint8_t *page;
    uint8_t *last;
    size_t last_len;
    size_t moved;
    bool more;
    uint64_t keys;
    struct kv_list_iter it;
};

static void walk_init(struct walk *w, struct kvs *s, struct kv_chan *chan, struct bytes prefix,
                      size_t page_max)
{
    *w = (struct walk){.s = s, .chan = chan, .prefix = prefix, .page_max = page_max, .more = true};
    w->page = malloc(page_max);
    w->last = malloc(KV_KEY_MAX);
    must(w->page != NULL);
    must(w->last != NULL);
}

static void walk_fini(struct walk *w)
{
    free(w->page);
    free(w->last);
}

/* The next key: 1, 0 at the end, or what went wrong. */
static int walk_next(struct rt_task *t, struct walk *w, struct bytes *out_key)
{
    while (!kv_list_next(&w->it, out_key)) {
        int rc;

        if (!w->more)
            return 0;
        __atomic_fetch_add(&w->s->count, 1, __ATOMIC_RELAXED);
        rc = kv_list(t, w->chan, bytes_make(w->last, w->last_len), w->prefix,
                     w->last_len > 0 ? KV_F_AFTER : 0, w->page, w->page_max, &w->moved, &w->more);
        if (rc == -EIO && w->s->faulty) {
            w->more = true;
            continue;
        }
        CHECK_RC(rc, 0);
        CHECK(w->moved > 0 || !w->more);
        w->it = kv_list_begin(w->page, w->moved);
    }
    CHECK(bytes_has_prefix(*out_key, w->prefix));
    if (kvs_has(w->s, KV_CAP_ORDERED_LIST) && w->last_len > 0)
        CHECK(bytes_cmp(*out_key, bytes_make(w->last, w->last_len)) > 0);
    memcpy(w->last, out_key->ptr, out_key->len);
    w->last_len = out_key->len;
    w->keys++;
    return 1;
}

static int count(struct rt_task *t, struct kvs *s, struct bytes prefix, size_t page_max,
                 uint64_t *out_keys)
{
    struct walk w;
    struct bytes key;
    int rc;

    walk_init(&w, s, s->chan, prefix, page_max);
    while ((rc = walk_next(t, &w, &key)) > 0)
        continue;
    *out_keys = w.keys;
    walk_fini(&w);
    return rc;
}

static int empty(struct rt_task *t, struct kvs *s)
{
    uint64_t n;

    CHECK_RC(count(t, s, kvs_str(""), 4096, &n), 0);
    CHECK(n == 0);
    CHECK_RC(count(t, s, kvs_str("p"), 4096, &n), 0);
    CHECK(n == 0);
    return 0;
}

static int many(struct rt_task *t, struct kvs *s)
{
    uint64_t begin = rt_now_exact(), n;
    struct kvs_rng r = kvs_rng(s, "many");
    struct walk w;
    struct bytes key;
    uint64_t i = 0;
    int rc;

    CHECK_RC(make_many(t, s, true), 0);
    printf("   stored %u keys in %.2f s\n", s->many, (double)(rt_now_exact() - begin) / 1e9);
    begin = rt_now_exact();
    walk_init(&w, s, s->chan, kvs_str(""), 4096);
    for (; (rc = walk_next(t, &w, &key)) > 0; i++) {
        uint8_t want[16];

        many_key(want, i, true);
        CHECK(key.len == 16);
        CHECK(!kvs_has(s, KV_CAP_ORDERED_LIST) || memcmp(key.ptr, want, 16) == 0);
    }
    walk_fini(&w);
    CHECK_RC(rc, 0);
    CHECK(i == s->many);
    printf("   listed them in %.2f s\n", (double)(rt_now_exact() - begin) / 1e9);
    for (unsigned k = 0; k < 200; k++) {
        uint8_t one[16];

        i = kvs_below(&r, s->many);
        many_key(one, i, true);
        do
            rc = kvs_get_is(t, s, s->chan, bytes_make(one, 16), i + 1, i % 60);
        while (rc == -EIO && s->faulty);
        CHECK_RC(rc, 1);
    }
    CHECK_RC(count(t, s, bytes_make("\0\0\0\0\0\0\0", 7), 65536, &n), 0);
    CHECK(n == MIN(s->many, 256u));
    return 0;
}

/* Prefixes and pages of every size, with keys in no order. */
static int pages(struct rt_task *t, struct kvs *s)
{
    struct kvs few = *s;
    uint64_t n, sum = 0;

    few.many = MIN(s->many, 500u);
    CHECK_RC(make_many(t, &few, false), 0);
    for (size_t max = 18; max < 2000; max = max * 3 / 2 + 1) {
        CHECK_RC(count(t, &few, kvs_str(""), max, &n), 0);
        CHECK(n == few.many);
    }
    for (unsigned b = 0; b < 256; b++) {
        uint8_t one = (uint8_t)b;

        CHECK_RC(count(t, &few, bytes_make(&one, 1), 4096, &n), 0);
        sum += n;
    }
    CHECK(sum == few.many);
    /* No room for a single key. */
    {
        uint8_t tiny[17];
        size_t moved;
        bool more;
        int rc;

        do
            rc =
                kv_list(t, s->chan, kvs_str(""), kvs_str(""), 0, tiny, sizeof(tiny), &moved, &more);
        while (rc == -EIO && s->faulty);
        CHECK_RC(rc, 0);
        CHECK(moved == 0);
        CHECK(more);
    }
    return 0;
}

/* --- keys that come and go while others list -------------------------------------------------- */

#define STABLE 300

struct churn {
    unsigned rounds;
    unsigned churners; /* atomic: still at work */
};

/* Stable keys begin with 's', others with 'a', 's' (longer) or 'z'. */
static size_t churn_key(uint8_t key[32], struct kvs_rng *r, unsigned idx)
{
    unsigned i = (unsigned)kvs_below(r, STABLE);

    return (size_t)snprintf((char *)key, 32, "%c%05u%s%u", "asz"[kvs_below(r, 3)], i, "+", idx) %
           32;
}

static int churner(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan)
{
    struct churn *c = r->shared;

    for (unsigned i = 0; i < c->rounds; i++) {
        uint8_t key[32];
        size_t len = churn_key(key, &r->rng, r->idx);
        int rc;

        len = MIN(len, MIN(r->s->key_max, 15u));
        rc = kvs_put(t, r->s, chan, bytes_make(key, len), i + 1, 10, 0);
        CHECK(rc == 0 || (rc == -EIO && r->s->faulty));
        if (kvs_below(&r->rng, 3) > 0)
            CHECK(kv_delete(t, chan, bytes_make(key, len)) <= 0);
        /* Replacing a stable key does not make it less stable. */
        snprintf((char *)key, sizeof(key), "s%05u", (unsigned)kvs_below(&r->rng, STABLE));
        rc = kvs_put(t, r->s, chan, bytes_make(key, 6), i + 1, 10, 0);
        CHECK(rc == 0 || (rc == -EIO && r->s->faulty));
    }
    __atomic_fetch_sub(&c->churners, 1, __ATOMIC_RELAXED);
    return 0;
}

static int lister(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan)
{
    struct churn *c = r->shared;
    CLEANUP(free_p) uint8_t *seen = malloc(STABLE);
    unsigned walks = 0;

    while (__atomic_load_n(&c->churners, __ATOMIC_RELAXED) > 0 || walks == 0) {
        struct walk w;
        struct bytes key;
        int rc;

        memset(seen, 0, STABLE);
        walk_init(&w, r->s, chan, kvs_str(walks % 2 == 0 ? "" : "s"),
                  100 + kvs_below(&r->rng, 900));
        while ((rc = walk_next(t, &w, &key)) > 0) {
            char text[16] = "";

            if (key.len != 6 || key.ptr[0] != 's')
                continue;
            memcpy(text, key.ptr + 1, 5);
            CHECK(atoi(text) < STABLE);
            seen[atoi(text)]++;
        }
        walk_fini(&w);
        CHECK_RC(rc, 0);
        for (unsigned i = 0; i < STABLE; i++) {
            if (seen[i] != 1)
                fprintf(stderr, "stable key %u was listed %u times\n", i, seen[i]);
            CHECK(seen[i] == 1);
        }
        walks++;
        rt_sleep(t, 100 * NS_PER_US); /* lets the other reactor's requests in */
    }
    return 0;
}

/* Half of the tasks of each reactor. */
static bool is_churner(const struct kvs_racer *r)
{
    return r->idx / rt_reactors() % 2 == 1;
}

static int churn_or_list(struct rt_task *t, struct kvs_racer *r, struct kv_chan *chan)
{
    return is_churner(r) ? churner(t, r, chan) : lister(t, r, chan);
}

static int changing(struct rt_task *t, struct kvs *s)
{
    struct churn c = {.rounds = s->ops / 3 + 1, .churners = rt_reactors() * 2};

    for (unsigned i = 0; i < STABLE; i++) {
        char key[32];
        int rc;

        snprintf(key, sizeof(key), "s%05u", i);
        do
            rc = kvs_put(t, s, s->chan, bytes_of_str(key), 1, 10, 0);
        while (rc == -EIO && s->faulty);
        CHECK_RC(rc, 0);
    }
    CHECK_RC(kvs_race(t, s, 4, &c, churn_or_list), 0);
    return 0;
}

const struct kvs_test kvs_list_tests[] = {
    {"empty", empty}, {"many", many}, {"pages", pages}, {"changing", changing}, {NULL, NULL},
};
