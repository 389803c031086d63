/* SPDX-License-Identifier: Apache-2.0 */
/*
 * KV_LIST over shards: each lists its own keys in order into a piece of memory, all at the same
 * time, and the smallest that is left goes to the user. A shard whose piece is used up, and has
 * more, is asked for the next one, behind its last key.
 */
#include "kv/drivers/blobkv/shards.h"

#include <string.h>

#define PIECE_MIN 4096u /* has room for any key */
#define PIECE_MAX 65536u

struct source {
    struct kv_req step;
    struct iovec iov;
    struct kv_list_iter it;
    struct bytes key; /* the next one; empty: there is none here */
    uint8_t *last;    /* KV_KEY_MAX: where the next piece goes on */
    bool asked;
};

struct merge {
    struct bkv_shards *set;
    struct kv_req *kv;
    uint32_t piece_bytes;
    uint8_t *memory;
    struct source source[];
};

static void merge_free(struct merge **pm)
{
    if (*pm == NULL)
        return;
    free((*pm)->memory);
    free(*pm);
}

static struct merge *merge_new(struct bkv_shards *set, struct kv_req *kv)
{
    struct merge *m = calloc(1, sizeof(*m) + set->n * sizeof(struct source));
    uint64_t want = kv->iov[0].iov_len / set->n;

    if (m == NULL)
        return NULL;
    m->set = set;
    m->kv = kv;
    /* Their shares differ a little: most lists take one round. */
    want += want / 4;
    m->piece_bytes = (uint32_t)MIN(MAX(want, (uint64_t)PIECE_MIN), (uint64_t)PIECE_MAX);
    m->memory = malloc(set->n * ((size_t)m->piece_bytes + KV_KEY_MAX));
    if (m->memory == NULL) {
        free(m);
        return NULL;
    }
    for (unsigned i = 0; i < set->n; i++) {
        uint8_t *at = m->memory + i * ((size_t)m->piece_bytes + KV_KEY_MAX);

        m->source[i].iov = (struct iovec){.iov_base = at, .iov_len = m->piece_bytes};
        m->source[i].last = at + m->piece_bytes;
    }
    return m;
}

/* Asks a shard for its keys from `from` on. */
static void ask(struct rt_task *t, struct merge *m, unsigned i, struct bytes from, uint32_t flags)
{
    struct source *src = &m->source[i];
    struct kv_req *step = &src->step;

    *step = (struct kv_req){.op = KV_LIST,
                            .flags = flags,
                            .key = from,
                            .prefix = m->kv->prefix,
                            .iov = &src->iov,
                            .iovcnt = 1,
                            .snap = m->kv->snap};
    rt_req_init_task(&step->req, t);
    kv_begin_step(m->kv->chan, step);
    src->asked = true;
    bkv_shard_submit(m->set->shard[i], step);
}

/* Waits for all that were asked; each has its next key then, or none. */
static int answers(struct rt_task *t, struct merge *m)
{
    int rc = 0;

    for (unsigned i = 0; i < m->set->n; i++) {
        struct source *src = &m->source[i];
        int one;

        if (!src->asked)
            continue;
        one = rt_wait(t, &src->step.req);
        src->asked = false;
        rc = rc == 0 ? one : rc;
        src->key = bytes_make(NULL, 0);
        if (one < 0)
            continue;
        src->it = kv_list_begin(src->iov.iov_base, src->step.moved);
        (void)kv_list_next(&src->it, &src->key);
    }
    return rc;
}

static struct source *smallest(struct merge *m)
{
    struct source *best = NULL;

    for (unsigned i = 0; i < m->set->n; i++) {
        struct source *src = &m->source[i];

        if (src->key.len > 0 && (best == NULL || bytes_cmp(src->key, best->key) < 0))
            best = src;
    }
    return best;
}

/* The key has gone to the user. */
static int advance(struct rt_task *t, struct merge *m, struct source *src)
{
    struct bytes last = src->key;

    if (kv_list_next(&src->it, &src->key))
        return 0;
    src->key = bytes_make(NULL, 0);
    if (!src->step.more)
        return 0;
    memcpy(src->last, last.ptr, last.len);
    ask(t, m, (unsigned)(src - m->source), bytes_make(src->last, last.len), KV_F_AFTER);
    return answers(t, m);
}

static int merge_all(struct rt_task *t, struct merge *m)
{
    struct kv_req *kv = m->kv;
    struct source *src;
    size_t used = 0;
    int rc;

    for (unsigned i = 0; i < m->set->n; i++)
        ask(t, m, i, kv->key, kv->flags);
    rc = answers(t, m);
    while (rc == 0 && (src = smallest(m)) != NULL) {
        if (!kv_list_put(kv->iov[0].iov_base, kv->iov[0].iov_len, &used, src->key)) {
            kv->more = true;
            break;
        }
        kv->nkeys++;
        kv->moved = used;
        rc = advance(t, m, src);
    }
    return rc;
}

static int list_task(struct rt_task *t, void *arg)
{
    struct kv_req *kv = arg;
    struct bkv_shards *set = kv_driver_dev(kv_chan_dev(kv->chan));
    CLEANUP(merge_free) struct merge *m = merge_new(set, kv);

    rt_task_shield(t, true);
    kv->nkeys = 0;
    kv->moved = 0;
    kv->more = false;
    kv_complete(kv, m == NULL ? -ENOMEM : merge_all(t, m));
    return 0;
}

void bkv_shards_list(struct kv_req *kv)
{
    int rc = rt_task_start("blobkv list", list_task, kv, NULL, NULL);

    if (rc < 0)
        kv_complete(kv, rc);
}
