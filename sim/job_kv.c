/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The KV job: one operation at a time on keys of its own, small values in one request, large ones
 * as streams; several jobs make the concurrency.
 */
#include "sim/job.h"

#include "sim/content.h"

#include "base/bytes.h"
#include "kv/kv.h"

#include <stdio.h>
#include <string.h>

#define SMALL_MAX (64 * KIB) /* stored in one request */
#define PIECE_MAX (96 * KIB) /* of a stream */
#define BUF_BYTES (128 * KIB)

struct user {
    struct sim_job *job;
    struct kv_dev *dev;
    struct kv_chan *chan;
    struct kv_req req;
    struct iovec iov[2];
    uint8_t *buf;
    uint64_t crashes; /* of the server, when the operation began */
};

static int run(struct rt_task *t, struct user *u)
{
    int rc;

    rt_req_init_task(&u->req.req, t);
    kv_submit(u->chan, &u->req);
    rc = rt_wait(t, &u->req.req);
    sim_trace("%s: %s %d", u->job->name, kv_op_name((enum kv_op)u->req.op), rc);
    return rc;
}

static struct bytes key_of(const struct model_key *k)
{
    return bytes_make(k->key, k->len);
}

static void req_init(struct user *u, enum kv_op op, const struct model_key *k)
{
    u->req = (struct kv_req){.op = (uint8_t)op, .iov = u->iov};
    if (k != NULL)
        u->req.key = key_of(k);
}

/* The whole buffer, or its first len bytes, in one or two iovecs. */
static void set_iov(struct user *u, size_t len)
{
    size_t first =
        len > 0 && sim_chance(&u->job->dice, 200000) ? sim_between(&u->job->dice, 0, len) : len;

    u->iov[0] = (struct iovec){.iov_base = u->buf, .iov_len = first};
    u->iov[1] = (struct iovec){.iov_base = u->buf + first, .iov_len = len - first};
    u->req.iovcnt = first < len ? 2 : 1;
    u->req.len = len;
}

/* --- what may be there -------------------------------------------------------------------------
 */

static bool may_be(const struct model_key *k, uint32_t id)
{
    uint32_t ids[MODEL_MAYBE_MAX + 1];
    unsigned n = model_kv_now(k, ids);

    for (unsigned i = 0; i < n; i++) {
        if (ids[i] == id)
            return true;
    }
    return false;
}

/* Before the operation that is under way. */
static bool was_absent(const struct model_key *k)
{
    for (unsigned i = 0; i < k->nmaybe; i++) {
        if (!k->maybe[i].in_flight && k->maybe[i].id == MODEL_ABSENT)
            return true;
    }
    return k->last == MODEL_ABSENT;
}

static bool was_present(const struct model_key *k)
{
    for (unsigned i = 0; i < k->nmaybe; i++) {
        if (!k->maybe[i].in_flight && k->maybe[i].id != MODEL_ABSENT)
            return true;
    }
    return k->last != MODEL_ABSENT;
}

static bool may_be_present(const struct model_key *k)
{
    uint32_t ids[MODEL_MAYBE_MAX + 1];
    unsigned n = model_kv_now(k, ids);

    for (unsigned i = 0; i < n; i++) {
        if (ids[i] != MODEL_ABSENT)
            return true;
    }
    return false;
}

static const char *key_text(const struct model_key *k)
{
    static char text[2 * MODEL_KEY_MAX + 1];

    bytes_to_hex(key_of(k), text);
    return text;
}

__attribute__((noreturn)) static void wrong(const struct user *u, const struct model_key *k,
                                            const char *what)
{
    uint32_t ids[MODEL_MAYBE_MAX + 1];
    unsigned n = model_kv_now(k, ids);
    char text[200] = "";
    size_t at = 0;

    for (unsigned i = 0; i < n && at < sizeof(text); i++)
        at += (size_t)snprintf(text + at, sizeof(text) - at, " %u", ids[i]);
    sim_fail("%s: key %s: %s; it may have values%s (0: none)", u->job->name, key_text(k), what,
             text);
}

static void seen(struct user *u, struct model_key *k, uint32_t id)
{
    if (u->crashes == u->job->kv.crashes)
        model_kv_seen(&u->job->kv, k, id);
}

static void absent(struct user *u, struct model_key *k, const char *what)
{
    u->job->nchecked++;
    if (!may_be(k, MODEL_ABSENT))
        wrong(u, k, what);
    seen(u, k, MODEL_ABSENT);
}

/* The value that has this length and these bytes from `off`; more than one are not alike. */
static uint32_t which(struct user *u, const struct model_key *k, uint64_t value_len, uint64_t off,
                      size_t len)
{
    uint32_t ids[MODEL_MAYBE_MAX + 1];
    unsigned n = model_kv_now(k, ids);

    for (unsigned i = 0; i < n; i++) {
        if (ids[i] != MODEL_ABSENT && model_kv_len(&u->job->kv, ids[i]) == value_len &&
            sim_value_is(u->buf, k->place, ids[i], off, len))
            return ids[i];
    }
    return MODEL_ABSENT;
}

/* --- storing -----------------------------------------------------------------------------------
 */

/* The outcome of a store or delete that answered rc. */
static enum model_outcome outcome_of(struct user *u, const char *what, int rc)
{
    if (rc >= 0)
        return MODEL_DONE;
    if (rc == -ENOENT || rc == -EEXIST)
        return MODEL_NOT_DONE;
    sim_job_failed(u->job, what, rc);
    return rc == -ENOSPC ? MODEL_NOT_DONE : MODEL_UNKNOWN;
}

/* A conditional store has told whether the key was there. */
static void check_condition(struct user *u, struct model_key *k, uint32_t flags, int rc)
{
    if (rc == -ENOENT && (flags & KV_F_MUST_EXIST) == 0)
        wrong(u, k, "an unconditional store says that there is no such key");
    if (rc == -EEXIST && (flags & KV_F_MUST_NOT_EXIST) == 0)
        wrong(u, k, "an unconditional store says that the key is there");
    if (rc == -ENOENT && !was_absent(k))
        wrong(u, k, "must exist, and is said not to");
    if (rc == -EEXIST && !was_present(k))
        wrong(u, k, "must not exist, and is said to");
    if (rc == 0 && (flags & KV_F_MUST_EXIST) != 0 && !was_present(k))
        wrong(u, k, "must exist, does not, and was stored");
    if (rc == 0 && (flags & KV_F_MUST_NOT_EXIST) != 0 && !was_absent(k))
        wrong(u, k, "must not exist, does, and was stored");
}

static uint32_t choose_flags(struct user *u)
{
    uint64_t roll = sim_below(&u->job->dice, 100);

    return roll < 15 ? KV_F_MUST_EXIST : roll < 30 ? KV_F_MUST_NOT_EXIST : 0;
}

static int store_small(struct rt_task *t, struct user *u, struct model_key *k)
{
    uint64_t len = sim_skewed(&u->job->dice, 0, SMALL_MAX);
    uint32_t flags = choose_flags(u), id = model_kv_value(&u->job->kv, len);
    int rc;

    req_init(u, KV_STORE, k);
    sim_value_fill(u->buf, k->place, id, 0, len);
    set_iov(u, len);
    u->req.flags = flags;
    sim_trace("%s: store %s id %u len %llu flags %x", u->job->name, key_text(k), id,
              (unsigned long long)len, flags);
    model_kv_begin(k, id);
    rc = run(t, u);
    check_condition(u, k, flags, rc);
    model_kv_end(k, id, outcome_of(u, "store", rc));
    return rc == -ENOENT || rc == -EEXIST ? 0 : rc;
}

static int stream_end(struct rt_task *t, struct user *u, struct model_key *k, enum kv_op op,
                      struct kv_stream *stream)
{
    req_init(u, op, k);
    u->req.stream = stream;
    return run(t, u);
}

/* Writes the pieces of a value; sometimes not all of them. */
static int stream_write(struct rt_task *t, struct user *u, struct model_key *k, uint32_t id,
                        struct kv_stream *stream, uint64_t len, bool *out_all)
{
    uint64_t off = 0;

    *out_all = false;
    while (off < len) {
        uint64_t n = sim_skewed(&u->job->dice, 1, PIECE_MAX);
        int rc;

        n = MIN(n, len - off);
        if (sim_chance(&u->job->dice, 10000))
            return 0;
        req_init(u, KV_WRITE, k);
        sim_value_fill(u->buf, k->place, id, off, n);
        set_iov(u, n);
        u->req.stream = stream;
        rc = run(t, u);
        if (rc < 0)
            return rc;
        off += n;
        if (sim_chance(&u->job->dice, 20000))
            rt_sleep(t, sim_skewed(&u->job->dice, NS_PER_US, NS_PER_S));
    }
    *out_all = !sim_chance(&u->job->dice, 50000);
    return 0;
}

static int store_stream(struct rt_task *t, struct user *u, struct model_key *k, uint64_t val_max)
{
    uint64_t len = sim_skewed(&u->job->dice, 0, val_max);
    uint32_t flags = choose_flags(u), id = model_kv_value(&u->job->kv, len);
    struct kv_stream *stream;
    bool all;
    int rc;

    req_init(u, KV_STORE_OPEN, k);
    u->req.len = len;
    u->req.flags = flags;
    sim_trace("%s: stream to %s id %u len %llu flags %x", u->job->name, key_text(k), id,
              (unsigned long long)len, flags);
    rc = run(t, u);
    if (rc < 0) {
        check_condition(u, k, flags, rc);
        outcome_of(u, "open a stream", rc);
        return rc == -ENOENT || rc == -EEXIST ? 0 : rc;
    }
    stream = u->req.stream;
    rc = stream_write(t, u, k, id, stream, len, &all);
    if (rc < 0 || !all) {
        /* Whatever the abort answers: nothing may be seen of it. */
        int abort_rc = stream_end(t, u, k, KV_ABORT, stream);

        if (abort_rc < 0 && rc == 0)
            sim_job_failed(u->job, "abort", abort_rc);
        /* The target answers a condition when it likes, also in the middle. */
        if (rc == -ENOENT || rc == -EEXIST) {
            check_condition(u, k, flags, rc);
            return 0;
        }
        if (rc < 0)
            sim_job_failed(u->job, "write to a stream", rc);
        return rc;
    }
    model_kv_begin(k, id);
    rc = stream_end(t, u, k, KV_COMMIT, stream);
    check_condition(u, k, flags, rc);
    model_kv_end(k, id, outcome_of(u, "commit", rc));
    return rc == -ENOENT || rc == -EEXIST ? 0 : rc;
}

static int remove_key(struct rt_task *t, struct user *u, struct model_key *k)
{
    int rc;

    req_init(u, KV_DELETE, k);
    sim_trace("%s: delete %s", u->job->name, key_text(k));
    model_kv_begin(k, MODEL_ABSENT);
    rc = run(t, u);
    if (rc == -ENOENT) {
        model_kv_end(k, MODEL_ABSENT, MODEL_NOT_DONE);
        absent(u, k, "is said not to be there to delete");
        return 0;
    }
    if (rc == 0 && !was_present(k))
        wrong(u, k, "was not there and has been deleted");
    model_kv_end(k, MODEL_ABSENT, outcome_of(u, "delete", rc));
    return rc;
}

/* --- looking -----------------------------------------------------------------------------------
 */

static int look(struct rt_task *t, struct user *u, struct model_key *k)
{
    bool range = (kv_info(u->dev)->caps & KV_CAP_RANGE) != 0;
    uint64_t off =
        range && sim_chance(&u->job->dice, 300000) ? sim_skewed(&u->job->dice, 0, SMALL_MAX) : 0;
    uint32_t id;
    int rc;

    req_init(u, KV_RETRIEVE, k);
    u->req.off = off;
    memset(u->buf, 0xee, BUF_BYTES);
    set_iov(u, sim_chance(&u->job->dice, 300000) ? sim_below(&u->job->dice, BUF_BYTES) + 1
                                                 : BUF_BYTES);
    rc = run(t, u);
    if (rc == -ENOENT) {
        absent(u, k, "is not there");
        return 0;
    }
    if (rc < 0) {
        sim_job_failed(u->job, "retrieve", rc);
        return rc;
    }
    u->job->nchecked++;
    if (u->req.moved != (off < u->req.value_len ? MIN(u->req.len, u->req.value_len - off) : 0))
        wrong(u, k, "was retrieved in part");
    id = which(u, k, u->req.value_len, off, u->req.moved);
    if (id == MODEL_ABSENT)
        wrong(u, k, "has a value that it should not have, or a mix");
    seen(u, k, id);
    return 0;
}

/* Reads a value as a stream from begin to end: all of one version. */
static int look_stream(struct rt_task *t, struct user *u, struct model_key *k)
{
    uint32_t first_id = MODEL_ABSENT;
    struct kv_stream *stream;
    uint64_t len, off = 0;
    int rc, close_rc;

    req_init(u, KV_RETRIEVE_OPEN, k);
    rc = run(t, u);
    if (rc == -ENOENT) {
        absent(u, k, "is not there to read");
        return 0;
    }
    if (rc < 0) {
        sim_job_failed(u->job, "open a value", rc);
        return rc;
    }
    stream = u->req.stream;
    len = u->req.value_len;
    while (off < len && !sim_chance(&u->job->dice, 20000)) {
        uint64_t want = sim_skewed(&u->job->dice, 8, PIECE_MAX);

        req_init(u, KV_READ, k);
        set_iov(u, want);
        u->req.stream = stream;
        u->req.off = off;
        rc = run(t, u);
        if (rc < 0)
            break;
        if (u->req.moved != MIN(want, len - off))
            wrong(u, k, "was read in part");
        if (off == 0)
            first_id = which(u, k, len, 0, u->req.moved);
        if (first_id == MODEL_ABSENT ||
            !sim_value_is(u->buf, k->place, first_id, off, u->req.moved))
            wrong(u, k, "has a value that it should not have, or a mix");
        off += u->req.moved;
    }
    close_rc = stream_end(t, u, k, KV_READ_CLOSE, stream);
    if (rc == 0)
        rc = close_rc;
    if (rc < 0)
        sim_job_failed(u->job, "read a value", rc);
    else if (off > 0 && off == len)
        seen(u, k, first_id);
    u->job->nchecked++;
    return rc;
}

static int look_stat(struct rt_task *t, struct user *u, struct model_key *k)
{
    uint32_t ids[MODEL_MAYBE_MAX + 1];
    unsigned n = model_kv_now(k, ids);
    int rc;

    req_init(u, KV_STAT, k);
    rc = run(t, u);
    if (rc == -ENOENT) {
        absent(u, k, "is said not to be there");
        return 0;
    }
    if (rc < 0) {
        sim_job_failed(u->job, "stat", rc);
        return rc;
    }
    u->job->nchecked++;
    for (unsigned i = 0; i < n; i++) {
        if (ids[i] != MODEL_ABSENT && model_kv_len(&u->job->kv, ids[i]) == u->req.value_len)
            return 0;
    }
    wrong(u, k, "has another length");
}

static struct model_key *key_find(struct sim_job *job, struct bytes key)
{
    for (unsigned i = 0; i < job->kv.nkeys; i++) {
        if (bytes_eq(key, key_of(&job->kv.key[i])))
            return &job->kv.key[i];
    }
    return NULL;
}

/* All keys with the job's prefix: each that is there for certain once, none that is not. */
static int look_list(struct rt_task *t, struct user *u)
{
    struct sim_job *job = u->job;
    CLEANUP(free_p) uint8_t *count = calloc(job->kv.nkeys, 1);
    uint8_t start[MODEL_KEY_MAX];
    struct bytes from = bytes_make(job->kv.key[0].key, 1);
    bool more = true;

    must(count != NULL);
    while (more) {
        struct kv_list_iter it;
        struct bytes key = from;
        uint64_t moved;
        int rc;

        req_init(u, KV_LIST, NULL);
        u->req.key = from;
        u->req.prefix = bytes_make(job->kv.key[0].key, 1);
        u->req.flags = from.ptr == start ? KV_F_AFTER : 0;
        u->iov[0] =
            (struct iovec){.iov_base = u->buf, .iov_len = sim_between(&job->dice, 64, 4096)};
        u->req.iovcnt = 1;
        u->req.len = u->iov[0].iov_len;
        rc = run(t, u);
        if (rc < 0) {
            sim_job_failed(job, "list", rc);
            return rc;
        }
        moved = u->req.moved;
        more = u->req.more;
        it = kv_list_begin(u->buf, moved);
        while (kv_list_next(&it, &key)) {
            struct model_key *k = key_find(job, key);

            if (k == NULL)
                sim_fail("%s: a key is listed that nobody has stored", job->name);
            if (count[k - job->kv.key]++ > 0)
                wrong(u, k, "is listed twice");
            if (!may_be_present(k))
                wrong(u, k, "is listed");
        }
        if (more && moved == 0)
            sim_fail("%s: a list goes on without a key", job->name);
        memcpy(start, key.ptr, key.len);
        from = bytes_make(start, key.len);
    }
    for (unsigned i = 0; i < job->kv.nkeys; i++) {
        if (count[i] == 0 && !may_be(&job->kv.key[i], MODEL_ABSENT))
            wrong(u, &job->kv.key[i], "is not listed");
    }
    job->nchecked++;
    return 0;
}

/* --- the job -----------------------------------------------------------------------------------
 */

static void begin(struct user *u)
{
    u->crashes = u->job->kv.crashes;
    sim_job_busy(u->job);
}

static int one(struct rt_task *t, struct user *u)
{
    struct sim_job *job = u->job;
    struct model_key *k = &job->kv.key[sim_below(&job->dice, job->kv.nkeys)];
    uint64_t roll = sim_below(&job->dice, 100);

    if (roll < 45 && !model_kv_room(k)) {
        rt_sleep(t, 100 * NS_PER_S); /* until what is unknown cannot happen any more */
        begin(u);
        return look(t, u, k);
    }
    if (roll < 25)
        return store_small(t, u, k);
    if (roll < 37)
        return store_stream(t, u, k, k->len % 4 == 0 ? job->val_max : SMALL_MAX);
    if (roll < 45)
        return remove_key(t, u, k);
    if (roll < 70)
        return look(t, u, k);
    if (roll < 85)
        return look_stream(t, u, k);
    if (roll < 95)
        return look_stat(t, u, k);
    return look_list(t, u);
}

static int verify(struct rt_task *t, struct user *u)
{
    struct sim_job *job = u->job;

    for (unsigned i = 0; i < job->kv.nkeys; i++) {
        int rc;

        begin(u);
        rc = sim_chance(&job->dice, 500000) ? look(t, u, &job->kv.key[i])
                                            : look_stream(t, u, &job->kv.key[i]);
        sim_job_idle(job);
        if (rc < 0)
            return rc;
    }
    return look_list(t, u);
}

static int work(struct rt_task *t, struct user *u)
{
    struct sim_job *job = u->job;
    int rc = verify(t, u);

    while (rc == 0 && !job->stopping) {
        begin(u);
        rc = one(t, u);
        sim_job_idle(job);
        if (sim_chance(&job->dice, 100000))
            rt_sleep(t, sim_skewed(&job->dice, NS_PER_US, NS_PER_S));
    }
    return rc == 0 ? verify(t, u) : rc;
}

static int open_dev(struct rt_task *t, struct user *u)
{
    struct sim_job *job = u->job;
    struct err why = {""};
    int rc;

    sim_job_busy(job);
    rc = kv_open(t, job->uri, &u->dev, &why);
    if (rc == 0) {
        rc = kv_chan_get(t, u->dev, &u->chan);
        if (rc < 0)
            kv_close(t, u->dev);
    }
    sim_job_idle(job);
    sim_trace("%s: open %s: %d %s", job->name, job->uri, rc, why.text);
    if (rc < 0)
        sim_job_failed(job, "open", rc);
    return rc;
}

static void close_dev(struct rt_task *t, struct user *u)
{
    sim_job_busy(u->job);
    kv_chan_put(t, u->chan);
    kv_close(t, u->dev);
    sim_job_idle(u->job);
    sim_trace("%s: closed", u->job->name);
}

static int job_run(struct rt_task *t, void *arg)
{
    struct sim_job *job = arg;
    struct user *u = calloc(1, sizeof(*u));
    int rc = -EAGAIN;

    must(u != NULL);
    u->job = job;
    u->buf = malloc(BUF_BYTES);
    must(u->buf != NULL);
    while (rc != 0) {
        if (open_dev(t, u) < 0) {
            rt_sleep(t, sim_between(&job->dice, 10, 1000) * NS_PER_MS);
            continue;
        }
        rc = work(t, u);
        close_dev(t, u);
        if (rc != 0)
            rt_sleep(t, sim_between(&job->dice, 1, 100) * NS_PER_MS);
    }
    free(u->buf);
    free(u);
    return 0;
}

static void job_fini(struct sim_job *job)
{
    model_kv_fini(&job->kv);
}

static void job_server_crash(struct sim_job *job, bool power)
{
    model_kv_crash(&job->kv, power);
}

static void job_orphan(struct sim_job *job)
{
    model_kv_orphan(&job->kv);
}

const struct sim_job_kind sim_job_kv = {
    .name = "kv",
    .run = job_run,
    .fini = job_fini,
    .server_crash = job_server_crash,
    .orphan = job_orphan,
};

void sim_job_kv_init(struct sim_job *job, uint8_t prefix, unsigned nkeys, uint64_t val_max)
{
    job->kind = &sim_job_kv;
    job->val_max = val_max;
    model_kv_init(&job->kv, nkeys);
    for (unsigned i = 0; i < nkeys; i++) {
        struct model_key *k = &job->kv.key[i];

        k->len = (uint8_t)sim_between(&job->dice, 3, MODEL_KEY_MAX);
        for (unsigned at = 0; at < k->len; at++)
            k->key[at] = (uint8_t)sim_roll(&job->dice);
        k->key[0] = prefix;
        k->key[1] = (uint8_t)i;
        k->place = (uint64_t)prefix << 32 | i;
    }
}
