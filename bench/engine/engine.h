/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the engine bench is made of. An engine is an adapter of a few functions; a load is N workers
 * that keep one operation under way each, drawn from one plan; a phase is a load, or a scan, with
 * what it cost. Engines that block get a thread per worker (threads.c), Kvasir a request per worker
 * on one reactor. README.md tells what is measured how.
 */
#ifndef BENCH_ENGINE_H
#define BENCH_ENGINE_H

#include "base/hist.h"
#include "base/util.h"

#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#define BENCH_KEY_BYTES 16u
#define BENCH_PREFIX_BYTES 8u
#define BENCH_GROUP_KEYS 1000u /* keys with one prefix */
#define BENCH_ALIGN_ABOVE (64u << 10) /* longer values lie at multiples of 4096, as for fio */

struct engine;

/* What an engine counted itself since it was opened. */
struct counters {
    bool known;
    uint64_t prepared_bytes; /* written so that later writes are cheap; in no file before */
    uint64_t log_bytes, large_bytes, moved_bytes, index_bytes;
    uint64_t checkpoints, segments_collected, flushes;
    uint64_t key_bytes; /* memory that finding keys takes */
    uint64_t keys;
    uint64_t cached; /* gets without a read */
};

struct bench {
    const struct engine *engine;
    void *state;          /* the engine's */
    const char *dir;      /* where its files go; exists */
    const char *uri;      /* kvasir */
    const char *poll;     /* kvasir: never, adaptive, always */
    unsigned reactors;    /* kvasir: its threads */
    uint64_t items;       /* keys that the data set has */
    size_t val_bytes;
    uint64_t cache_bytes; /* the memory an engine may use for what it has read */
    bool sync;            /* a put returns when it is durable */
    uint8_t *pool;        /* random bytes, from which all values are cut */
    size_t pool_bytes;
};

enum op_kind { OP_PUT, OP_GET, OP_DELETE, OP_LIST };

/* One operation under way. */
struct worker {
    struct load *load;
    unsigned index;
    uint64_t random;
    uint8_t *buf;      /* val_bytes, for what is read */
    enum op_kind kind; /* the operation */
    uint64_t item;
    uint8_t key[BENCH_KEY_BYTES]; /* LIST: its first BENCH_PREFIX_BYTES */
    const uint8_t *val;
    uint64_t got_len; /* out: bytes of the value read; LIST: keys */
    uint64_t began_ns;
    struct hist read_ns, write_ns;
};

enum order { ORDER_EACH_ONCE, ORDER_UNIFORM, ORDER_ZIPF };

struct load {
    struct bench *b;
    struct worker *workers;
    unsigned depth;
    enum op_kind kind;        /* of writes; of reads when read_percent is 100 */
    unsigned read_percent;
    enum order order;
    uint64_t first, range;    /* items are drawn from [first, first + range) */
    uint64_t ops_max;         /* 0: until end_ns */
    uint64_t end_ns;
    struct zipf *zipf;
    atomic_uint_fast64_t next;
    atomic_uint_fast64_t wrong; /* reads that did not return what was written */
    atomic_int error;           /* the first one; ends the load */
};

/** Draws the worker's next operation; false: the load is over. From any thread. */
bool load_next(struct worker *w);
/** The operation has ended. */
void load_done(struct worker *w, int rc);
/** A thread per worker, each calling the engine's op(). */
int threads_drive(struct bench *b, struct load *load);

struct scan {
    bool values;
    uint64_t keys_max;
    uint64_t end_ns;
    uint64_t keys, bytes; /* out */
    uint64_t sum;         /* of all keys' bytes: whoever hands out pointers has to read, too */
};

/** A key that was met; all engines call it for each, so that all have touched its bytes. */
static inline void scan_key(struct scan *s, const void *key, size_t len)
{
    uint64_t half[2];

    s->keys++;
    if (len != sizeof(half))
        return;
    memcpy(half, key, sizeof(half));
    s->sum += half[0] ^ half[1];
}

struct engine {
    const char *name;
    /* May print why it failed. Returns 0 or a negative errno, like all below. */
    int (*open)(struct bench *b);
    void (*close)(struct bench *b);
    int (*drive)(struct bench *b, struct load *load);
    int (*op)(struct bench *b, struct worker *w); /* for threads_drive */
    int (*scan)(struct bench *b, struct scan *s);
    int (*flush)(struct bench *b);   /* NULL: nothing to do */
    void (*counters)(struct bench *b, struct counters *out); /* may be NULL */
    int (*collect)(struct bench *b); /* gives back what was deleted; NULL: it has no such call */
};

extern const struct engine engine_kvasir;
#ifdef HAVE_ROCKSDB
extern const struct engine engine_rocksdb;
#endif
#ifdef HAVE_LEVELDB
extern const struct engine engine_leveldb;
#endif
#ifdef HAVE_LMDB
extern const struct engine engine_lmdb;
#endif
extern const struct engine engine_raw;

uint64_t bench_now_ns(void);
uint64_t bench_mix(uint64_t v);
void bench_key(uint64_t item, uint8_t out[BENCH_KEY_BYTES]);
const uint8_t *bench_value(const struct bench *b, uint64_t item);

struct zipf *zipf_new(uint64_t n);
/** A rank from [0, n), small ones often; `random` is a uniform number. */
uint64_t zipf_draw(const struct zipf *z, uint64_t random);

/* What the process has used so far. */
struct cost {
    uint64_t at_ns, user_ns, sys_ns, read_bytes, write_bytes;
    struct counters counted;
};
void cost_now(struct bench *b, struct cost *out);
uint64_t cost_rss_bytes(void);
/** Bytes that the files below a directory take on the disk. */
uint64_t cost_disk_bytes(const char *dir);

#endif
