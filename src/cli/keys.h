/* SPDX-License-Identifier: Apache-2.0 */
/* The keys of a device one after the other, for any number of tasks that share the walk. */
#ifndef KVASIR_CLI_KEYS_H
#define KVASIR_CLI_KEYS_H

#include "cli/key.h"
#include "kv/kv.h"

#define KEYS_PAGE_BYTES (64 * KIB)

struct keys {
    struct kv_chan *chan;
    struct bytes prefix;
    struct cli_key last;     /* the last one handed out, or where to begin */
    bool started, more, busy;
    struct kv_list_iter it;
    uint8_t *page;
    struct rt_cond idle;
};

/** `prefix` stays the caller's. `after`: begin with the first key after it; NULL: at the first. */
struct keys *keys_new(struct kv_chan *chan, struct bytes prefix, const struct cli_key *after);
void keys_free(struct keys *k);
void keys_free_p(struct keys **pk);

/** 1: *out is the next key; 0: there are no more; negative errno. */
int keys_next(struct rt_task *t, struct keys *k, struct cli_key *out);

#endif
