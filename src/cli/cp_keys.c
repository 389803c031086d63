/* SPDX-License-Identifier: Apache-2.0 */
/* Key by key, several lanes. Small values are one request on each side, large ones a stream. */
#include "cli/cp.h"

#include "cli/keys.h"
#include "cli/lanes.h"
#include "cli/xfer.h"

#include <stdint.h>
#include <string.h>

struct lane {
    struct xfer *x;
    uint8_t *compare; /* a piece of the other side */
    struct cli_key key;
    struct cli_key prev; /* the one before it in the list: all up to it are done if we are last */
    uint64_t seq;        /* place in the order of handing out; UINT64_MAX: idle */
};

struct run {
    struct cp *cp;
    struct keys *keys;
    struct lane *lane;
    struct cli_key handed;
    uint64_t next_seq;
    bool saving;
};

/* The last key before which nothing is under way. */
static const struct cli_key *low_water(const struct run *run)
{
    const struct lane *lowest = NULL;

    for (unsigned i = 0; i < run->cp->jobs; i++) {
        const struct lane *l = &run->lane[i];

        if (l->seq != UINT64_MAX && (lowest == NULL || l->seq < lowest->seq))
            lowest = l;
    }
    return lowest != NULL ? &lowest->prev : &run->handed;
}

static int save(struct rt_task *t, struct run *run)
{
    struct cp *cp = run->cp;
    int rc;

    if (run->saving || low_water(run)->len == 0)
        return 0;
    run->saving = true;
    cp->state.after = *low_water(run);
    rc = kv_flush(t, cp->to.kv_chan);
    if (rc < 0)
        rc = cli_fail(cp->c, rc, "cannot flush %s: %s", cp->to.uri, err_str(rc));
    if (rc == 0)
        rc = cp_state_save(t, cp);
    run->saving = false;
    return rc;
}

/* One request of a task with one buffer. */
static int io(struct rt_task *t, struct kv_chan *chan, struct kv_req *req, void *buf, size_t len)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};

    rt_req_init_task(&req->req, t);
    req->iov = &iov;
    req->iovcnt = 1;
    req->len = len;
    kv_submit(chan, req);
    return rt_wait(t, &req->req);
}

/* Compares a value on both sides: 0, -EILSEQ a difference, -ENOENT gone from one side, ... */
static int compare_values(struct rt_task *t, struct cp *cp, struct lane *l)
{
    struct bytes key = cli_key_bytes(&l->key);
    uint8_t *mine = l->x->mem;
    struct xfer_value a, b;
    ssize_t n = 0, m;
    int rc;

    rc = xfer_value_open(t, cp->from.kv_chan, key, &a);
    if (rc < 0)
        return rc;
    rc = xfer_value_open(t, cp->to.kv_chan, key, &b);
    if (rc == 0) {
        if (a.value_len != b.value_len)
            rc = -EILSEQ;
        while (rc == 0 && (n = a.source.read(t, &a.source, mine, XFER_LANE_BYTES)) > 0) {
            m = b.source.read(t, &b.source, l->compare, (size_t)n);
            rc = m < 0 ? (int)m : m != n || memcmp(mine, l->compare, (size_t)n) != 0 ? -EILSEQ : 0;
        }
        if (rc == 0 && n < 0)
            rc = (int)n;
        xfer_value_close(t, &b);
    }
    xfer_value_close(t, &a);
    return rc;
}

/* Whether the destination has it already, as far as --update asks. */
static int is_same(struct rt_task *t, struct cp *cp, struct lane *l, bool *out_same)
{
    struct bytes key = cli_key_bytes(&l->key);
    uint64_t here = 0, there = 0, version;
    int rc;

    *out_same = false;
    rc = kv_stat(t, cp->to.kv_chan, key, &there, &version);
    if (rc < 0)
        return rc == -ENOENT || rc == -ENAMETOOLONG ? 0 : rc;
    rc = kv_stat(t, cp->from.kv_chan, key, &here, &version);
    if (rc < 0)
        return rc;
    if (here == there && cp->verify)
        rc = compare_values(t, cp, l);
    *out_same = here == there && rc == 0;
    return rc == -EILSEQ ? 0 : rc;
}

static int copy_large(struct rt_task *t, struct cp *cp, struct lane *l, struct err *why)
{
    struct xfer_store st = {.key = cli_key_bytes(&l->key), .flags = KV_F_NO_VERSION};
    struct xfer_value v;
    int rc = xfer_value_open(t, cp->from.kv_chan, st.key, &v);

    if (rc < 0)
        return rc;
    st.len = v.value_len;
    rc = xfer_store(t, l->x, cp->to.kv_chan, &st, &v.source, why);
    xfer_value_close(t, &v);
    if (rc == 0)
        cli_progress_add(&cp->progress, st.moved);
    return rc;
}

static int copy_value(struct rt_task *t, struct cp *cp, struct lane *l, struct err *why)
{
    struct kv_req req = {
        .op = KV_RETRIEVE, .flags = KV_F_NO_VERSION, .key = cli_key_bytes(&l->key)};
    uint64_t len;
    int rc;

    rc = io(t, cp->from.kv_chan, &req, l->x->mem, XFER_LANE_BYTES);
    if (rc < 0)
        return rc;
    len = req.value_len;
    if (len > XFER_LANE_BYTES)
        return copy_large(t, cp, l, why);
    req = (struct kv_req){.op = KV_STORE, .flags = KV_F_NO_VERSION, .key = cli_key_bytes(&l->key)};
    rc = io(t, cp->to.kv_chan, &req, l->x->mem, len);
    if (rc == 0)
        cli_progress_add(&cp->progress, len);
    return rc;
}

static int key_failed(struct cp *cp, struct lane *l, int rc, const char *text)
{
    if (rc == -ECANCELED)
        return rc;
    dev_kv_fail(cp->c, rc == -EILSEQ ? &cp->from : &cp->to,
                rc == -EILSEQ ? "verify the copy of" : "copy", cli_key_bytes(&l->key), rc,
                rc == -EILSEQ ? "the devices have different values" : text);
    cp->failed++;
    if (cp->first_rc == 0)
        cp->first_rc = rc;
    return cp->keep_going && rc != -ENODEV && rc != -ECONNRESET ? 0 : rc;
}

static int copy_key(struct rt_task *t, struct cp *cp, struct lane *l)
{
    struct err why = {""};
    bool same = false;
    int rc = 0;

    if (cp->update)
        rc = is_same(t, cp, l, &same);
    if (rc == 0 && same) {
        cp->skipped++;
        return 0;
    }
    if (rc == 0)
        rc = copy_value(t, cp, l, &why);
    if (rc == 0 && cp->verify)
        rc = compare_values(t, cp, l);
    if (rc == -ENOENT)
        return 0; /* deleted at the source since it was listed */
    if (rc < 0)
        return key_failed(cp, l, rc, why.text);
    cp->copied++;
    cp->progress.items = cp->copied;
    return 0;
}

static int lane_loop(struct rt_task *t, struct run *run, struct lane *l)
{
    int rc;

    while ((rc = keys_next(t, run->keys, &l->key)) > 0) {
        l->prev = run->handed;
        run->handed = l->key;
        l->seq = run->next_seq++;
        rc = copy_key(t, run->cp, l);
        if (rc < 0)
            return rc; /* stays under way: the state must not pass it */
        l->seq = UINT64_MAX;
        if (cp_state_due(run->cp)) {
            rc = save(t, run);
            if (rc < 0)
                return rc;
        }
    }
    return rc < 0 ? dev_list_fail(run->cp->c, &run->cp->from, rc) : 0;
}

static int lane_fn(struct rt_task *t, void *arg, unsigned idx)
{
    struct run *run = arg;
    struct lane *l = &run->lane[idx];
    int rc = -ENOMEM;

    l->x = xfer_new(XFER_LANE_BYTES);
    l->compare = malloc(XFER_LANE_BYTES);
    if (l->x != NULL && l->compare != NULL)
        rc = lane_loop(t, run, l);
    xfer_free(l->x);
    free(l->compare);
    return rc;
}

int cp_keys(struct rt_task *t, struct cp *cp)
{
    CLEANUP(free_p) struct run *run = calloc(1, sizeof(*run));
    CLEANUP(free_p) struct lane *lane = calloc(cp->jobs, sizeof(*lane));
    CLEANUP(keys_free_p) struct keys *keys = NULL;
    int rc;

    if (run == NULL || lane == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < cp->jobs; i++)
        lane[i].seq = UINT64_MAX;
    keys = keys_new(cp->from.kv_chan, bytes_make(NULL, 0),
                    cp->state.after.len > 0 ? &cp->state.after : NULL);
    if (keys == NULL)
        return -ENOMEM;
    run->cp = cp;
    run->keys = keys;
    run->lane = lane;
    run->handed = cp->state.after;
    cp->state.saved_ns = rt_now();
    cli_progress_start(&cp->progress, cp->c, "cp", 0);
    rc = lanes_run(t, cp->jobs, lane_fn, run);
    rt_task_shield(t, true);
    if (rc < 0 && cp->state.path != NULL)
        save(t, run); /* where the next run goes on; its failure has been told */
    rt_task_shield(t, false);
    if (rc < 0)
        return rc;
    rc = kv_flush(t, cp->to.kv_chan);
    return rc < 0 ? cli_fail(cp->c, rc, "cannot flush %s: %s", cp->to.uri, err_str(rc)) : 0;
}
