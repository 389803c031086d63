/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A device that goes wrong as told: passes requests on to its base, but late, never, or not, by
 * chance under a seed or from the n-th on. It can also hide what its base is able to do, so that
 * the layer has to emulate it. The same seed and the same order of requests give the same faults.
 */
#include "blk/filter.h"

enum fault_kind { PASS, FAIL, TORN, LOSE, HANG };

struct fault_dev {
    struct blk_filter f; /* first */
    double error[BLK_OPS];
    double torn, lost, hang;
    uint64_t delay_ns;
    uint64_t fail_at, fail_from; /* counted from 1 over all requests; 0: never */
    uint64_t count;              /* atomic */
    uint64_t seed;
};

struct fault_chan {
    struct blk_filter_chan f; /* first */
    uint64_t random;
};

/* In blk_filter_req.user. */
struct fault_req {
    struct rt_timer timer;
    enum fault_kind kind;
    struct iovec half[4];
};

static const struct param fault_params[] = {
    {"base", PARAM_STR, NULL, true, "URI of the other device, percent-encoded"},
    {"seed", PARAM_U64, "1", false, "of all that happens by chance"},
    {"read_error", PARAM_F64, "0", false, "share of reads and compares that fail"},
    {"write_error", PARAM_F64, "0", false, "share of writes, zeroes and unmaps that fail, undone"},
    {"flush_error", PARAM_F64, "0", false, "share of flushes that fail"},
    {"torn", PARAM_F64, "0", false, "share of writes that fail half done"},
    {"lost", PARAM_F64, "0", false, "share of writes that succeed and are not done"},
    {"hang", PARAM_F64, "0", false, "share of requests that end only when cancelled"},
    {"delay", PARAM_TIME, "0", false, "what each request waits first"},
    {"fail_at", PARAM_U64, "0", false, "this request fails, counted from 1"},
    {"fail_from", PARAM_U64, "0", false, "this request and all after it fail"},
    {"hide", PARAM_BOOL, "no", false, "hides zeroes, compare, compare-and-write and FUA"},
    {"max_io", PARAM_SIZE, "0", false, "takes so many bytes at a time; 0: any"},
    {"align", PARAM_SIZE, "1", false, "alignment of memory, up to 4096"},
    {.name = NULL},
};

static struct fault_req *fault_req(struct blk_req *req)
{
    static_assert(sizeof(struct fault_req) <= sizeof(blk_filter_req(req)->user), "room");
    return (struct fault_req *)blk_filter_req(req)->user;
}

static int fault_open(struct rt_task *t, struct blk_dev *dev, const char *path,
                      const struct param_values *params, struct blk_info *info, struct err *why)
{
    struct fault_dev *d = blk_driver_dev(dev);
    uint64_t align = param_u64(params, "align");
    int rc;

    if (align == 0 || align > 4096 || (align & (align - 1)) != 0)
        return err_set(why, -EINVAL, "fault: align has to be a power of two up to 4096");
    if (param_u64(params, "max_io") > UINT32_MAX)
        return err_set(why, -EINVAL, "fault: max_io has to be less than 4G");
    rc = blk_filter_open(t, dev, param_str(params, "base"), "fault", info, why);
    if (rc < 0)
        return rc;
    d->error[BLK_READ] = d->error[BLK_COMPARE] = param_f64(params, "read_error");
    d->error[BLK_WRITE] = d->error[BLK_WRITE_ZEROES] = d->error[BLK_UNMAP] =
        d->error[BLK_COMPARE_AND_WRITE] = param_f64(params, "write_error");
    d->error[BLK_FLUSH] = param_f64(params, "flush_error");
    d->torn = param_f64(params, "torn");
    d->lost = param_f64(params, "lost");
    d->hang = param_f64(params, "hang");
    d->delay_ns = param_u64(params, "delay");
    d->fail_at = param_u64(params, "fail_at");
    d->fail_from = param_u64(params, "fail_from");
    d->seed = param_u64(params, "seed");
    info->buf_align = (uint32_t)align;
    info->max_io_bytes = (uint32_t)param_u64(params, "max_io");
    info->caps &= ~BLK_CAP_NO_FLUSH;
    if (param_flag(params, "hide")) {
        info->caps &=
            ~(BLK_CAP_FUA | BLK_CAP_WRITE_ZEROES | BLK_CAP_COMPARE | BLK_CAP_COMPARE_AND_WRITE);
        info->caps |= BLK_CAP_VOLATILE_CACHE; /* so that FUA needs its flush */
    }
    return 0;
}

static int fault_chan_open(struct rt_task *t, struct blk_dev *dev, struct blk_chan *chan)
{
    const struct fault_dev *d = blk_driver_dev(dev);
    struct fault_chan *c = blk_driver_chan(chan);

    c->random = d->seed + rt_index(rt_self()) * 0x632be59bd9b4e019u;
    return blk_filter_chan_open(t, dev, chan);
}

static bool by_chance(struct fault_chan *c, double share)
{
    uint64_t z;

    if (share <= 0)
        return false;
    z = c->random += 0x9e3779b97f4a7c15u; /* splitmix64 */
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53 < share;
}

static enum fault_kind choose(struct fault_dev *d, struct fault_chan *c, unsigned op)
{
    uint64_t n = __atomic_add_fetch(&d->count, 1, __ATOMIC_RELAXED);

    if (n == d->fail_at || (d->fail_from != 0 && n >= d->fail_from) || by_chance(c, d->error[op]))
        return FAIL;
    if (by_chance(c, d->hang))
        return HANG;
    if (op == BLK_WRITE && by_chance(c, d->torn))
        return TORN;
    if (op == BLK_WRITE && by_chance(c, d->lost))
        return LOSE;
    return PASS;
}

static void torn_done(struct blk_req *req, int rc)
{
    blk_complete(req, rc < 0 ? rc : -EIO);
}

/* The first half of the blocks, or none when that is hard to describe. */
static void pass_half(struct blk_chan *chan, struct blk_req *req)
{
    struct blk_filter_req *f = blk_filter_req(req);
    struct fault_req *q = fault_req(req);
    size_t len = (size_t)(req->nblocks / 2) * blk_info(blk_chan_dev(chan))->block_bytes;
    int n = iov_slice(req->iov, req->iovcnt, 0, len, q->half, ARRAY_LEN(q->half));

    if (len == 0 || n < 0) {
        blk_complete(req, -EIO);
        return;
    }
    f->nblocks = req->nblocks / 2;
    f->iov = q->half;
    f->iovcnt = (unsigned)n;
    f->done = torn_done;
    blk_filter_pass(chan, req);
}

static void go(struct blk_chan *chan, struct blk_req *req)
{
    switch (fault_req(req)->kind) {
    case PASS:
        blk_filter_pass(chan, req);
        break;
    case TORN:
        pass_half(chan, req);
        break;
    case HANG:
        break; /* until fault_cancel */
    case FAIL:
        blk_complete(req, -EIO);
        break;
    case LOSE:
        blk_complete(req, 0);
        break;
    }
}

static void delay_over(struct rt_timer *timer)
{
    struct fault_req *q = container_of(timer, struct fault_req, timer);
    struct blk_filter_req *f = container_of((void *)q, struct blk_filter_req, user);
    struct blk_req *req = container_of((void *)f, struct blk_req, driver);

    go(req->chan, req);
}

static void fault_submit(struct blk_chan *chan, struct blk_req *req)
{
    struct fault_dev *d = blk_driver_dev(blk_chan_dev(chan));
    struct fault_req *q;

    blk_filter_prepare(req);
    q = fault_req(req);
    *q = (struct fault_req){.kind = choose(d, blk_driver_chan(chan), req->op)};
    if (d->delay_ns == 0) {
        go(chan, req);
        return;
    }
    q->timer.fn = delay_over;
    rt_timer_start(&q->timer, rt_now() + d->delay_ns);
}

static void fault_cancel(struct blk_chan *chan, struct blk_req *req)
{
    rt_timer_stop(&fault_req(req)->timer);
    blk_filter_cancel(chan, req);
}

const struct blk_driver blk_fault_driver = {
    .name = "fault",
    .help = "a device that fails as told, for tests",
    .params = fault_params,
    .dev_bytes = sizeof(struct fault_dev),
    .chan_bytes = sizeof(struct fault_chan),
    .open = fault_open,
    .close = blk_filter_close,
    .chan_open = fault_chan_open,
    .chan_close = blk_filter_chan_close,
    .submit = fault_submit,
    .cancel = fault_cancel,
};
