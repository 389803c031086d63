/* SPDX-License-Identifier: Apache-2.0 */
#include "kv.h"
#include "own.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define PAUSE_NS (3 * NS_PER_S)
#define PAUSE_ONE_IN 1500u /* operations */
#define ERRORS_MAX 12      /* then a worker of a faulty run gives up */

struct kv_present kv_present[KVM_KEYS];

struct worker {
    struct rt_req done;
    bool started; /* else there was no memory for it */
    struct kv_work *w;
    struct kv_dev *dev;
    struct kv_chan *chan;
    struct dice dice;
    unsigned idx, errors;
    uint8_t *buf, *got;
    struct kv_req req;
    struct kv_snap *snap;
    struct kvm_state *snap_state; /* of all keys; only its own are looked at */
};

static uint32_t next_id;

void kv_work_reset(bool acks_are_durable)
{
    kvm_reset(acks_are_durable);
    next_id = 0;
    memset(kv_present, 0, sizeof(kv_present));
}

static int bad(struct worker *w, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (w->w->why[0] == '\0')
        vsnprintf(w->w->why, sizeof(w->w->why), fmt, ap);
    va_end(ap);
    return -EILSEQ;
}

static uint64_t below(struct worker *w, uint64_t n)
{
    return dice_below(&w->dice, n);
}

static unsigned own_key(struct worker *w)
{
    unsigned k = (unsigned)below(w, KVM_KEYS / KV_WORKERS);

    if (below(w, 2) == 0) /* some are changed more often than others */
        k /= 3;
    return k * KV_WORKERS + w->idx;
}

static uint32_t any_len(struct worker *w)
{
    static const uint32_t edges[] = {0,    1,    15,   16,    100,   495,   512,   1000,
                                     4000, 4096, 8192, 16384, 32767, 32768, 32769, 65536};

    switch (below(w, 32)) {
    case 0:
    case 1:
    case 2:
        return edges[below(w, ARRAY_LEN(edges))];
    case 3:
        return (uint32_t)(32769 + below(w, 70000));
    case 4:
    case 5:
        return 4096;
    case 6:
        return (uint32_t)below(w, 32768);
    default:
        return (uint32_t)below(w, below(w, 4) == 0 ? 3000 : 400);
    }
}

static uint32_t some_len(struct worker *w)
{
    uint32_t len = w->w->churn ? (uint32_t)(12000 + below(w, 20000)) : any_len(w);

    return (uint32_t)MIN(len, kv_info(w->dev)->val_max);
}

static int run(struct rt_task *t, struct worker *w)
{
    w->w->done++;
    rt_req_init_task(&w->req.req, t);
    kv_submit(w->chan, &w->req);
    return rt_wait(t, &w->req.req);
}

static void prepare(struct worker *w, enum kv_op op, struct bytes key)
{
    w->req = (struct kv_req){.op = (uint8_t)op, .key = key};
}

/* Whether this answer is one that a store in trouble may give. */
static bool is_trouble(struct worker *w, int rc)
{
    if (!w->w->faulty)
        return false;
    if (w->w->remote && (rc == -ECONNRESET || rc == -ECANCELED || rc == -ETIMEDOUT ||
                         rc == -ECONNREFUSED || rc == -ENOTCONN || rc == -EPIPE))
        return true;
    return rc == -EIO || rc == -ENOMEM || rc == -EROFS || rc == -ENODEV || rc == -ENOSPC ||
           rc == -EBADMSG;
}

static unsigned errors_max(const struct worker *w)
{
    return w->w->errors_max != 0 ? w->w->errors_max : ERRORS_MAX;
}

/* Takes in what a change answered. */
static int ended(struct worker *w, uint32_t op, unsigned n, const unsigned *key,
                 const struct kvm_state *to, int rc, const char *what)
{
    if (rc == 0) {
        kvm_end(op, KVM_DONE);
        for (unsigned i = 0; i < n; i++)
            kv_present[key[i]] = (struct kv_present){.state = to[i]};
        return 0;
    }
    if (rc == -ENOSPC) {
        w->w->refused++;
        kvm_end(op, KVM_NOT_DONE);
        return w->w->faulty && ++w->errors > errors_max(w) ? -ECANCELED : 0;
    }
    if (!is_trouble(w, rc))
        return bad(w, "%s of key %u (%s) answered %d (%s)", what, key[0],
                   kvm_text(&kv_present[key[0]].state), rc, strerror(-rc));
    w->w->errors++;
    kvm_end(op, KVM_UNKNOWN);
    for (unsigned i = 0; i < n; i++)
        kv_present[key[i]].unknown = true;
    return ++w->errors > errors_max(w) ? -ECANCELED : 0;
}

/* --- changes ---------------------------------------------------------------------------------- */

static struct kvm_state new_state(uint32_t len)
{
    return (struct kvm_state){.there = true, .n = 1, .piece = {{++next_id, len}}};
}

/* What a store adds to what is there, or replaces it with. */
static struct kvm_state stored(struct worker *w, unsigned k, uint32_t *flags, uint32_t len)
{
    const struct kvm_state *old = &kv_present[k].state;
    struct kvm_state to = new_state(len);

    if (kv_present[k].unknown)
        return to;
    if (below(w, 8) == 0)
        *flags |= old->there ? KV_F_MUST_EXIST : KV_F_MUST_NOT_EXIST;
    if (below(w, 8) == 0 && (kv_info(w->dev)->caps & KV_CAP_APPEND) != 0 && old->there &&
        old->n < KVM_PIECES && kvm_len(old) + len < MIN(KV_VALUE_MAX, kv_info(w->dev)->val_max)) {
        *flags |= KV_F_APPEND;
        to = *old;
        to.piece[to.n++] = (struct kvm_piece){next_id, len};
    }
    return to;
}

static int do_store(struct rt_task *t, struct worker *w)
{
    unsigned k = own_key(w);
    uint32_t flags = 0, len = some_len(w);
    struct kvm_state to = stored(w, k, &flags, len);
    struct iovec iov[2] = {{w->buf, len / 3}, {w->buf + len / 3, len - len / 3}};
    uint32_t op;

    kvm_fill(w->buf, next_id, 0, len);
    op = kvm_issue(1, &k, &to);
    prepare(w, KV_STORE, kvm_key(k));
    w->req.flags = flags;
    w->req.iov = iov;
    w->req.iovcnt = 2;
    w->req.len = len;
    return ended(w, op, 1, &k, &to, run(t, w), (flags & KV_F_APPEND) != 0 ? "append" : "store");
}

static int do_delete(struct rt_task *t, struct worker *w)
{
    unsigned k = own_key(w);
    struct kvm_state to = {.there = false};
    bool there = kv_present[k].state.there, unknown = kv_present[k].unknown;
    uint32_t op = kvm_issue(1, &k, &to);
    int rc;

    prepare(w, KV_DELETE, kvm_key(k));
    rc = run(t, w);
    if (rc == -ENOENT && (!there || unknown)) {
        kvm_end(op, KVM_NOT_DONE);
        return 0;
    }
    if (rc == 0 && !there && !unknown)
        return bad(w, "delete of key %u, which is not there, answered 0", k);
    return ended(w, op, 1, &k, &to, rc, "delete");
}

static int do_batch(struct rt_task *t, struct worker *w)
{
    struct kv_batch_item item[KVM_BATCH_MAX];
    struct kvm_state to[KVM_BATCH_MAX];
    unsigned key[KVM_BATCH_MAX], n = 0, want = 2 + (unsigned)below(w, KVM_BATCH_MAX - 1);
    uint8_t *at = w->buf;
    bool huge = !w->w->remote && below(w, 24) == 0; /* more than a segment: values become chunks */
    uint32_t op;

    if ((kv_info(w->dev)->caps & KV_CAP_BATCH) == 0)
        return 0;
    for (unsigned i = 0; i < want; i++) {
        uint32_t below_len = huge ? KV_VALUE_MAX / KVM_BATCH_MAX : below(w, 4) == 0 ? 5000 : 300;
        unsigned k = own_key(w), len = (unsigned)below(w, below_len);
        bool twice = false;

        for (unsigned j = 0; j < n; j++)
            twice |= key[j] == k;
        if (twice)
            continue;
        key[n] = k;
        item[n] = (struct kv_batch_item){.key = kvm_key(k), .is_delete = below(w, 4) == 0};
        to[n] = item[n].is_delete ? (struct kvm_state){.there = false} : new_state(len);
        if (!item[n].is_delete) {
            kvm_fill(at, next_id, 0, len);
            item[n].val = bytes_make(at, len);
            at += len;
        }
        n++;
    }
    op = kvm_issue(n, key, to);
    prepare(w, KV_BATCH, bytes_make("", 0));
    w->req.batch = item;
    w->req.nbatch = n;
    return ended(w, op, n, key, to, run(t, w), "batch");
}

static int do_stream(struct rt_task *t, struct worker *w)
{
    unsigned k = own_key(w);
    uint32_t flags = 0, len = below(w, 3) == 0 ? some_len(w) : (uint32_t)(20000 + below(w, 200000));
    struct kvm_state to = stored(w, k, &flags, len);
    uint32_t id = next_id, op;
    struct kv_stream *stream;
    struct iovec iov = {.iov_base = w->buf};
    bool unknown = (kv_info(w->dev)->caps & KV_CAP_UNKNOWN_LEN) != 0 && below(w, 2) == 0;
    bool commit = below(w, 6) != 0;
    int rc, write_rc = 0;

    prepare(w, KV_STORE_OPEN, kvm_key(k));
    w->req.flags = flags;
    w->req.len = unknown ? KV_LEN_UNKNOWN : len;
    rc = run(t, w);
    if (rc == -ENOSPC || is_trouble(w, rc)) {
        w->w->refused++;
        return ++w->errors > errors_max(w) && w->w->faulty ? -ECANCELED : 0;
    }
    if (rc == -ENOTSUP)
        return 0;
    if (rc < 0)
        return bad(w, "opening a stream to key %u answered %d", k, rc);
    stream = w->req.stream;
    for (uint32_t off = 0; off < len && write_rc == 0; off += (uint32_t)iov.iov_len) {
        uint64_t piece = 1 + below(w, 60000);

        iov.iov_len = MIN(len - off, piece);
        kvm_fill(w->buf, id, off, iov.iov_len);
        prepare(w, KV_WRITE, bytes_make("", 0));
        w->req.stream = stream;
        w->req.iov = &iov;
        w->req.iovcnt = 1;
        w->req.len = iov.iov_len;
        write_rc = run(t, w);
    }
    if (write_rc < 0 && write_rc != -ENOSPC && !is_trouble(w, write_rc))
        bad(w, "a write to a stream answered %d", write_rc);
    if (write_rc < 0)
        commit = false;
    prepare(w, commit ? KV_COMMIT : KV_ABORT, bytes_make("", 0));
    w->req.stream = stream;
    if (!commit) {
        rc = run(t, w);
        if (rc < 0 && !is_trouble(w, rc))
            bad(w, "abort answered %d", rc);
        return w->w->why[0] != '\0' ? -EILSEQ : 0;
    }
    op = kvm_issue(1, &k, &to);
    return ended(w, op, 1, &k, &to, run(t, w), "commit");
}

static int do_flush(struct rt_task *t, struct worker *w)
{
    uint32_t op = kvm_issue_flush();
    int rc;

    prepare(w, KV_FLUSH, bytes_make("", 0));
    rc = run(t, w);
    if (rc == 0)
        kvm_end(op, KVM_DONE);
    else if (is_trouble(w, rc))
        w->errors++;
    else
        return bad(w, "flush answered %d", rc);
    return 0;
}

/* --- looks ------------------------------------------------------------------------------------ */

static int compare(struct worker *w, unsigned k, const struct kvm_state *want, int rc, uint64_t off)
{
    uint64_t len = kvm_len(want);

    if (w->req.snap != NULL && rc == -ESTALE)
        return 0; /* it kept too much, and was let go of */
    if (is_trouble(w, rc)) {
        w->w->errors++;
        return ++w->errors > errors_max(w) ? -ECANCELED : 0;
    }
    if (rc != (want->there ? 0 : -ENOENT))
        return bad(w, "key %u%s is %s; retrieve answered %d", k,
                   w->req.snap != NULL ? " of a snapshot" : "", kvm_text(want), rc);
    if (rc < 0)
        return 0;
    if (w->req.value_len != len || !kvm_is(want, w->got, off, w->req.moved) ||
        w->req.moved != (off < len ? MIN(len - off, w->req.len) : 0))
        return bad(w, "key %u%s is %s; retrieve from %llu gave %llu of %llu bytes of another value",
                   k, w->req.snap != NULL ? " of a snapshot" : "", kvm_text(want),
                   (unsigned long long)off, (unsigned long long)w->req.moved,
                   (unsigned long long)w->req.value_len);
    return 0;
}

static int do_retrieve(struct rt_task *t, struct worker *w)
{
    unsigned k = own_key(w);
    const struct kvm_state *want = &kv_present[k].state;
    struct iovec iov = {.iov_base = w->got, .iov_len = KV_VALUE_MAX};
    uint64_t off;

    prepare(w, KV_RETRIEVE, kvm_key(k));
    if (w->snap != NULL && below(w, 2) == 0) {
        w->req.snap = w->snap;
        want = &w->snap_state[k];
    } else if (kv_present[k].unknown) {
        return 0;
    }
    off = below(w, 4) == 0 ? below(w, kvm_len(want) + 2) : 0;
    w->req.off = off;
    w->req.iov = &iov;
    w->req.iovcnt = 1;
    w->req.len = iov.iov_len = below(w, 4) == 0 ? 1 + below(w, 5000) : KV_VALUE_MAX;
    return compare(w, k, want, run(t, w), off);
}

static int do_read_stream(struct rt_task *t, struct worker *w)
{
    unsigned k = own_key(w);
    const struct kvm_state want = kv_present[k].state;
    struct iovec iov = {.iov_base = w->got, .iov_len = 1 + below(w, 100000)};
    struct kv_stream *stream;
    uint64_t off = 0;
    int rc;

    if (kv_present[k].unknown)
        return 0;
    prepare(w, KV_RETRIEVE_OPEN, kvm_key(k));
    rc = run(t, w);
    if (rc == -ENOTSUP)
        return 0;
    if (is_trouble(w, rc))
        return ++w->errors > errors_max(w) ? -ECANCELED : 0;
    if (rc != (want.there ? 0 : -ENOENT))
        return bad(w, "key %u is %s; opening it to read answered %d", k, kvm_text(&want), rc);
    if (rc < 0)
        return 0;
    stream = w->req.stream;
    for (rc = 0; rc == 0 && off < kvm_len(&want); off += iov.iov_len) {
        prepare(w, KV_READ, bytes_make("", 0));
        w->req.stream = stream;
        w->req.off = off;
        w->req.iov = &iov;
        w->req.iovcnt = 1;
        w->req.len = iov.iov_len;
        rc = run(t, w);
        w->req.value_len = kvm_len(&want);
        rc = compare(w, k, &want, rc, off);
    }
    prepare(w, KV_READ_CLOSE, bytes_make("", 0));
    w->req.stream = stream;
    run(t, w);
    return rc;
}

/* A page of a list: of the worker's own keys exactly those that are there. */
static int do_list(struct rt_task *t, struct worker *w)
{
    unsigned from = (unsigned)below(w, KVM_KEYS), k;
    struct iovec iov = {.iov_base = w->got, .iov_len = 300 + below(w, 6000)};
    struct kv_list_iter it;
    struct bytes key;
    bool snap = w->snap != NULL && below(w, 2) == 0;
    int rc;

    if ((kv_info(w->dev)->caps & KV_CAP_ORDERED_LIST) == 0)
        return 0;
    prepare(w, KV_LIST, kvm_key(from));
    w->req.iov = &iov;
    w->req.iovcnt = 1;
    if (snap)
        w->req.snap = w->snap;
    rc = run(t, w);
    if (snap && rc == -ESTALE)
        return 0;
    if (rc < 0)
        return is_trouble(w, rc) ? 0 : bad(w, "list answered %d", rc);
    it = kv_list_begin(w->got, w->req.moved);
    for (k = from; k < KVM_KEYS && kv_list_next(&it, &key);) {
        int found = kvm_key_find(key);

        if (found < (int)k)
            return bad(w, "list from key %u: there is a key that is not ours, or not in order", k);
        for (; k <= (unsigned)found; k++) {
            const struct kvm_state *want = snap ? &w->snap_state[k] : &kv_present[k].state;

            if (k % KV_WORKERS == w->idx && (snap || !kv_present[k].unknown) &&
                want->there != ((int)k == found))
                return bad(w, "list: key %u is %s and %s", k, kvm_text(want),
                           (int)k == found ? "listed" : "not listed");
        }
    }
    return 0;
}

static int do_snap(struct rt_task *t, struct worker *w)
{
    int rc;

    if ((kv_info(w->dev)->caps & KV_CAP_SNAPSHOT) == 0)
        return 0;
    if (w->snap != NULL) {
        prepare(w, KV_SNAP_CLOSE, bytes_make("", 0));
        w->req.snap = take_ptr(&w->snap);
        rc = run(t, w);
        return rc < 0 ? bad(w, "closing a snapshot answered %d", rc) : 0;
    }
    for (unsigned k = w->idx; k < KVM_KEYS; k += KV_WORKERS)
        if (kv_present[k].unknown)
            return 0;
    prepare(w, KV_SNAP_OPEN, bytes_make("", 0));
    rc = run(t, w);
    if (rc < 0)
        return is_trouble(w, rc) ? 0 : bad(w, "a snapshot answered %d", rc);
    w->snap = w->req.snap;
    for (unsigned k = 0; k < KVM_KEYS; k++)
        w->snap_state[k] = kv_present[k].state;
    return 0;
}

/* --- workers ---------------------------------------------------------------------------------- */

static int step(struct rt_task *t, struct worker *w)
{
    if (below(w, 16) < w->w->reads_in_16)
        return below(w, 8) == 0 ? do_list(t, w) : do_retrieve(t, w);
    if (w->w->churn && below(w, 8) != 0)
        return do_store(t, w);
    switch (below(w, 64)) {
    case 0 ... 6:
        return do_delete(t, w);
    case 7 ... 14:
        return do_batch(t, w);
    case 15 ... 16:
        return do_stream(t, w);
    case 17:
        return do_flush(t, w);
    case 18 ... 20:
        return do_retrieve(t, w);
    case 21:
        return do_list(t, w);
    case 22:
        return do_read_stream(t, w);
    case 23:
        return below(w, 4) == 0 ? do_snap(t, w) : 0;
    default:
        return do_store(t, w);
    }
}

/* All at once do nothing for so long that the store sees that, and makes itself small. */
static int pause(struct rt_task *t, struct worker *w)
{
    if (w->w->pauses && below(w, PAUSE_ONE_IN) == 0)
        w->w->paused_until = rt_now() + PAUSE_NS;
    return rt_now() < w->w->paused_until ? rt_sleep(t, w->w->paused_until - rt_now()) : 0;
}

static int worker(struct rt_task *t, void *arg)
{
    struct worker *w = arg;
    int rc = kv_chan_get(t, w->dev, &w->chan);

    if (rc < 0)
        return is_trouble(w, rc) ? 0 : bad(w, "no channel: %d", rc);
    w->buf = own_alloc(KV_VALUE_MAX);
    w->got = own_alloc(KV_VALUE_MAX);
    w->snap_state = own_alloc(KVM_KEYS * sizeof(*w->snap_state));
    must(w->buf != NULL && w->got != NULL && w->snap_state != NULL);
    for (unsigned i = 0; rc == 0 && i < w->w->ops; i++) {
        rc = pause(t, w);
        rc = rc == 0 ? step(t, w) : rc;
    }
    if (w->snap != NULL)
        do_snap(t, w);
    kv_chan_put(t, w->chan);
    own_free(w->buf);
    own_free(w->got);
    own_free(w->snap_state);
    return rc == -ECANCELED ? 0 : rc;
}

int kv_work(struct rt_task *t, struct kv_dev *dev, struct kv_work *work)
{
    struct worker *w = own_alloc(KV_WORKERS * sizeof(*w));
    int rc = 0;

    must(w != NULL);
    for (unsigned i = 0; i < KV_WORKERS; i++) {
        w[i] =
            (struct worker){.w = work, .dev = dev, .dice = dice_of(work->seed, 200 + i), .idx = i};
        rt_req_init_task(&w[i].done, t);
        w[i].started = rt_task_start("worker", worker, &w[i], &w[i].done, NULL) == 0;
    }
    for (unsigned i = 0; i < KV_WORKERS; i++) {
        int one = w[i].started ? rt_wait(t, &w[i].done) : 0;

        rc = rc == 0 ? one : rc;
    }
    own_free(w);
    return rc;
}
