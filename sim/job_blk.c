/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block job: up to four requests at a time in four quarters of its region, so that no two
 * touch the same sector; then a look at what is there.
 */
#include "sim/job.h"

#include "sim/content.h"
#include "sim/fs.h"

#include "base/bytes.h"
#include "blk/blk.h"

#include <stdio.h>
#include <string.h>

#define BUF_BYTES (128 * KIB)
#define IOVS_MAX 4

struct slot {
    struct blk_req req;
    struct iovec iov[IOVS_MAX];
    uint8_t *buf;
    uint32_t first, n; /* sectors of the region */
    uint32_t id;
    bool unknown;             /* compare: what is there is not known */
    bool differs;             /* compare: with something else */
    struct model_flush flush; /* what had been written when it was submitted */
};

struct user {
    struct sim_job *job;
    struct blk_dev *dev;
    struct blk_chan *chan;
    uint32_t per_block; /* sectors */
    struct slot slot[JOB_SLOTS];
};

static uint64_t place_of(const struct sim_job *job, uint32_t sector)
{
    return job->blk.place + sector;
}

/* --- choosing a request ------------------------------------------------------------------------
 */

static void fill(struct user *u, struct slot *s, uint32_t id)
{
    for (uint32_t i = 0; i < s->n; i++)
        sim_sector_fill(s->buf + (size_t)i * SIM_SECTOR_BYTES, place_of(u->job, s->first + i), id);
}

/* Cuts the buffer into iovecs, sometimes at odd places. */
static void set_iov(struct user *u, struct slot *s)
{
    struct sim_dice *d = &u->job->dice;
    size_t len = (size_t)s->n * SIM_SECTOR_BYTES, at = 0;
    unsigned k = 0;

    while (k < IOVS_MAX - 1 && at < len && sim_chance(d, 250000)) {
        size_t n = sim_between(d, 1, len - at);

        s->iov[k++] = (struct iovec){.iov_base = s->buf + at, .iov_len = n};
        at += n;
    }
    if (at < len)
        s->iov[k++] = (struct iovec){.iov_base = s->buf + at, .iov_len = len - at};
    s->req.iov = s->iov;
    s->req.iovcnt = k;
}

/* Some blocks of quarter q. */
static void choose_range(struct user *u, struct slot *s, unsigned q)
{
    struct sim_dice *d = &u->job->dice;
    uint32_t nblocks = u->job->blk.nsectors / u->per_block / JOB_SLOTS;
    uint32_t n = (uint32_t)sim_skewed(d, 1, MIN(nblocks, BUF_BYTES / 2 / u->job->block_bytes));
    uint32_t at = (uint32_t)sim_below(d, nblocks - n + 1) + q * nblocks;

    s->first = at * u->per_block;
    s->n = n * u->per_block;
    s->req.lba = u->job->first_block + at;
    s->req.nblocks = n;
}

/* Something to write there was no room for in the model becomes a flush, which makes room. */
static void choose_write(struct user *u, struct slot *s)
{
    struct sim_job *job = u->job;
    uint64_t roll = sim_below(&job->dice, 100);

    if (!model_blk_room(&job->blk, s->first, s->n)) {
        s->req.op = BLK_FLUSH;
        return;
    }
    s->req.op = BLK_WRITE;
    s->id = job->blk.next_id++;
    if (roll < 12) {
        s->req.op = BLK_WRITE_ZEROES;
        s->req.flags = roll < 6 ? BLK_F_UNMAP : 0;
        s->id = SIM_ZEROES;
    } else if (roll < 20 && (blk_info(u->dev)->caps & BLK_CAP_UNMAP_ZEROES) != 0) {
        s->req.op = BLK_UNMAP;
        s->id = SIM_ZEROES;
    } else if (roll < 35) {
        s->req.flags = BLK_F_FUA;
    }
}

static void choose_compare(struct user *u, struct slot *s)
{
    struct sim_job *job = u->job;

    s->req.op = BLK_COMPARE;
    s->differs = sim_chance(&job->dice, 300000);
    s->unknown = false;
    for (uint32_t i = 0; i < s->n; i++) {
        uint32_t id = model_blk_only(&job->blk, s->first + i);

        s->unknown |= id == SIM_NO_CONTENT;
        sim_sector_fill(s->buf + (size_t)i * SIM_SECTOR_BYTES, place_of(job, s->first + i), id);
    }
    if (s->differs)
        s->buf[sim_below(&job->dice, (uint64_t)s->n * SIM_SECTOR_BYTES)] ^= 1;
}

static void choose(struct user *u, struct slot *s, unsigned q)
{
    uint64_t roll = sim_below(&u->job->dice, 100);

    s->req = (struct blk_req){0};
    choose_range(u, s, q);
    if (roll < 50)
        choose_write(u, s);
    else if (roll < 80)
        s->req.op = BLK_READ;
    else if (roll < 88)
        choose_compare(u, s);
    else
        s->req.op = BLK_FLUSH;
}

/* --- carrying it out ---------------------------------------------------------------------------
 */

static bool changes(const struct slot *s)
{
    return s->req.op == BLK_WRITE || s->req.op == BLK_WRITE_ZEROES || s->req.op == BLK_UNMAP;
}

static void submit(struct rt_task *t, struct user *u, struct slot *s)
{
    struct model_blk *m = &u->job->blk;

    s->flush = model_blk_flush(m);
    if (s->req.op == BLK_FLUSH) {
        s->req.lba = s->req.nblocks = 0;
    } else if (changes(s)) {
        model_blk_write(m, s->first, s->n, s->id);
    }
    if (s->req.op == BLK_WRITE)
        fill(u, s, s->id);
    if (s->req.op == BLK_READ)
        memset(s->buf, 0xee, (size_t)s->n * SIM_SECTOR_BYTES);
    if (s->req.op == BLK_READ || s->req.op == BLK_WRITE || s->req.op == BLK_COMPARE)
        set_iov(u, s);
    rt_req_init_task(&s->req.req, t);
    u->job->nops++;
    sim_trace("%s: %s lba %llu n %u id %u flags %x", u->job->name,
              blk_op_name((enum blk_op)s->req.op), (unsigned long long)s->req.lba, s->req.nblocks,
              s->id, s->req.flags);
    blk_submit(u->chan, &s->req);
}

static void check_read(struct user *u, struct slot *s)
{
    struct sim_job *job = u->job;
    bool crossed = s->flush.crashes != job->blk.crashes;

    for (uint32_t i = s->first; i < s->first + s->n; i++) {
        const uint8_t *data = s->buf + (size_t)(i - s->first) * SIM_SECTOR_BYTES;
        uint32_t id = sim_sector_id(data, place_of(job, i));
        char text[300];

        job->nchecked++;
        if (!model_blk_may(&job->blk, i, id)) {
            model_blk_text(&job->blk, i, text, sizeof(text));
            sim_fail("%s: sector %u has write %d%s, and may have: %s", job->name, i, (int)id,
                     id == SIM_NO_CONTENT ? " (torn, or somebody else's)" : "", text);
        }
        if (!crossed)
            model_blk_seen(&job->blk, i, id);
    }
}

static int finish(struct user *u, struct slot *s, int rc)
{
    struct sim_job *job = u->job;

    sim_trace("%s: %s done %d", job->name, blk_op_name((enum blk_op)s->req.op), rc);
    if (changes(s))
        model_blk_written(&job->blk, s->first, s->n, s->id, rc == 0,
                          (s->req.flags & BLK_F_FUA) != 0);
    if (s->req.op == BLK_COMPARE && (rc == 0 || rc == -EILSEQ)) {
        if (!s->unknown && s->flush.crashes == job->blk.crashes && (rc == 0) == s->differs)
            sim_fail("%s: compare of sectors %u+%u says %d", job->name, s->first, s->n, rc);
        return 0;
    }
    if (rc < 0) {
        /* The flush may be inside a write (FUA), or have been somebody else's. */
        if (rc == -EIO && (s->req.op == BLK_FLUSH || changes(s)))
            model_blk_flush_failed(&job->blk);
        sim_job_failed(job, blk_op_name((enum blk_op)s->req.op), rc);
        return rc;
    }
    if (s->req.op == BLK_FLUSH)
        model_blk_flushed(&job->blk, s->flush);
    if (s->req.op == BLK_READ)
        check_read(u, s);
    return 0;
}

/* Some requests at once. Returns the first failure. */
static int burst(struct rt_task *t, struct user *u)
{
    struct sim_job *job = u->job;
    unsigned n = (unsigned)sim_between(&job->dice, 1, JOB_SLOTS);
    int first_rc = 0;

    sim_job_busy(job);
    for (unsigned i = 0; i < n; i++) {
        choose(u, &u->slot[i], i);
        submit(t, u, &u->slot[i]);
        if (sim_chance(&job->dice, 200000))
            rt_yield(t);
    }
    for (unsigned i = 0; i < n; i++) {
        int rc = finish(u, &u->slot[i], rt_wait(t, &u->slot[i].req.req));

        first_rc = first_rc == 0 ? rc : first_rc;
    }
    sim_job_idle(job);
    return first_rc;
}

/* Reads the whole region. */
static int verify(struct rt_task *t, struct user *u)
{
    struct sim_job *job = u->job;
    struct slot *s = &u->slot[0];
    uint32_t step = (uint32_t)(BUF_BYTES / 4 / SIM_SECTOR_BYTES);

    for (uint32_t at = 0; at < job->blk.nsectors; at += step) {
        int rc;

        s->req = (struct blk_req){.op = BLK_READ};
        s->first = at;
        s->n = MIN(step, job->blk.nsectors - at);
        s->req.lba = job->first_block + at / u->per_block;
        s->req.nblocks = s->n / u->per_block;
        sim_job_busy(job);
        submit(t, u, s);
        rc = finish(u, s, rt_wait(t, &s->req.req));
        sim_job_idle(job);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int flush(struct rt_task *t, struct user *u)
{
    struct slot *s = &u->slot[0];
    int rc;

    s->req = (struct blk_req){.op = BLK_FLUSH};
    sim_job_busy(u->job);
    submit(t, u, s);
    rc = finish(u, s, rt_wait(t, &s->req.req));
    sim_job_idle(u->job);
    return rc;
}

/* --- with and without the device ---------------------------------------------------------------
 */

static int open_dev(struct rt_task *t, struct user *u)
{
    struct sim_job *job = u->job;
    struct err why = {""};
    int rc;

    sim_job_busy(job);
    rc = blk_open(t, job->uri, &u->dev, &why);
    if (rc == 0) {
        rc = blk_chan_get(t, u->dev, &u->chan);
        if (rc < 0)
            blk_close(t, u->dev);
    }
    sim_job_idle(job);
    sim_trace("%s: open %s: %d %s", job->name, job->uri, rc, why.text);
    if (rc == 0 && blk_info(u->dev)->block_bytes != job->block_bytes)
        sim_fail("%s: blocks of %u bytes", job->name, blk_info(u->dev)->block_bytes);
    if (rc < 0)
        sim_job_failed(job, "open", rc);
    return rc;
}

static void close_dev(struct rt_task *t, struct user *u)
{
    sim_job_busy(u->job);
    blk_chan_put(t, u->chan);
    blk_close(t, u->dev);
    sim_job_idle(u->job);
    sim_trace("%s: closed", u->job->name);
}

/* Works until something fails or it is time to stop; 0: everything was verified and flushed. */
static int work(struct rt_task *t, struct user *u)
{
    struct sim_job *job = u->job;
    uint64_t crashes = job->blk.crashes;
    int rc = verify(t, u);

    while (rc == 0 && !job->stopping) {
        if (crashes != job->blk.crashes || sim_chance(&job->dice, 20000)) {
            crashes = job->blk.crashes;
            rc = verify(t, u);
        } else {
            rc = burst(t, u);
        }
        if (sim_chance(&job->dice, 100000))
            rt_sleep(t, sim_skewed(&job->dice, NS_PER_US, NS_PER_S));
    }
    if (rc == 0)
        rc = verify(t, u);
    if (rc == 0)
        rc = flush(t, u);
    return rc;
}

static int job_run(struct rt_task *t, void *arg)
{
    struct sim_job *job = arg;
    struct user *u = calloc(1, sizeof(*u));
    int rc = -EAGAIN;

    must(u != NULL);
    u->job = job;
    u->per_block = job->block_bytes / SIM_SECTOR_BYTES;
    for (unsigned i = 0; i < JOB_SLOTS; i++) {
        u->slot[i].buf = aligned_alloc(4096, BUF_BYTES);
        must(u->slot[i].buf != NULL);
    }
    while (rc != 0) {
        if (open_dev(t, u) < 0) {
            rt_sleep(t, sim_between(&job->dice, 10, 1000) * NS_PER_MS);
            continue;
        }
        rc = work(t, u);
        if (rc != 0) /* whoever closes without a flush does not hear what was lost */
            flush(t, u);
        close_dev(t, u);
        if (rc != 0)
            rt_sleep(t, sim_between(&job->dice, 1, 100) * NS_PER_MS);
    }
    for (unsigned i = 0; i < JOB_SLOTS; i++)
        free(u->slot[i].buf);
    free(u);
    return 0;
}

static void job_fini(struct sim_job *job)
{
    model_blk_fini(&job->blk);
}

static void job_server_crash(struct sim_job *job, bool power)
{
    model_blk_crash(&job->blk, power);
    if (job->disk_fails) /* a flush that failed before, unheard of, is forgotten by the server */
        model_blk_flush_failed(&job->blk);
}

static void job_orphan(struct sim_job *job)
{
    model_blk_orphan(&job->blk);
}

const struct sim_job_kind sim_job_blk = {
    .name = "blk",
    .run = job_run,
    .fini = job_fini,
    .server_crash = job_server_crash,
    .orphan = job_orphan,
};

void sim_job_blk_init(struct sim_job *job, uint32_t first_sector, uint32_t nsectors,
                      uint32_t block_bytes)
{
    job->kind = &sim_job_blk;
    job->block_bytes = block_bytes;
    job->first_block = first_sector / (block_bytes / SIM_SECTOR_BYTES);
    model_blk_init(&job->blk, job->name, (uint64_t)first_sector << 20, nsectors);
}
