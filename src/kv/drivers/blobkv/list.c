/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A list goes through memtables and leaves with a cursor from a small pool. As long as all leaves
 * it needs are in the cache, and it is not long, it is over when it is submitted; else a task goes
 * on where it was. While that waits a checkpoint may swap the memtables and the tree: then the
 * cursor goes on with the new ones behind the last key, so that a key that was there all the time
 * is seen once.
 */
#include "kv/drivers/blobkv/list.h"

#include "kv/drivers/blobkv/snap.h"

#define AHEAD_LEAVES 32u
#define KEYS_AT_ONCE 1024u /* then others have their turn */

struct lister {
    struct list link;
    struct bkv_cursor *cursor;
    /* What the cursor goes through. */
    const struct bkv_memtab *active, *frozen;
    uint64_t checkpoint_no;
    struct bkv_snap *snap; /* NULL: the present */
    struct kv_req *kv;
    struct bkv *s;
};

struct bkv_lists {
    struct lister lister[BKV_LISTS_MAX];
    struct list free;
    struct list waiting; /* struct waiting */
};

struct waiting {
    struct list link;
};
static_assert(sizeof(struct waiting) <= sizeof(((struct kv_req *)0)->driver), "room");

int bkv_lists_init(struct bkv *s)
{
    struct bkv_lists *ls = calloc(1, sizeof(*ls));

    if (ls == NULL)
        return -ENOMEM;
    list_init(&ls->free);
    list_init(&ls->waiting);
    for (unsigned i = 0; i < BKV_LISTS_MAX; i++) {
        ls->lister[i].s = s;
        list_add_tail(&ls->free, &ls->lister[i].link);
    }
    s->lists = ls;
    return 0;
}

void bkv_lists_fini(struct bkv *s)
{
    if (s->lists == NULL)
        return;
    for (unsigned i = 0; i < BKV_LISTS_MAX; i++)
        bkv_cursor_free(s->lists->lister[i].cursor);
    free(s->lists);
    s->lists = NULL;
}

/* --- one list --------------------------------------------------------------------------------- */

static void use_sources(struct lister *l)
{
    struct bkv *s = l->s;

    if (l->snap != NULL)
        bkv_cursor_use(l->cursor, NULL, NULL, l->snap->tree);
    else
        bkv_cursor_use(l->cursor, s->active, s->frozen, s->tree);
    l->active = s->active;
    l->frozen = s->frozen;
    l->checkpoint_no = s->checkpoint_no;
}

static bool sources_changed(const struct lister *l)
{
    return l->snap == NULL && (l->active != l->s->active || l->frozen != l->s->frozen ||
                               l->checkpoint_no != l->s->checkpoint_no);
}

static int begin(struct lister *l)
{
    struct bkv *s = l->s;
    const struct kv_req *kv = l->kv;
    bool after = (kv->flags & KV_F_AFTER) != 0;
    struct bytes from = kv->key;

    /* Cursors are made when so many lists are at work for the first time. */
    if (l->cursor == NULL)
        l->cursor = bkv_cursor_new(NULL, NULL, s->tree, AHEAD_LEAVES);
    if (l->cursor == NULL)
        return -ENOMEM;
    l->snap = bkv_snap_of(kv);
    if (l->snap != NULL && bkv_snap_enter(l->snap) < 0) {
        l->snap = NULL;
        return -ESTALE;
    }
    use_sources(l);
    if (bytes_cmp(from, kv->prefix) < 0) {
        from = kv->prefix;
        after = false;
    }
    bkv_cursor_seek(l->cursor, from, after);
    l->kv->nkeys = 0;
    l->kv->moved = 0;
    l->kv->more = false;
    return 0;
}

/* Lists up to `max` keys more: 0 it is complete, 1 there is more to do, -EAGAIN a leaf has to be
 * read first. */
static int step(struct lister *l, unsigned max)
{
    struct kv_req *kv = l->kv;
    uint8_t *buf = kv->iov[0].iov_base;
    size_t used = kv->moved;

    for (uint32_t until = kv->nkeys + max; kv->nkeys < until;) {
        struct bkv_place place;
        struct bytes key;
        int rc = bkv_cursor_step(l->cursor, &key, &place);

        if (rc <= 0)
            return rc;
        if (!bytes_has_prefix(key, kv->prefix))
            return 0;
        if (!kv_list_put(buf, kv->iov[0].iov_len, &used, key)) {
            kv->more = true;
            return 0;
        }
        rc = bkv_cursor_run(l->cursor, kv->prefix, buf, kv->iov[0].iov_len, &used);
        if (rc < 0)
            return rc;
        kv->nkeys += 1 + (unsigned)rc;
        kv->moved = used;
    }
    return 1;
}

static void finish(struct lister *l, int rc)
{
    struct bkv *s = l->s;
    struct kv_req *kv = take_ptr(&l->kv);

    if (l->cursor != NULL)
        bkv_cursor_use(l->cursor, NULL, NULL, NULL);
    if (l->snap != NULL)
        bkv_snap_leave(take_ptr(&l->snap));
    list_add_head(&s->lists->free, &l->link);
    kv_complete(kv, rc);
}

/* Somebody waits only while all are at work, so only who ends in a task looks. */
static void next_waiting(struct bkv *s)
{
    struct waiting *w;

    while (!list_empty(&s->lists->free) &&
           (w = list_pop_entry(&s->lists->waiting, struct waiting, link)) != NULL)
        bkv_list_submit(s, container_of((void *)w, struct kv_req, driver));
}

static int list_task(struct rt_task *t, void *arg)
{
    struct lister *l = arg;
    struct bkv *s = l->s;
    int rc = 0;

    rt_task_shield(t, true);
    for (;;) {
        /* Others have run, before this task as well; whatever a load has found then, with other
         * leaves it is worth nothing. */
        if (sources_changed(l))
            use_sources(l);
        else if (rc < 0)
            break;
        rc = step(l, KEYS_AT_ONCE);
        if (rc == -EAGAIN)
            rc = bkv_cursor_load(t, l->cursor);
        else if (rc == 1)
            rc = rt_yield(t);
        else
            break;
    }
    finish(l, rc);
    next_waiting(s);
    bkv_task_ended(s);
    return 0;
}

void bkv_list_submit(struct bkv *s, struct kv_req *kv)
{
    struct lister *l = list_pop_entry(&s->lists->free, struct lister, link);
    int rc;

    if (UNLIKELY(l == NULL)) {
        struct waiting *w = (void *)kv->driver;

        list_add_tail(&s->lists->waiting, &w->link);
        return;
    }
    l->kv = kv;
    s->stats.lists++;
    rc = begin(l);
    if (rc == 0)
        rc = step(l, KEYS_AT_ONCE);
    if (rc == 1 || rc == -EAGAIN) {
        rc = bkv_task(s, "blobkv list", list_task, l);
        if (rc == 0)
            return;
    }
    finish(l, rc);
}
