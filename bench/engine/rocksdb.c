/* SPDX-License-Identifier: Apache-2.0 */
/*
 * RocksDB: reads with O_DIRECT, so that the block cache is all the memory its data has; 10 bits of
 * Bloom filter a key, two background jobs, no compression. Its memtables come on top of the cache.
 */
#include "engine.h"

#include <rocksdb/c.h>
#include <stdio.h>

struct rocks {
    rocksdb_t *db;
    rocksdb_options_t *options;
    rocksdb_readoptions_t *get, *scan;
    rocksdb_writeoptions_t *put;
};

static int failed(char *text)
{
    if (text == NULL)
        return 0;
    fprintf(stderr, "rocksdb: %s\n", text);
    rocksdb_free(text);
    return -EIO;
}

static rocksdb_options_t *make_options(const struct bench *b)
{
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_block_based_table_options_t *table = rocksdb_block_based_options_create();

    rocksdb_block_based_options_set_block_cache(table, rocksdb_cache_create_lru(b->cache_bytes));
    rocksdb_block_based_options_set_filter_policy(table, rocksdb_filterpolicy_create_bloom(10));
    rocksdb_options_set_block_based_table_factory(o, table);
    rocksdb_options_set_create_if_missing(o, 1);
    rocksdb_options_set_compression(o, rocksdb_no_compression);
    rocksdb_options_set_use_direct_reads(o, 1);
    rocksdb_options_set_max_background_jobs(o, 2);
    /* The default where the memory allows it. */
    rocksdb_options_set_write_buffer_size(o, MAX(MIN(64 * MIB, b->cache_bytes / 4), 4 * MIB));
    return o;
}

static int rocks_open(struct bench *b)
{
    struct rocks *r = calloc(1, sizeof(*r));
    char *text = NULL;

    if (r == NULL)
        return -ENOMEM;
    b->state = r;
    r->options = make_options(b);
    r->get = rocksdb_readoptions_create();
    r->scan = rocksdb_readoptions_create();
    rocksdb_readoptions_set_readahead_size(r->scan, 2 * MIB);
    rocksdb_readoptions_set_fill_cache(r->scan, 0);
    r->put = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(r->put, b->sync);
    r->db = rocksdb_open(r->options, b->dir, &text);
    return failed(text);
}

static void rocks_close(struct bench *b)
{
    struct rocks *r = b->state;

    rocksdb_close(r->db);
    rocksdb_options_destroy(r->options);
    rocksdb_readoptions_destroy(r->get);
    rocksdb_readoptions_destroy(r->scan);
    rocksdb_writeoptions_destroy(r->put);
    free(r);
}

static int rocks_list(struct rocks *r, struct worker *w)
{
    rocksdb_iterator_t *it = rocksdb_create_iterator(r->db, r->get);

    for (rocksdb_iter_seek(it, (char *)w->key, BENCH_PREFIX_BYTES); rocksdb_iter_valid(it);
         rocksdb_iter_next(it)) {
        size_t len;
        const char *key = rocksdb_iter_key(it, &len);

        if (len < BENCH_PREFIX_BYTES || memcmp(key, w->key, BENCH_PREFIX_BYTES) != 0)
            break;
        w->got_len++;
    }
    rocksdb_iter_destroy(it);
    return 0;
}

static int rocks_op(struct bench *b, struct worker *w)
{
    struct rocks *r = b->state;
    rocksdb_pinnableslice_t *slice;
    const char *val, *key = (const char *)w->key;
    char *text = NULL;
    size_t len;

    switch (w->kind) {
    case OP_PUT:
        rocksdb_put(r->db, r->put, key, BENCH_KEY_BYTES, (const char *)w->val, b->val_bytes, &text);
        return failed(text);
    case OP_DELETE:
        rocksdb_delete(r->db, r->put, key, BENCH_KEY_BYTES, &text);
        return failed(text);
    case OP_LIST:
        return rocks_list(r, w);
    case OP_GET:
    default:
        slice = rocksdb_get_pinned(r->db, r->get, key, BENCH_KEY_BYTES, &text);
        if (slice == NULL)
            return text == NULL ? -ENOENT : failed(text);
        val = rocksdb_pinnableslice_value(slice, &len);
        memcpy(w->buf, val, MIN(len, b->val_bytes));
        w->got_len = len;
        rocksdb_pinnableslice_destroy(slice);
        return 0;
    }
}

static int rocks_scan(struct bench *b, struct scan *s)
{
    struct rocks *r = b->state;
    rocksdb_iterator_t *it = rocksdb_create_iterator(r->db, r->scan);
    char *text = NULL;

    for (rocksdb_iter_seek_to_first(it); rocksdb_iter_valid(it) && s->keys < s->keys_max;
         rocksdb_iter_next(it)) {
        size_t len;
        const char *key = rocksdb_iter_key(it, &len);

        scan_key(s, key, len);
        if (s->values) {
            (void)rocksdb_iter_value(it, &len);
            s->bytes += len;
        }
        if (s->keys % 256 == 0 && bench_now_ns() > s->end_ns)
            break;
    }
    rocksdb_iter_get_error(it, &text);
    rocksdb_iter_destroy(it);
    return failed(text);
}

static int rocks_flush(struct bench *b)
{
    struct rocks *r = b->state;
    rocksdb_flushoptions_t *o = rocksdb_flushoptions_create();
    char *text = NULL;

    rocksdb_flushoptions_set_wait(o, 1);
    rocksdb_flush(r->db, o, &text);
    rocksdb_flushoptions_destroy(o);
    return failed(text);
}

static int rocks_collect(struct bench *b)
{
    struct rocks *r = b->state;

    rocksdb_compact_range(r->db, NULL, 0, NULL, 0);
    return 0;
}

const struct engine engine_rocksdb = {
    .name = "rocksdb",
    .open = rocks_open,
    .close = rocks_close,
    .drive = threads_drive,
    .op = rocks_op,
    .scan = rocks_scan,
    .flush = rocks_flush,
    .collect = rocks_collect,
};
