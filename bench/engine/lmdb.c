/* SPDX-License-Identifier: Apache-2.0 */
/*
 * LMDB has one writer at a time and a flush per transaction. So that 32 writers do not wait for 32
 * flushes, those that wait are combined: the first one carries out the changes of all in one
 * transaction. Reads are of the mapped file, in a memory cgroup that bench/run makes.
 */
#include "engine.h"

#include <lmdb.h>
#include <pthread.h>
#include <stdio.h>

struct waiting {
    struct worker *w;
    struct waiting *next;
    bool done;
    int rc;
};

struct lm {
    MDB_env *env;
    MDB_dbi dbi;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct waiting *first, **last;
    bool writing;
};

static int failed(int rc)
{
    if (rc == 0 || rc == MDB_NOTFOUND)
        return rc == 0 ? 0 : -ENOENT;
    fprintf(stderr, "lmdb: %s\n", mdb_strerror(rc));
    return rc == MDB_MAP_FULL || rc == ENOSPC ? -ENOSPC : -EIO;
}

static int lm_open(struct bench *b)
{
    struct lm *l = calloc(1, sizeof(*l));
    uint64_t data = b->items * (b->val_bytes + 8192);
    MDB_txn *txn;
    int rc;

    if (l == NULL)
        return -ENOMEM;
    b->state = l;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->changed, NULL);
    l->last = &l->first;
    rc = mdb_env_create(&l->env);
    if (rc == 0)
        rc = mdb_env_set_mapsize(l->env, round_up_u64(4 * data + GIB, 4096));
    if (rc == 0)
        rc = mdb_env_set_maxreaders(l->env, 1024);
    if (rc == 0)
        rc = mdb_env_open(l->env, b->dir, MDB_NORDAHEAD | (b->sync ? 0 : MDB_NOSYNC), 0644);
    if (rc == 0)
        rc = mdb_txn_begin(l->env, NULL, 0, &txn);
    if (rc != 0)
        return failed(rc);
    rc = mdb_dbi_open(txn, NULL, 0, &l->dbi);
    if (rc == 0)
        return failed(mdb_txn_commit(txn));
    mdb_txn_abort(txn);
    return failed(rc);
}

static void lm_close(struct bench *b)
{
    struct lm *l = b->state;

    mdb_env_close(l->env);
    pthread_cond_destroy(&l->changed);
    pthread_mutex_destroy(&l->lock);
    free(l);
}

static int change(struct bench *b, MDB_txn *txn, struct worker *w)
{
    struct lm *l = b->state;
    MDB_val key = {BENCH_KEY_BYTES, w->key}, val = {b->val_bytes, (void *)(uintptr_t)w->val};
    int rc;

    if (w->kind == OP_PUT)
        return mdb_put(txn, l->dbi, &key, &val, 0);
    rc = mdb_del(txn, l->dbi, &key, NULL);
    return rc == MDB_NOTFOUND ? 0 : rc;
}

/* All of them in one transaction. */
static int commit_all(struct bench *b, struct waiting *all)
{
    struct lm *l = b->state;
    MDB_txn *txn;
    int rc = mdb_txn_begin(l->env, NULL, 0, &txn);

    if (rc != 0)
        return failed(rc);
    for (struct waiting *x = all; x != NULL && rc == 0; x = x->next)
        rc = change(b, txn, x->w);
    if (rc == 0)
        return failed(mdb_txn_commit(txn));
    mdb_txn_abort(txn);
    return failed(rc);
}

static int lm_change(struct bench *b, struct worker *w)
{
    struct lm *l = b->state;
    struct waiting me = {.w = w};
    struct waiting *all;
    int rc;

    pthread_mutex_lock(&l->lock);
    *l->last = &me;
    l->last = &me.next;
    while (!me.done && l->writing)
        pthread_cond_wait(&l->changed, &l->lock);
    if (!me.done) {
        l->writing = true;
        all = l->first;
        l->first = NULL;
        l->last = &l->first;
        pthread_mutex_unlock(&l->lock);
        rc = commit_all(b, all);
        pthread_mutex_lock(&l->lock);
        l->writing = false;
        for (struct waiting *x = all, *next; x != NULL; x = next) {
            next = x->next;
            x->rc = rc;
            x->done = true;
        }
        pthread_cond_broadcast(&l->changed);
    }
    pthread_mutex_unlock(&l->lock);
    return me.rc;
}

static int lm_get(struct bench *b, MDB_txn *txn, struct worker *w)
{
    struct lm *l = b->state;
    MDB_val key = {BENCH_KEY_BYTES, w->key}, val;
    int rc = mdb_get(txn, l->dbi, &key, &val);

    if (rc == 0) {
        memcpy(w->buf, val.mv_data, MIN(val.mv_size, b->val_bytes));
        w->got_len = val.mv_size;
    }
    return failed(rc);
}

static int lm_list(struct bench *b, MDB_txn *txn, struct worker *w)
{
    struct lm *l = b->state;
    MDB_val key = {BENCH_PREFIX_BYTES, w->key}, val;
    MDB_cursor *cur;
    int rc = mdb_cursor_open(txn, l->dbi, &cur);

    if (rc != 0)
        return failed(rc);
    for (rc = mdb_cursor_get(cur, &key, &val, MDB_SET_RANGE);
         rc == 0 && memcmp(key.mv_data, w->key, BENCH_PREFIX_BYTES) == 0;
         rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT))
        w->got_len++;
    mdb_cursor_close(cur);
    return rc == MDB_NOTFOUND ? 0 : failed(rc);
}

static int lm_op(struct bench *b, struct worker *w)
{
    struct lm *l = b->state;
    MDB_txn *txn;
    int rc;

    if (w->kind == OP_PUT || w->kind == OP_DELETE)
        return lm_change(b, w);
    rc = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn);
    if (rc != 0)
        return failed(rc);
    rc = w->kind == OP_LIST ? lm_list(b, txn, w) : lm_get(b, txn, w);
    mdb_txn_abort(txn);
    return rc;
}

static int lm_scan(struct bench *b, struct scan *s)
{
    struct lm *l = b->state;
    MDB_val key, val;
    MDB_cursor *cur;
    uint64_t sum = 0;
    MDB_txn *txn;
    int rc = mdb_txn_begin(l->env, NULL, MDB_RDONLY, &txn);

    if (rc == 0)
        rc = mdb_cursor_open(txn, l->dbi, &cur);
    if (rc != 0)
        return failed(rc);
    for (rc = mdb_cursor_get(cur, &key, &val, MDB_FIRST); rc == 0 && s->keys < s->keys_max;
         rc = mdb_cursor_get(cur, &key, &val, MDB_NEXT)) {
        scan_key(s, key.mv_data, key.mv_size);
        if (s->values) { /* it is mapped: only touching it reads it */
            for (size_t at = 0; at < val.mv_size; at += 512)
                sum += ((const uint8_t *)val.mv_data)[at];
            s->bytes += val.mv_size;
        }
        if (s->keys % 256 == 0 && bench_now_ns() > s->end_ns)
            break;
    }
    s->bytes += sum == UINT64_MAX; /* so that the sum is wanted */
    mdb_cursor_close(cur);
    mdb_txn_abort(txn);
    return rc == MDB_NOTFOUND ? 0 : failed(rc);
}

const struct engine engine_lmdb = {
    .name = "lmdb",
    .open = lm_open,
    .close = lm_close,
    .drive = threads_drive,
    .op = lm_op,
    .scan = lm_scan,
};
