/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LevelDB: reads through the page cache, so bench/run puts the process into a memory cgroup. Its
 * own block cache stays at the default of 8 MiB; 10 bits of Bloom filter a key, no compression.
 */
#include "engine.h"

#include <leveldb/c.h>
#include <stdio.h>

struct level {
    leveldb_t *db;
    leveldb_options_t *options;
    leveldb_readoptions_t *get, *scan;
    leveldb_writeoptions_t *put;
};

static int failed(char *text)
{
    if (text == NULL)
        return 0;
    fprintf(stderr, "leveldb: %s\n", text);
    leveldb_free(text);
    return -EIO;
}

static int level_open(struct bench *b)
{
    struct level *l = calloc(1, sizeof(*l));
    char *text = NULL;

    if (l == NULL)
        return -ENOMEM;
    b->state = l;
    l->options = leveldb_options_create();
    leveldb_options_set_create_if_missing(l->options, 1);
    leveldb_options_set_compression(l->options, leveldb_no_compression);
    leveldb_options_set_filter_policy(l->options, leveldb_filterpolicy_create_bloom(10));
    l->get = leveldb_readoptions_create();
    l->scan = leveldb_readoptions_create();
    leveldb_readoptions_set_fill_cache(l->scan, 0);
    l->put = leveldb_writeoptions_create();
    leveldb_writeoptions_set_sync(l->put, b->sync);
    l->db = leveldb_open(l->options, b->dir, &text);
    return failed(text);
}

static void level_close(struct bench *b)
{
    struct level *l = b->state;

    leveldb_close(l->db);
    leveldb_options_destroy(l->options);
    leveldb_readoptions_destroy(l->get);
    leveldb_readoptions_destroy(l->scan);
    leveldb_writeoptions_destroy(l->put);
    free(l);
}

static int level_list(struct level *l, struct worker *w)
{
    leveldb_iterator_t *it = leveldb_create_iterator(l->db, l->get);

    for (leveldb_iter_seek(it, (char *)w->key, BENCH_PREFIX_BYTES); leveldb_iter_valid(it);
         leveldb_iter_next(it)) {
        size_t len;
        const char *key = leveldb_iter_key(it, &len);

        if (len < BENCH_PREFIX_BYTES || memcmp(key, w->key, BENCH_PREFIX_BYTES) != 0)
            break;
        w->got_len++;
    }
    leveldb_iter_destroy(it);
    return 0;
}

static int level_op(struct bench *b, struct worker *w)
{
    struct level *l = b->state;
    const char *key = (const char *)w->key;
    char *val, *text = NULL;
    size_t len;

    switch (w->kind) {
    case OP_PUT:
        leveldb_put(l->db, l->put, key, BENCH_KEY_BYTES, (const char *)w->val, b->val_bytes, &text);
        return failed(text);
    case OP_DELETE:
        leveldb_delete(l->db, l->put, key, BENCH_KEY_BYTES, &text);
        return failed(text);
    case OP_LIST:
        return level_list(l, w);
    case OP_GET:
    default:
        val = leveldb_get(l->db, l->get, key, BENCH_KEY_BYTES, &len, &text);
        if (val == NULL)
            return text == NULL ? -ENOENT : failed(text);
        memcpy(w->buf, val, MIN(len, b->val_bytes));
        w->got_len = len;
        leveldb_free(val);
        return 0;
    }
}

static int level_scan(struct bench *b, struct scan *s)
{
    struct level *l = b->state;
    leveldb_iterator_t *it = leveldb_create_iterator(l->db, l->scan);
    char *text = NULL;

    for (leveldb_iter_seek_to_first(it); leveldb_iter_valid(it) && s->keys < s->keys_max;
         leveldb_iter_next(it)) {
        size_t len;
        const char *key = leveldb_iter_key(it, &len);

        scan_key(s, key, len);
        if (s->values) {
            (void)leveldb_iter_value(it, &len);
            s->bytes += len;
        }
        if (s->keys % 256 == 0 && bench_now_ns() > s->end_ns)
            break;
    }
    leveldb_iter_get_error(it, &text);
    leveldb_iter_destroy(it);
    return failed(text);
}

static int level_collect(struct bench *b)
{
    struct level *l = b->state;

    leveldb_compact_range(l->db, NULL, 0, NULL, 0);
    return 0;
}

const struct engine engine_leveldb = {
    .name = "leveldb",
    .open = level_open,
    .close = level_close,
    .drive = threads_drive,
    .op = level_op,
    .scan = level_scan,
    .collect = level_collect,
};
