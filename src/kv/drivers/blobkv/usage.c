/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many keys there are. The leaves know how many they hold; each key of the memtables, which
 * are short after a checkpoint, is looked up in them to see whether it is one more, one less, or
 * only has another place.
 */
#include "kv/drivers/blobkv/blobkv.h"

#define TRIES_MAX 16 /* a checkpoint begins or ends in each of them: that is no quiet store */

/* What is counted in. A checkpoint changes it. */
struct usage {
    struct bkv *s;
    struct bkv_tree *tree;
    const struct bkv_memtab *active, *frozen;
    uint8_t key[BKV_KEY_MAX];
    int64_t keys;
};

static bool is_current(const struct usage *u)
{
    return u->s->tree == u->tree && u->s->active == u->active && u->s->frozen == u->frozen;
}

/* A key of a memtable is one more, one less, or known already. Waits: -EAGAIN when the memtables
 * are others after it. */
static int count_key(struct rt_task *t, struct usage *u, struct bytes key, bool is_delete)
{
    struct bkv_place place;
    int rc = bkv_tree_find(t, u->tree, key, &place, NULL);

    if (!is_current(u))
        return -EAGAIN;
    if (rc < 0 && rc != -ENOENT)
        return rc;
    u->keys += (is_delete ? 0 : 1) - (rc == 0 ? 1 : 0);
    return 0;
}

/* The keys of one memtable; those of `newer` count there. */
static int count_table(struct rt_task *t, struct usage *u, const struct bkv_memtab *m,
                       const struct bkv_memtab *newer)
{
    const struct bkv_mem_entry *e = bkv_memtab_seek(m, bytes_make("", 0), false);

    while (e != NULL) {
        struct bytes at = art_key_bytes(&e->key);
        bool is_delete = e->place.type == BKV_DELETE;
        int rc;

        memcpy(u->key, at.ptr, at.len);
        at.ptr = u->key;
        if (newer == NULL || bkv_memtab_find(newer, at) == NULL) {
            rc = count_key(t, u, at, is_delete);
            if (rc < 0)
                return rc;
        }
        e = bkv_memtab_seek(m, at, true);
    }
    return 0;
}

int bkv_usage_keys(struct rt_task *t, struct bkv *s, uint64_t *out)
{
    CLEANUP(free_p) struct usage *u = calloc(1, sizeof(*u));
    int rc = -EAGAIN;

    if (u == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < TRIES_MAX && rc == -EAGAIN; i++) {
        u->s = s;
        u->tree = bkv_tree_ref(s->tree);
        u->active = s->active;
        u->frozen = s->frozen;
        u->keys = (int64_t)bkv_tree_nkeys(u->tree);
        rc = count_table(t, u, u->active, NULL);
        if (rc == 0 && u->frozen != NULL)
            rc = count_table(t, u, u->frozen, u->active);
        bkv_tree_put(u->tree);
    }
    if (rc < 0 && rc != -EAGAIN)
        return rc;
    *out = (uint64_t)MAX(u->keys, 0);
    return 0;
}
