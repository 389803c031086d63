/* SPDX-License-Identifier: Apache-2.0 */
/*
 * fault: a filter that fails, delays, or hides what another KV device can do; for tests. What a
 * filter is: a driver whose parameter is another device, with a request of its own for each that
 * goes through.
 */
#include "kv/kv.h"

#define SUBS 64u /* requests under way per channel; others wait in line */

struct fault {
    struct kv_dev *base;
    double store_error;
    double retrieve_error;
    uint64_t delay_ns;
    uint64_t nth;
    uint64_t seed;
    bool hides_version;
};

struct sub {
    struct kv_req req; /* of the base device */
    struct kv_req *up; /* whose way it goes; NULL: free */
    struct rt_timer timer;
    int fail_rc; /* what the user gets instead of the result */
    bool passed; /* the base device has it */
    struct list link;
};

struct fault_chan {
    struct fault *f;
    struct kv_chan *base;
    uint64_t rng;
    uint64_t count;
    bool draining;
    struct list free;
    struct list waiting; /* of kv_req, by waiter_of() */
    struct sub subs[SUBS];
};

static struct list *waiter_of(struct kv_req *req)
{
    return (struct list *)req->driver;
}

/* xorshift64*: a share between 0 and 1. */
static double draw(struct fault_chan *fc)
{
    fc->rng ^= fc->rng >> 12;
    fc->rng ^= fc->rng << 25;
    fc->rng ^= fc->rng >> 27;
    return (double)((fc->rng * 2685821657736338717ull) >> 11) / 9007199254740992.0;
}

static bool is_end(uint8_t op)
{
    return op == KV_ABORT || op == KV_READ_CLOSE || op == KV_SNAP_CLOSE;
}

static bool should_fail(struct fault_chan *fc, uint8_t op)
{
    bool reads = op == KV_RETRIEVE || op == KV_STAT || op == KV_LIST || op == KV_RETRIEVE_OPEN ||
                 op == KV_READ;
    double share = reads ? fc->f->retrieve_error : fc->f->store_error;

    if (is_end(op) || op == KV_SNAP_OPEN || op == KV_FLUSH)
        return false;
    fc->count++;
    if (fc->f->nth > 0 && fc->count % fc->f->nth == 0)
        return true;
    return share > 0 && draw(fc) < share;
}

static void begin(struct fault_chan *fc, struct sub *s, struct kv_req *up);

/* Those in line get what is free. What ends at once inside does not come here again. */
static void drain(struct fault_chan *fc)
{
    if (fc->draining)
        return;
    fc->draining = true;
    while (!list_empty(&fc->waiting) && !list_empty(&fc->free)) {
        char *next = (char *)list_pop(&fc->waiting);

        begin(fc, list_pop_entry(&fc->free, struct sub, link),
              (struct kv_req *)(next - offsetof(struct kv_req, driver)));
    }
    fc->draining = false;
}

static void sub_end(struct fault_chan *fc, struct sub *s, int rc)
{
    struct kv_req *up = s->up;

    s->up = NULL;
    list_add_head(&fc->free, &s->link);
    kv_complete(up, rc);
    drain(fc);
}

static void base_done(struct rt_req *rreq)
{
    struct sub *s = container_of(rreq, struct sub, req.req);
    struct fault_chan *fc = kv_driver_chan(s->up->chan);
    struct kv_req *up = s->up;

    up->stream = s->req.stream;
    up->snap = s->req.snap;
    up->version = fc->f->hides_version ? 0 : s->req.version;
    up->value_len = s->req.value_len;
    up->moved = s->req.moved;
    up->nkeys = s->req.nkeys;
    up->more = s->req.more;
    sub_end(fc, s, s->fail_rc < 0 ? s->fail_rc : s->req.req.rc);
}

static void pass(struct fault_chan *fc, struct sub *s)
{
    const struct kv_req *up = s->up;
    struct kv_req *req = &s->req;

    rt_req_init(&req->req, base_done);
    req->req.trace_id = up->req.trace_id;
    req->op = up->op;
    req->flags = up->flags;
    req->iov = up->iov;
    req->iovcnt = up->iovcnt;
    req->key = up->key;
    req->prefix = up->prefix;
    req->off = up->off;
    req->len = up->len;
    req->version = up->version;
    req->stream = up->stream;
    req->snap = up->snap;
    req->batch = up->batch;
    req->nbatch = up->nbatch;
    if (s->fail_rc < 0 && req->op == KV_COMMIT)
        req->op = KV_ABORT; /* the stream has to end, with or without us */
    s->passed = true;
    kv_submit(fc->base, req);
}

/* A store that fails has happened or not, which is what -EIO means. An opened stream that nobody
 * hears of would stay, so opening fails before. */
static void proceed(struct fault_chan *fc, struct sub *s)
{
    bool late = s->up->op == KV_STORE || s->up->op == KV_DELETE || s->up->op == KV_COMMIT;

    if (s->fail_rc < 0 && !(late && (s->up->op == KV_COMMIT || draw(fc) < 0.5)))
        sub_end(fc, s, s->fail_rc);
    else
        pass(fc, s);
}

static void delay_over(struct rt_timer *timer)
{
    struct sub *s = container_of(timer, struct sub, timer);

    proceed(kv_driver_chan(s->up->chan), s);
}

static void begin(struct fault_chan *fc, struct sub *s, struct kv_req *up)
{
    s->up = up;
    s->passed = false;
    s->fail_rc = should_fail(fc, up->op) ? -EIO : 0;
    if (fc->f->delay_ns == 0) {
        proceed(fc, s);
        return;
    }
    s->timer.fn = delay_over;
    rt_timer_start(&s->timer, rt_now() + fc->f->delay_ns);
}

static void fault_submit(struct kv_chan *chan, struct kv_req *req)
{
    struct fault_chan *fc = kv_driver_chan(chan);
    struct sub *s = list_pop_entry(&fc->free, struct sub, link);

    if (s != NULL) {
        begin(fc, s, req);
        return;
    }
    list_init(waiter_of(req));
    list_add_tail(&fc->waiting, waiter_of(req));
}

static void fault_cancel(struct kv_chan *chan, struct kv_req *req)
{
    struct fault_chan *fc = kv_driver_chan(chan);

    for (unsigned i = 0; i < SUBS; i++) {
        struct sub *s = &fc->subs[i];

        if (s->up != req)
            continue;
        if (s->passed) {
            rt_req_cancel(&s->req.req);
        } else if (!is_end(req->op) && req->op != KV_COMMIT) {
            rt_timer_stop(&s->timer);
            sub_end(fc, s, -ECANCELED);
        }
        return;
    }
    if (is_end(req->op) || req->op == KV_COMMIT)
        return;
    list_del(waiter_of(req));
    kv_complete(req, -ECANCELED);
}

/* --- the driver ------------------------------------------------------------------------------- */

static uint32_t hidden_caps(const char *text)
{
    static const struct {
        const char *name;
        uint32_t cap;
    } names[] = {
        {"range", KV_CAP_RANGE},         {"version", KV_CAP_VERSION},    {"append", KV_CAP_APPEND},
        {"unknown", KV_CAP_UNKNOWN_LEN}, {"order", KV_CAP_ORDERED_LIST}, {"batch", KV_CAP_BATCH},
        {"snapshot", KV_CAP_SNAPSHOT},
    };
    uint32_t caps = 0;

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (strstr(text, names[i].name) != NULL || strcmp(text, "all") == 0)
            caps |= names[i].cap;
    }
    return caps;
}

static int fault_open(struct rt_task *t, struct kv_dev *dev, const char *path,
                      const struct param_values *params, struct kv_info *info, struct err *why)
{
    struct fault *f = kv_driver_dev(dev);
    int rc = kv_open(t, param_str(params, "base"), &f->base, why);

    if (rc < 0)
        return rc;
    f->store_error = param_f64(params, "store_error");
    f->retrieve_error = param_f64(params, "retrieve_error");
    f->delay_ns = param_u64(params, "delay");
    f->nth = param_u64(params, "nth");
    f->seed = param_u64(params, "seed");
    *info = *kv_info(f->base);
    memset(info->uuid, 0, sizeof(info->uuid));
    if (param_given(params, "hide"))
        info->caps &= ~hidden_caps(param_str(params, "hide"));
    f->hides_version = (info->caps & KV_CAP_VERSION) == 0;
    return 0;
}

static void fault_close(struct rt_task *t, struct kv_dev *dev)
{
    kv_close(t, ((struct fault *)kv_driver_dev(dev))->base);
}

static int fault_chan_open(struct rt_task *t, struct kv_dev *dev, struct kv_chan *chan)
{
    struct fault_chan *fc = kv_driver_chan(chan);

    fc->f = kv_driver_dev(dev);
    fc->rng = (fc->f->seed + rt_index(rt_self())) * 2 + 1;
    list_init(&fc->free);
    list_init(&fc->waiting);
    for (unsigned i = 0; i < SUBS; i++)
        list_add_tail(&fc->free, &fc->subs[i].link);
    return kv_chan_get(t, fc->f->base, &fc->base);
}

static void fault_chan_close(struct rt_task *t, struct kv_chan *chan)
{
    kv_chan_put(t, ((struct fault_chan *)kv_driver_chan(chan))->base);
}

static int fault_usage(struct rt_task *t, struct kv_dev *dev, uint64_t *out_used,
                       uint64_t *out_keys)
{
    return kv_usage(t, ((struct fault *)kv_driver_dev(dev))->base, out_used, out_keys);
}

static const struct param fault_params[] = {
    {"base", PARAM_STR, NULL, true, "URI of the device behind, percent-encoded"},
    {"seed", PARAM_U64, "1", false, "begins the sequence of chances"},
    {"store_error", PARAM_F64, "0", false,
     "share of stores and deletes that fail with an I/O error"},
    {"retrieve_error", PARAM_F64, "0", false, "share of reads and lists that fail likewise"},
    {"delay", PARAM_TIME, "0ms", false, "how long each request waits before it goes on"},
    {"nth", PARAM_U64, "0", false, "each so-manieth request of a reactor fails"},
    {"hide", PARAM_STR, NULL, false,
     "capabilities not to show: range,version,append,unknown,order,batch,snapshot or all"},
    {0},
};

const struct kv_driver kv_fault_driver = {
    .name = "fault",
    .help = "another KV device with errors, delays and missing capabilities, for tests",
    .params = fault_params,
    .dev_bytes = sizeof(struct fault),
    .chan_bytes = sizeof(struct fault_chan),
    .open = fault_open,
    .close = fault_close,
    .chan_open = fault_chan_open,
    .chan_close = fault_chan_close,
    .submit = fault_submit,
    .cancel = fault_cancel,
    .usage = fault_usage,
};
