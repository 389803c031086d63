/* SPDX-License-Identifier: Apache-2.0 */
/* Keys, values, and which operation comes next. */
#include "engine.h"

#include <math.h>
#include <time.h>

#define ZIPF_SKEW 0.99

struct zipf {
    uint64_t n;
    double zeta_n, alpha, eta, half;
};

uint64_t bench_now_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * NS_PER_S + (uint64_t)ts.tv_nsec;
}

uint64_t bench_mix(uint64_t v)
{
    v += 0x9e3779b97f4a7c15ull;
    v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9ull;
    v = (v ^ (v >> 27)) * 0x94d049bb133111ebull;
    return v ^ (v >> 31);
}

static void put_be64(uint8_t *p, uint64_t v)
{
    v = __builtin_bswap64(v);
    memcpy(p, &v, sizeof(v));
}

/* Groups of BENCH_GROUP_KEYS keys with one prefix, so that a prefix can be listed; both halves are
 * hashes, so that the order of items is no order of keys. */
void bench_key(uint64_t item, uint8_t out[BENCH_KEY_BYTES])
{
    put_be64(out, bench_mix(item / BENCH_GROUP_KEYS));
    put_be64(out + BENCH_PREFIX_BYTES, bench_mix(~item));
}

const uint8_t *bench_value(const struct bench *b, uint64_t item)
{
    size_t off = bench_mix(item * 3 + 1) % (b->pool_bytes - b->val_bytes);

    return b->pool + (b->val_bytes > BENCH_ALIGN_ABOVE ? off / 4096 * 4096 : off);
}

/* Gray et al., "Quickly generating billion-record synthetic databases". */
struct zipf *zipf_new(uint64_t n)
{
    struct zipf *z = calloc(1, sizeof(*z));
    double zeta_2 = 1.0 + pow(0.5, ZIPF_SKEW);

    if (z == NULL)
        return NULL;
    z->n = n;
    for (uint64_t i = 1; i <= n; i++)
        z->zeta_n += 1.0 / pow((double)i, ZIPF_SKEW);
    z->alpha = 1.0 / (1.0 - ZIPF_SKEW);
    z->eta = (1.0 - pow(2.0 / (double)n, 1.0 - ZIPF_SKEW)) / (1.0 - zeta_2 / z->zeta_n);
    z->half = 1.0 + pow(0.5, ZIPF_SKEW);
    return z;
}

uint64_t zipf_draw(const struct zipf *z, uint64_t random)
{
    double u = (double)(random >> 11) / 9007199254740992.0, uz = u * z->zeta_n;
    uint64_t rank;

    if (uz < 1.0)
        return 0;
    if (uz < z->half)
        return 1;
    rank = (uint64_t)((double)z->n * pow(z->eta * u - z->eta + 1.0, z->alpha));
    return MIN(rank, z->n - 1);
}

static uint64_t greatest_common(uint64_t a, uint64_t b)
{
    while (b != 0) {
        uint64_t r = a % b;

        a = b;
        b = r;
    }
    return a;
}

/* The n-th item of a walk that meets each of `range` items once, in no order of theirs. */
static uint64_t each_once(uint64_t n, uint64_t range)
{
    uint64_t step = range * 5 / 8 | 1;

    while (greatest_common(step, range) != 1)
        step += 2;
    return (uint64_t)((unsigned __int128)(n % range) * step % range);
}

static uint64_t draw_item(struct worker *w, uint64_t n)
{
    struct load *l = w->load;

    w->random = bench_mix(w->random);
    switch (l->order) {
    case ORDER_EACH_ONCE:
        return each_once(n, l->range);
    case ORDER_ZIPF: /* the often used ones are spread over the keys */
        return bench_mix(zipf_draw(l->zipf, w->random)) % l->range;
    case ORDER_UNIFORM:
    default:
        return w->random % l->range;
    }
}

bool load_next(struct worker *w)
{
    struct load *l = w->load;
    uint64_t n;

    if (atomic_load_explicit(&l->error, memory_order_relaxed) != 0)
        return false;
    n = atomic_fetch_add_explicit(&l->next, 1, memory_order_relaxed);
    w->began_ns = bench_now_ns();
    if (l->ops_max > 0 ? n >= l->ops_max : w->began_ns >= l->end_ns)
        return false;
    w->item = l->first + draw_item(w, n);
    w->kind = l->kind;
    if (l->read_percent < 100 && (w->random >> 32) % 100 < l->read_percent)
        w->kind = OP_GET;
    bench_key(w->item, w->key);
    w->val = bench_value(l->b, w->item);
    w->got_len = 0;
    return true;
}

/* The ends of what was read: enough to see a wrong value, cheap enough not to be measured. */
static bool read_right(const struct worker *w)
{
    size_t len = w->load->b->val_bytes, n = MIN(len, 32u);

    if (w->kind == OP_LIST) {
        uint64_t group = w->item / BENCH_GROUP_KEYS * BENCH_GROUP_KEYS;

        return w->got_len == MIN(BENCH_GROUP_KEYS, w->load->b->items - group);
    }
    return w->got_len == len && memcmp(w->buf, w->val, n) == 0 &&
           memcmp(w->buf + len - n, w->val + len - n, n) == 0;
}

void load_done(struct worker *w, int rc)
{
    bool reads = w->kind == OP_GET || w->kind == OP_LIST;
    int none = 0;

    hist_add(reads ? &w->read_ns : &w->write_ns, bench_now_ns() - w->began_ns);
    if (rc < 0)
        atomic_compare_exchange_strong(&w->load->error, &none, rc);
    else if (reads && !read_right(w))
        atomic_fetch_add(&w->load->wrong, 1);
}
