/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/blobkv.h"

/* A round: what the next checkpoint can free by itself. */
static void make_room(struct rt_task *t, struct bkv *s)
{
    uint32_t before = bkv_space_avail(s);

    s->want_room = false;
    if (bkv_checkpoint(t, s, NULL, NULL) < 0 || bkv_space_avail(s) <= before)
        s->full = true;
    bkv_space_wake(s);
}

int bkv_collector(struct rt_task *t, void *store)
{
    struct bkv *s = store;

    rt_task_shield(t, true);
    while (!s->closing) {
        if (s->want_room)
            make_room(t, s);
        else
            (void)rt_cond_wait(t, &s->collector_wanted);
    }
    bkv_task_ended(s);
    return 0;
}
