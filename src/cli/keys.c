/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/keys.h"

struct keys *keys_new(struct kv_chan *chan, struct bytes prefix, const struct cli_key *after)
{
    struct keys *k = calloc(1, sizeof(*k));

    if (k == NULL)
        return NULL;
    k->page = malloc(KEYS_PAGE_BYTES);
    if (k->page == NULL) {
        free(k);
        return NULL;
    }
    k->chan = chan;
    k->prefix = prefix;
    k->more = true;
    k->it = kv_list_begin(k->page, 0);
    if (after != NULL) {
        k->last = *after;
        k->started = true;
    }
    return k;
}

void keys_free(struct keys *k)
{
    if (k == NULL)
        return;
    free(k->page);
    free(k);
}

void keys_free_p(struct keys **pk)
{
    keys_free(*pk);
}

/* The next page, beginning after the last key of the one before. */
static int fetch(struct rt_task *t, struct keys *k)
{
    struct bytes start = k->started ? cli_key_bytes(&k->last) : k->prefix;
    size_t moved = 0;
    int rc;

    k->busy = true;
    rc = kv_list(t, k->chan, start, k->prefix, k->started ? KV_F_AFTER : 0, k->page,
                 KEYS_PAGE_BYTES, &moved, &k->more);
    k->busy = false;
    rt_cond_wake_all(&k->idle);
    if (rc < 0)
        return rc;
    if (moved == 0)
        k->more = false;
    k->it = kv_list_begin(k->page, moved);
    return 0;
}

int keys_next(struct rt_task *t, struct keys *k, struct cli_key *out)
{
    struct bytes key;
    int rc = 0;

    for (;;) {
        while (k->busy && rc == 0)
            rc = rt_cond_wait(t, &k->idle);
        if (rc < 0)
            return rc;
        if (kv_list_next(&k->it, &key))
            break;
        if (!k->more)
            return 0;
        rc = fetch(t, k);
        if (rc < 0)
            return rc;
    }
    must(key.len <= CLI_KEY_MAX);
    memcpy(out->data, key.ptr, key.len);
    out->len = key.len;
    k->last = *out;
    k->started = true;
    return 1;
}
