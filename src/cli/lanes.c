/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/lanes.h"

struct lanes;

struct lane {
    struct rt_req done;
    struct rt_task *task;
    struct lanes *all;
    unsigned idx;
    bool ended;
};

struct lanes {
    int (*fn)(struct rt_task *t, void *arg, unsigned lane);
    void *arg;
    struct lane *lane;
    unsigned count;
    unsigned running;
    int rc;
    struct rt_cond changed;
};

static int lane_task(struct rt_task *t, void *arg)
{
    struct lane *l = arg;

    return l->all->fn(t, l->all->arg, l->idx);
}

static void lane_done(struct rt_req *req)
{
    struct lane *l = container_of(req, struct lane, done);

    l->ended = true;
    l->all->running--;
    if (req->rc < 0 && l->all->rc == 0)
        l->all->rc = req->rc;
    rt_cond_wake_all(&l->all->changed);
}

static void cancel_all(struct lanes *all)
{
    for (unsigned i = 0; i < all->count; i++) {
        if (!all->lane[i].ended)
            rt_task_cancel(all->lane[i].task);
    }
}

int lanes_run(struct rt_task *t, unsigned n, int (*fn)(struct rt_task *t, void *arg, unsigned lane),
              void *arg)
{
    CLEANUP(free_p) struct lane *lane = calloc(n, sizeof(*lane));
    struct lanes all = {.fn = fn, .arg = arg, .lane = lane};
    bool told = false;

    must(n > 0 && n <= LANES_MAX);
    if (lane == NULL)
        return -ENOMEM;
    for (; all.count < n && all.rc == 0; all.count++) {
        struct lane *l = &lane[all.count];
        int rc;

        l->all = &all;
        l->idx = all.count;
        rt_req_init(&l->done, lane_done);
        rc = rt_task_start("lane", lane_task, l, &l->done, &l->task);
        if (rc < 0) {
            all.rc = rc;
            break;
        }
        all.running++;
    }
    while (all.running > 0) {
        int rc = told ? 0 : all.rc;

        if (rc == 0)
            rc = rt_cond_wait(t, &all.changed);
        if (rc < 0 && all.rc == 0)
            all.rc = rc;
        if (all.rc < 0 && !told) {
            told = true;
            rt_task_shield(t, true);
            cancel_all(&all);
        }
    }
    if (told)
        rt_task_shield(t, false);
    return all.rc;
}
