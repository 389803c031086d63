/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random histories against a model: a sorted array of keys, each with what its value has to be. One
 * request at a time, but streams and snapshots stay open over many of them. In faulty runs a change
 * that answers -EIO has happened or not: the device is asked, and the model follows.
 */
#include "kv_suite.h"

#include <string.h>

#define KEYS 48
#define SEGS 6 /* pieces of a value: what was stored, and what was appended */
#define HELD 3
#define SNAPS 3

struct seg {
    uint64_t tag, len;
};

/* What a key's value has to be. */
struct want {
    bool there;
    unsigned nsegs;
    struct seg seg[SEGS];
    uint64_t version; /* 0: not known */
};

struct reader {
    struct kv_stream *stream; /* NULL: free */
    struct want want;
    uint64_t at; /* of drivers without ranges */
};

struct writer {
    struct kv_stream *stream;
    unsigned key;
    uint32_t flags;
    uint64_t version;
    struct seg seg;
    uint64_t done;
    bool unknown;
};

struct snap {
    struct kv_snap *snap;
    struct want want[KEYS];
};

struct history {
    struct kvs *s;
    struct kv_chan *chan;
    struct kvs_rng rng;
    struct bytes key[KEYS]; /* ascending */
    struct want want[KEYS];
    struct reader reader[HELD];
    struct writer writer[HELD];
    struct snap *snap[SNAPS];
    struct kvs_mem mem;
    struct kv_req req;
    uint64_t tags;
    uint8_t *page;
};

static uint64_t below(struct history *h, uint64_t n)
{
    return kvs_below(&h->rng, n);
}

static uint64_t len_of(const struct want *w)
{
    uint64_t len = 0;

    for (unsigned i = 0; w->there && i < w->nsegs; i++)
        len += w->seg[i].len;
    return len;
}

/* Whether `buf` is what the value has in [off, off + len). */
static bool part_is(const struct want *w, const uint8_t *buf, uint64_t off, uint64_t len)
{
    for (unsigned i = 0; i < w->nsegs && len > 0; i++) {
        uint64_t n;

        if (off >= w->seg[i].len) {
            off -= w->seg[i].len;
            continue;
        }
        n = MIN(len, w->seg[i].len - off);
        if (!kvs_is(buf, w->seg[i].tag, off, n))
            return false;
        buf += n;
        len -= n;
        off = 0;
    }
    return len == 0;
}

static int by_bytes(const void *a, const void *b)
{
    return bytes_cmp(*(const struct bytes *)a, *(const struct bytes *)b);
}

/* Keys that are prefixes of others, of bytes of all kinds, of every length that means something. */
static void make_keys(struct history *h)
{
    static const uint32_t lens[] = {1,   2,   3,   4,   8,   15,  16,   17,  100,
                                    126, 127, 128, 254, 255, 381, 2047, 2048};

    for (unsigned i = 0; i < KEYS;) {
        uint32_t some = lens[below(h, ARRAY_LEN(lens))];
        uint32_t len = MIN(some, h->s->key_max);
        uint8_t *k = malloc(len);
        bool twice = false;

        must(k != NULL);
        for (uint32_t j = 0; j < len; j++)
            k[j] = (uint8_t)(below(h, 20) > 0 ? j * 5 : below(h, 2) * 255);
        if (below(h, 2) == 0)
            k[len - 1] = (uint8_t)below(h, 256);
        for (unsigned j = 0; j < i; j++)
            twice |= bytes_eq(h->key[j], bytes_make(k, len));
        if (twice)
            free(k);
        else
            h->key[i++] = bytes_make(k, len);
    }
    qsort(h->key, KEYS, sizeof(h->key[0]), by_bytes);
}

static int step(struct rt_task *t, struct history *h)
{
    return kvs_do(t, h->chan, &h->req);
}

static void prepare(struct rt_task *t, struct history *h, enum kv_op op, unsigned key)
{
    kvs_prepare(h->s, t, &h->req, op, h->key[key], NULL);
}

/* --- after a change that may have happened ---------------------------------------------------- */

static int read_whole(struct rt_task *t, struct history *h, unsigned k, uint64_t len)
{
    int rc;

    do {
        prepare(t, h, KV_RETRIEVE, k);
        h->req.iov = h->mem.iov;
        h->req.iovcnt = 1;
        h->mem.iov[0] = (struct iovec){.iov_base = h->mem.flat, .iov_len = h->mem.max};
        h->req.len = MIN(len, h->mem.max);
        rc = step(t, h);
    } while (rc == -EIO && h->s->faulty);
    return rc;
}

static int holds(struct rt_task *t, struct history *h, unsigned k, const struct want *w)
{
    int rc = read_whole(t, h, k, len_of(w));

    if (rc == -ENOENT)
        return !w->there;
    if (rc < 0)
        return rc;
    return w->there && h->req.value_len == len_of(w) && part_is(w, h->mem.flat, 0, h->req.moved);
}

/* The key is old or new, never mixed. */
static int settle(struct rt_task *t, struct history *h, unsigned k, const struct want *new)
{
    int rc = holds(t, h, k, new);

    if (rc == 1) {
        h->want[k] = *new;
        h->want[k].version = 0;
        return 0;
    }
    CHECK_RC(holds(t, h, k, &h->want[k]), 1);
    return 0;
}

/* --- stores and deletes ----------------------------------------------------------------------- */

/* What a store with these flags answers, and what the key has then. */
static int foresee(const struct want *old, uint32_t flags, uint64_t version, struct seg seg,
                   struct want *out)
{
    if ((flags & KV_F_MUST_EXIST) != 0 && !old->there)
        return -ENOENT;
    if ((flags & KV_F_MUST_NOT_EXIST) != 0 && old->there)
        return -EEXIST;
    if ((flags & KV_F_IF_VERSION) != 0 && (!old->there || old->version != version))
        return -ESTALE;
    *out = (struct want){.there = true};
    if ((flags & KV_F_APPEND) != 0 && old->there)
        *out = *old;
    out->seg[out->nsegs++] = seg;
    return 0;
}

static uint32_t some_flags(struct history *h, unsigned k, uint64_t *out_version)
{
    static const uint32_t choice[] = {
        0,
        0,
        0,
        KV_F_MUST_EXIST,
        KV_F_MUST_NOT_EXIST,
        KV_F_APPEND,
        KV_F_IF_VERSION,
        KV_F_APPEND | KV_F_MUST_EXIST,
        KV_F_APPEND | KV_F_IF_VERSION,
    };
    uint32_t flags = choice[below(h, ARRAY_LEN(choice))];

    if (!kvs_has(h->s, KV_CAP_APPEND) || h->want[k].nsegs >= SEGS - 1 ||
        len_of(&h->want[k]) > h->mem.max / 2)
        flags &= ~KV_F_APPEND;
    if (!kvs_has(h->s, KV_CAP_VERSION) || (h->want[k].there && h->want[k].version == 0))
        flags &= ~KV_F_IF_VERSION;
    *out_version = below(h, 3) == 0 ? 12345 : h->want[k].version;
    return flags;
}

/* Often the present length: what is replaced by the same size may be tempting to do in place. */
static uint64_t some_len(struct history *h, unsigned k)
{
    uint64_t len = kvs_len(h->s, &h->rng);

    if (h->want[k].there && below(h, 3) == 0)
        len = len_of(&h->want[k]);
    return MIN(len, h->mem.max / 2);
}

static int changed(struct rt_task *t, struct history *h, unsigned k, int rc, int wanted,
                   const struct want *new)
{
    if (rc == -EIO && h->s->faulty)
        return settle(t, h, k, wanted == 0 ? new : &h->want[k]);
    CHECK_RC(rc, wanted);
    if (rc < 0)
        return 0;
    h->want[k] = *new;
    h->want[k].version = kvs_has(h->s, KV_CAP_VERSION) ? h->req.version : 0;
    return 0;
}

static int do_store(struct rt_task *t, struct history *h)
{
    unsigned k = (unsigned)below(h, KEYS);
    struct seg seg = {.tag = ++h->tags, .len = some_len(h, k)};
    struct want new = {0};
    uint64_t version;
    uint32_t flags = some_flags(h, k, &version);
    int wanted = foresee(&h->want[k], flags, version, seg, &new);

    kvs_mem_cut(&h->mem, &h->rng, (size_t)seg.len);
    kvs_fill(h->mem.flat, seg.tag, 0, (size_t)seg.len);
    kvs_mem_load(&h->mem);
    kvs_prepare(h->s, t, &h->req, KV_STORE, h->key[k], &h->mem);
    h->req.flags = flags;
    h->req.version = version;
    return changed(t, h, k, step(t, h), wanted, &new);
}

static int do_delete(struct rt_task *t, struct history *h)
{
    unsigned k = (unsigned)below(h, KEYS);
    struct want gone = {0};
    int wanted = h->want[k].there ? 0 : -ENOENT;
    int rc;

    prepare(t, h, KV_DELETE, k);
    if (h->want[k].version != 0 && below(h, 3) == 0) {
        h->req.flags = KV_F_IF_VERSION;
        h->req.version = h->want[k].version + below(h, 2);
        if (h->want[k].there && h->req.version != h->want[k].version)
            wanted = -ESTALE;
    }
    rc = step(t, h);
    if (rc == -EIO && h->s->faulty)
        return settle(t, h, k, wanted == 0 ? &gone : &h->want[k]);
    CHECK_RC(rc, wanted);
    if (rc == 0)
        h->want[k] = gone;
    return 0;
}

/* --- reads ------------------------------------------------------------------------------------ */

/* Now, or through one of the snapshots. */
static const struct want *some_view(struct history *h, unsigned k)
{
    struct snap *sn = h->snap[below(h, SNAPS)];

    if (sn == NULL || below(h, 2) == 0)
        return &h->want[k];
    h->req.snap = sn->snap;
    return &sn->want[k];
}

static int do_retrieve(struct rt_task *t, struct history *h)
{
    unsigned k = (unsigned)below(h, KEYS);
    const struct want *w;
    uint64_t len, part;
    int rc;

    kvs_mem_cut(&h->mem, &h->rng, (size_t)below(h, h->mem.max / 4));
    kvs_prepare(h->s, t, &h->req, KV_RETRIEVE, h->key[k], &h->mem);
    w = some_view(h, k);
    len = len_of(w);
    if (below(h, 2) == 0)
        h->req.off = below(h, len + 3);
    rc = step(t, h);
    if (rc == -EIO && h->s->faulty)
        return 0;
    CHECK_RC(rc, w->there ? 0 : -ENOENT);
    if (rc < 0)
        return 0;
    part = h->req.off < len ? MIN(len - h->req.off, h->mem.len) : 0;
    CHECK(h->req.value_len == len);
    CHECK(h->req.moved == part);
    CHECK(w->version == 0 || h->req.version == w->version);
    kvs_mem_unload(&h->mem);
    CHECK(part_is(w, h->mem.flat, h->req.off, part));
    return 0;
}

static int do_stat(struct rt_task *t, struct history *h)
{
    unsigned k = (unsigned)below(h, KEYS);
    const struct want *w;
    int rc;

    prepare(t, h, KV_STAT, k);
    w = some_view(h, k);
    rc = step(t, h);
    if (rc == -EIO && h->s->faulty)
        return 0;
    CHECK_RC(rc, w->there ? 0 : -ENOENT);
    if (rc < 0)
        return 0;
    CHECK(h->req.value_len == len_of(w));
    CHECK(w->version == 0 || h->req.version == w->version);
    return 0;
}

/* A page of a list: exactly the keys that the model has from there on, as far as they fit. */
static int do_list(struct rt_task *t, struct history *h)
{
    unsigned k = (unsigned)below(h, KEYS), i = 0;
    struct bytes from = below(h, 3) == 0 ? bytes_make("", 0) : h->key[k],
                 prefix = bytes_make("", 0), key;
    bool after = below(h, 2) == 0;
    struct iovec iov = {.iov_base = h->page, .iov_len = 1 + below(h, 3000)};
    struct kv_list_iter it;
    const struct want *w;
    size_t used = 0;
    uint32_t n = 0;
    int rc;

    if (!kvs_has(h->s, KV_CAP_ORDERED_LIST))
        return 0;
    if (from.len > 1)
        from.len -= below(h, 2); /* between keys, too */
    if (below(h, 2) == 0) {
        prefix = h->key[below(h, KEYS)];
        prefix.len = 1 + below(h, MIN(prefix.len, 140));
    }
    kvs_prepare(h->s, t, &h->req, KV_LIST, from, NULL);
    h->req.prefix = prefix;
    h->req.flags = after ? KV_F_AFTER : 0;
    h->req.iov = &iov;
    h->req.iovcnt = 1;
    w = some_view(h, 0);
    rc = step(t, h);
    if (rc == -EIO && h->s->faulty)
        return 0;
    CHECK_RC(rc, 0);
    it = kv_list_begin(h->page, h->req.moved);
    for (; i < KEYS; i++) {
        int cmp = bytes_cmp(h->key[i], from);

        if (!w[i].there || cmp < 0 || (cmp == 0 && after) || !bytes_has_prefix(h->key[i], prefix))
            continue;
        if (used + 2 + h->key[i].len > iov.iov_len)
            break;
        used += 2 + h->key[i].len;
        n++;
        CHECK(kv_list_next(&it, &key));
        CHECK(bytes_eq(key, h->key[i]));
    }
    CHECK(!kv_list_next(&it, &key));
    CHECK(h->req.nkeys == n);
    CHECK(h->req.moved == used);
    CHECK(h->req.more == (i < KEYS));
    return 0;
}

/* --- streams that stay open ------------------------------------------------------------------- */

static int reader_close(struct rt_task *t, struct history *h, struct reader *r)
{
    kvs_prepare(h->s, t, &h->req, KV_READ_CLOSE, bytes_make("", 0), NULL);
    h->req.stream = take_ptr(&r->stream);
    CHECK_RC(step(t, h), 0);
    return 0;
}

static int do_reader(struct rt_task *t, struct history *h)
{
    struct reader *r = &h->reader[below(h, HELD)];
    unsigned k = (unsigned)below(h, KEYS);
    uint64_t len, part;
    int rc;

    if (r->stream == NULL) {
        const struct want *w;

        prepare(t, h, KV_RETRIEVE_OPEN, k);
        w = some_view(h, k);
        rc = step(t, h);
        if (rc == -EIO && h->s->faulty)
            return 0;
        CHECK_RC(rc, w->there ? 0 : -ENOENT);
        if (rc < 0)
            return 0;
        *r = (struct reader){.stream = h->req.stream, .want = *w};
        CHECK(h->req.value_len == len_of(w));
        return 0;
    }
    if (below(h, 4) == 0)
        return reader_close(t, h, r);
    len = len_of(&r->want);
    kvs_mem_cut(&h->mem, &h->rng, (size_t)below(h, h->mem.max / 4));
    kvs_prepare(h->s, t, &h->req, KV_READ, bytes_make("", 0), &h->mem);
    h->req.stream = r->stream;
    h->req.off =
        kvs_has(h->s, KV_CAP_RANGE) ? below(h, len + 2) : r->at + below(h, len - r->at + 2);
    rc = step(t, h);
    CHECK(h->req.stream == r->stream);
    if (rc < 0 && h->s->faulty)
        return reader_close(t, h, r);
    CHECK_RC(rc, 0);
    part = h->req.off < len ? MIN(len - h->req.off, h->mem.len) : 0;
    CHECK(h->req.moved == part);
    kvs_mem_unload(&h->mem);
    CHECK(part_is(&r->want, h->mem.flat, h->req.off, part));
    if (part > 0)
        r->at = h->req.off + part;
    return 0;
}

static int writer_open(struct rt_task *t, struct history *h, struct writer *w)
{
    struct want new;
    int wanted, rc;

    w->key = (unsigned)below(h, KEYS);
    w->flags = some_flags(h, w->key, &w->version);
    w->seg = (struct seg){.tag = ++h->tags, .len = some_len(h, w->key)};
    w->unknown = kvs_has(h->s, KV_CAP_UNKNOWN_LEN) && below(h, 3) == 0;
    w->done = 0;
    wanted = foresee(&h->want[w->key], w->flags, w->version, w->seg, &new);
    prepare(t, h, KV_STORE_OPEN, w->key);
    h->req.flags = w->flags;
    h->req.version = w->version;
    h->req.len = w->unknown ? KV_LEN_UNKNOWN : w->seg.len;
    rc = step(t, h);
    if (rc == -EIO && h->s->faulty)
        return 0;
    CHECK_RC(rc, wanted);
    if (rc == 0)
        w->stream = h->req.stream;
    return 0;
}

static int writer_end(struct rt_task *t, struct history *h, struct writer *w, bool commit)
{
    struct want new = {0};
    struct kv_stream *stream = take_ptr(&w->stream);
    int wanted;

    kvs_prepare(h->s, t, &h->req, commit ? KV_COMMIT : KV_ABORT, bytes_make("", 0), NULL);
    h->req.stream = stream;
    if (!commit) {
        CHECK_RC(step(t, h), 0);
        return 0;
    }
    wanted = foresee(&h->want[w->key], w->flags, w->version, w->seg, &new);
    return changed(t, h, w->key, step(t, h), wanted, &new);
}

/* An append that waits may find a value with all its pieces used up: then it is not committed. */
static bool may_commit(const struct history *h, const struct writer *w)
{
    return (w->flags & KV_F_APPEND) == 0 ||
           (h->want[w->key].nsegs < SEGS - 1 && len_of(&h->want[w->key]) <= h->mem.max / 2);
}

static int do_writer(struct rt_task *t, struct history *h)
{
    struct writer *w = &h->writer[below(h, HELD)];
    uint64_t piece;
    int rc;

    if (w->stream == NULL)
        return writer_open(t, h, w);
    if (below(h, 12) == 0 || (w->done == w->seg.len && !may_commit(h, w)))
        return writer_end(t, h, w, false);
    if (w->done == w->seg.len)
        return writer_end(t, h, w, true);
    piece = 1 + below(h, 200000);
    kvs_mem_cut(&h->mem, &h->rng, (size_t)MIN(w->seg.len - w->done, piece));
    kvs_fill(h->mem.flat, w->seg.tag, w->done, h->mem.len);
    kvs_mem_load(&h->mem);
    kvs_prepare(h->s, t, &h->req, KV_WRITE, bytes_make("", 0), &h->mem);
    h->req.stream = w->stream;
    rc = step(t, h);
    if (rc == -EIO && h->s->faulty)
        return writer_end(t, h, w, false);
    CHECK_RC(rc, 0);
    CHECK(h->req.stream == w->stream);
    w->done += h->mem.len;
    return 0;
}

/* --- batches and snapshots -------------------------------------------------------------------- */

static int do_batch(struct rt_task *t, struct history *h)
{
    struct kv_batch_item *items;
    struct want *new;
    unsigned n = 1 + (unsigned)below(h, 10);
    size_t used = 0;
    int rc;

    if (!kvs_has(h->s, KV_CAP_BATCH) || h->s->faulty)
        return 0;
    items = calloc(n, sizeof(*items));
    new = malloc(sizeof(h->want));
    memcpy(new, h->want, sizeof(h->want));
    for (unsigned i = 0; i < n; i++) {
        unsigned k = (unsigned)below(h, KEYS);
        struct seg seg = {.tag = ++h->tags, .len = below(h, 9000)};

        items[i] = (struct kv_batch_item){.key = h->key[k], .is_delete = below(h, 3) == 0};
        new[k] = (struct want){0};
        if (items[i].is_delete)
            continue;
        kvs_fill(h->mem.flat + used, seg.tag, 0, (size_t)seg.len);
        items[i].val = bytes_make(h->mem.flat + used, (size_t)seg.len);
        used += (size_t)seg.len;
        new[k] = (struct want){.there = true, .nsegs = 1, .seg[0] = seg};
    }
    kvs_prepare(h->s, t, &h->req, KV_BATCH, bytes_make("", 0), NULL);
    h->req.batch = items;
    h->req.nbatch = n;
    rc = step(t, h);
    memcpy(h->want, new, sizeof(h->want));
    free(items);
    free(new);
    CHECK_RC(rc, 0);
    return 0;
}

static int do_snap(struct rt_task *t, struct history *h)
{
    struct snap **sn = &h->snap[below(h, SNAPS)];

    if (!kvs_has(h->s, KV_CAP_SNAPSHOT))
        return 0;
    if (*sn != NULL) {
        kvs_prepare(h->s, t, &h->req, KV_SNAP_CLOSE, bytes_make("", 0), NULL);
        h->req.snap = (*sn)->snap;
        CHECK_RC(step(t, h), 0);
        free(*sn);
        *sn = NULL;
        return 0;
    }
    kvs_prepare(h->s, t, &h->req, KV_SNAP_OPEN, bytes_make("", 0), NULL);
    CHECK_RC(step(t, h), 0);
    *sn = malloc(sizeof(**sn));
    must(*sn != NULL);
    (*sn)->snap = h->req.snap;
    memcpy((*sn)->want, h->want, sizeof(h->want));
    return 0;
}

/* --- the history ------------------------------------------------------------------------------ */

static int one(struct rt_task *t, struct history *h)
{
    static int (*const fn[])(struct rt_task *, struct history *) = {
        do_store, do_store,  do_store,  do_delete, do_delete, do_retrieve, do_retrieve, do_stat,
        do_list,  do_reader, do_reader, do_writer, do_writer, do_writer,   do_batch,    do_snap,
    };

    return fn[below(h, ARRAY_LEN(fn))](t, h);
}

static int finish(struct rt_task *t, struct history *h)
{
    for (unsigned i = 0; i < HELD; i++) {
        if (h->reader[i].stream != NULL)
            CHECK_RC(reader_close(t, h, &h->reader[i]), 0);
        if (h->writer[i].stream != NULL)
            CHECK_RC(writer_end(t, h, &h->writer[i], false), 0);
    }
    for (unsigned i = 0; i < SNAPS; i++) {
        if (h->snap[i] == NULL)
            continue;
        kvs_prepare(h->s, t, &h->req, KV_SNAP_CLOSE, bytes_make("", 0), NULL);
        h->req.snap = h->snap[i]->snap;
        CHECK_RC(step(t, h), 0);
        free(h->snap[i]);
    }
    for (unsigned k = 0; k < KEYS; k++) {
        CHECK_RC(holds(t, h, k, &h->want[k]), 1);
        free((void *)(uintptr_t)h->key[k].ptr);
    }
    return 0;
}

static int history(struct rt_task *t, struct kvs *s)
{
    struct history *h = calloc(1, sizeof(*h));
    uint64_t used, keys, after;
    int rc = 0;

    must(h != NULL);
    h->s = s;
    h->chan = s->chan;
    h->rng = kvs_rng(s, "history");
    h->page = malloc(3001);
    kvs_mem_init(&h->mem, (size_t)MIN(s->len_max * 2 + 200000, 4 * MIB));
    CHECK_RC(kv_usage(t, s->dev, &used, &keys), 0);
    make_keys(h);
    for (unsigned i = 0; i < s->ops && rc == 0; i++)
        rc = one(t, h);
    if (rc == 0)
        rc = finish(t, h);
    CHECK_RC(rc, 0);
    kvs_mem_fini(&h->mem);
    free(h->page);
    free(h);
    /* Nothing has leaked. */
    CHECK_RC(kvs_empty(t, s, s->chan), 0);
    CHECK_RC(kv_usage(t, s->dev, &after, &keys), 0);
    CHECK(after <= used);
    return 0;
}

/* The same from the other reactor: every request of a home driver is carried. */
static int history_there(struct rt_task *t, void *arg)
{
    struct kvs there = *(struct kvs *)arg;
    int rc;

    CHECK_RC(kv_chan_get(t, there.dev, &there.chan), 0);
    rc = history(t, &there);
    kv_chan_put(t, there.chan);
    return rc;
}

static int history_elsewhere(struct rt_task *t, struct kvs *s)
{
    struct kvs other = *s;

    if (rt_reactors() < 2)
        return 0;
    other.seed = hash_u64(s->seed);
    return rt_on(t, rt_reactor(1), history_there, &other);
}

const struct kvs_test kvs_history_tests[] = {
    {"history", history},
    {"history-elsewhere", history_elsewhere},
    {NULL, NULL},
};
