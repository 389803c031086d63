/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random histories against a model: what each blob shows, which clusters are its own and on whom
 * it stands. Every now and then the store is closed and opened, or its device is copied as it is,
 * as after a crash, and the copy opened: either way all is as the model says, the checker finds
 * nothing, and once all blobs are gone nothing is used.
 */
#include "blob/blob_test.h"

#define CLUSTER 16384u
#define BLOCK 4096u
/* As CHECK of an rc: which one it was. */
#define CHECK_RC(rc, cond)                                                                         \
    do {                                                                                           \
        if (!(cond))                                                                               \
            fprintf(stderr, "%s\n", err_str(rc));                                                  \
        CHECK(cond);                                                                               \
    } while (0)
#define PER (CLUSTER / BLOCK)
#define BLOBS 24
#define CLUSTERS_MAX 1200u
#define DEV_BYTES (24 * MIB)

struct mcluster {
    uint32_t stamp[PER]; /* 0: zeroes */
    bool own;
};
struct mblob {
    bool there, thin, ro, rle;
    uint64_t id;
    unsigned n;
    int parent;     /* -1 */
    unsigned xattr; /* seed of its value; 0: none */
    struct blob *open;
    struct mcluster cl[CLUSTERS_MAX];
};

static struct mblob *model;
static uint64_t rng;
static uint32_t next_stamp;
static uint64_t buf[64 * BLOCK / 8];

static unsigned rnd(unsigned n)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    rng ^= rng << 17;
    return (unsigned)((rng >> 11) % n);
}

/* 1 .. most, but not more than there are. */
static unsigned some(unsigned most, unsigned there)
{
    unsigned n = 1 + rnd(most);

    return MIN(n, there);
}

static uint32_t shows(const struct mblob *m, unsigned cl, unsigned block)
{
    for (;; m = &model[m->parent]) {
        if (cl >= m->n)
            return 0;
        if (m->cl[cl].own)
            return m->cl[cl].stamp[block];
        if (m->parent < 0)
            return 0;
    }
}

static void own(struct mblob *m, unsigned cl)
{
    uint32_t now[PER];

    for (unsigned i = 0; i < PER; i++)
        now[i] = shows(m, cl, i);
    memcpy(m->cl[cl].stamp, now, sizeof(now));
    m->cl[cl].own = true;
}

static unsigned nclones(unsigned i, unsigned *out_one)
{
    unsigned n = 0;

    for (unsigned k = 0; k < BLOBS; k++) {
        if (!model[k].there || model[k].parent != (int)i)
            continue;
        n++;
        *out_one = k;
    }
    return n;
}

/* --- what is there ---------------------------------------------------------------------------- */

static uint64_t word(uint32_t stamp, unsigned at)
{
    return stamp == 0 ? 0 : (uint64_t)stamp << 32 | at;
}

static int block_check(const struct mblob *m, unsigned block)
{
    uint32_t stamp = shows(m, block / PER, block % PER);

    for (unsigned i = 0; i < BLOCK / 8; i++) {
        uint64_t got = buf[(block % 64) * (BLOCK / 8) + i];

        if (got != word(stamp, i)) {
            fprintf(stderr, "blob %lx block %u word %u: %lx, not %lx\n", m->id, block, i, got,
                    word(stamp, i));
            return -EILSEQ;
        }
    }
    return 0;
}

static int content_check(struct rt_task *t, struct blob_chan *chan, struct blob *b,
                         const struct mblob *m)
{
    for (unsigned at = 0; at < m->n * PER; at += 64) {
        unsigned n = MIN(64, m->n * PER - at);

        CHECK(blob_read(t, chan, b, buf, (uint64_t)at * BLOCK, (uint64_t)n * BLOCK) == 0);
        for (unsigned i = at; i < at + n; i++)
            CHECK(block_check(m, i) == 0);
    }
    return 0;
}

static unsigned xattr_len(unsigned seed)
{
    return seed * 37 % 3000 + 1;
}

static int blob_check_one(struct rt_task *t, struct blob_chan *chan, struct blob *b,
                          const struct mblob *m)
{
    struct blob_info info;
    unsigned nown = 0, one;
    const void *value;
    uint16_t len;

    blob_info(b, &info);
    for (unsigned i = 0; i < m->n; i++)
        nown += m->cl[i].own;
    CHECK(info.clusters == m->n);
    CHECK(info.thin == m->thin);
    CHECK(info.read_only == m->ro);
    CHECK(info.parent == (m->parent < 0 ? BLOB_ID_NONE : model[m->parent].id));
    CHECK(info.nclones == nclones((unsigned)(m - model), &one));
    CHECK(info.allocated_clusters == nown);
    CHECK((blob_get_xattr(b, "x", &value, &len) == 0) == (m->xattr != 0));
    if (m->xattr != 0)
        CHECK(len == xattr_len(m->xattr) && ((const uint8_t *)value)[len - 1] == m->xattr % 251);
    return content_check(t, chan, b, m);
}

static int all_check(struct rt_task *t, struct rig *r)
{
    struct blob_store_info info;
    uint64_t id = 0, used = 0;
    unsigned n = 0;

    for (; blob_next(t, r->bs, id, &id) == 0; id++)
        n++;
    for (unsigned i = 0; i < BLOBS; i++) {
        struct mblob *m = &model[i];
        struct blob *b;

        if (!m->there)
            continue;
        n--;
        CHECK(blob_open(t, r->bs, m->id, &b) == 0);
        CHECK(blob_check_one(t, r->chan, b, m) == 0);
        blob_close(t, b);
        for (unsigned k = 0; k < m->n; k++)
            used += m->cl[k].own;
    }
    CHECK(n == 0);
    blob_store_info(r->bs, &info);
    CHECK(info.unreadable == 0);
    CHECK(info.clusters - info.free_clusters == used);
    return 0;
}

/* --- operations ------------------------------------------------------------------------------- */

static int op_create(struct rt_task *t, struct rig *r, struct mblob *m)
{
    struct blob_create_opts o = {.thin = rnd(4) != 0, .extent_rle = rnd(3) == 0};
    int rc;

    o.clusters = o.thin ? rnd(rnd(3) == 0 ? CLUSTERS_MAX : 40) : rnd(20);
    rc = blob_create(t, r->bs, &o, &m->id);
    if (rc == -ENOSPC)
        return 0;
    CHECK_RC(rc, rc == 0);
    m->there = true;
    m->thin = o.thin;
    m->rle = o.extent_rle;
    m->n = (unsigned)o.clusters;
    m->parent = -1;
    m->ro = false;
    m->xattr = 0;
    memset(m->cl, 0, sizeof(m->cl));
    for (unsigned i = 0; i < m->n; i++)
        m->cl[i].own = !m->thin;
    return blob_open(t, r->bs, m->id, &m->open);
}

/* A clone may read something else where nobody has written yet: only whole operations count. */
static int op_write(struct rt_task *t, struct rig *r, struct mblob *m)
{
    unsigned at = rnd(m->n * PER), n = some(60, m->n * PER - at);
    struct iovec iov[3] = {{buf, (size_t)n * BLOCK}};
    uint32_t stamp = ++next_stamp;
    struct blob_req req = {.op = BLOB_WRITE,
                           .flags = rnd(8) == 0 ? BLOB_F_FUA : 0,
                           .iov = iov,
                           .iovcnt = 1,
                           .off_bytes = (uint64_t)at * BLOCK,
                           .len_bytes = (uint64_t)n * BLOCK,
                           .blob = m->open};
    int rc;

    for (unsigned i = 0; i < n * BLOCK / 8; i++)
        buf[i] = word(stamp, i % (BLOCK / 8));
    if (n > 2 && rnd(2)) { /* in pieces that are no whole blocks */
        iov[0].iov_len = 100;
        iov[1] = (struct iovec){(uint8_t *)buf + 100, BLOCK};
        iov[2] = (struct iovec){(uint8_t *)buf + 100 + BLOCK, (size_t)n * BLOCK - BLOCK - 100};
        req.iovcnt = 3;
    }
    rt_req_init_task(&req.req, t);
    blob_submit(r->chan, &req);
    rc = rt_wait(t, &req.req);
    CHECK_RC(rc, rc == (m->ro ? -EROFS : 0) || rc == -ENOSPC);
    for (unsigned i = at; i < at + n && rc == 0; i++) {
        if (!m->cl[i / PER].own)
            own(m, i / PER);
        m->cl[i / PER].stamp[i % PER] = stamp;
    }
    if (rc != -ENOSPC)
        return 0;
    /* Any part of it may have been done, cluster by cluster. */
    for (unsigned i = at; i < at + n; i++) {
        uint64_t got;

        CHECK(blob_read(t, r->chan, m->open, buf, (uint64_t)i * BLOCK, BLOCK) == 0);
        got = buf[0];
        if (got >> 32 != stamp)
            continue;
        if (!m->cl[i / PER].own)
            own(m, i / PER);
        m->cl[i / PER].stamp[i % PER] = stamp;
    }
    return 0;
}

static int op_clear(struct rt_task *t, struct rig *r, struct mblob *m, uint8_t op)
{
    unsigned at = rnd(m->n * PER), n = some(100, m->n * PER - at);
    struct blob_req req = {.op = op,
                           .off_bytes = (uint64_t)at * BLOCK,
                           .len_bytes = (uint64_t)n * BLOCK,
                           .blob = m->open};
    struct blob_info info;
    int rc;

    rt_req_init_task(&req.req, t);
    blob_submit(r->chan, &req);
    rc = rt_wait(t, &req.req);
    CHECK_RC(rc, rc == (m->ro ? -EROFS : 0) || rc == -ENOSPC);
    CHECK(rc != -ENOSPC || op == BLOB_WRITE_ZEROES);
    if (rc == -ENOSPC) { /* where it got to nobody says: once more when there is room */
        blob_info(m->open, &info);
        for (unsigned c = at / PER; c <= (at + n - 1) / PER; c++) {
            if (blob_map_get(m->open->map, c) != 0 && !m->cl[c].own)
                own(m, c);
        }
        for (unsigned i = at; i < at + n; i++) {
            CHECK(blob_read(t, r->chan, m->open, buf, (uint64_t)i * BLOCK, BLOCK) == 0);
            if (buf[0] == 0 && m->cl[i / PER].own)
                m->cl[i / PER].stamp[i % PER] = 0;
        }
        return 0;
    }
    for (unsigned i = at; i < at + n && rc == 0; i++) {
        unsigned c = i / PER;
        bool whole = c * PER >= at && (c + 1) * PER <= at + n;

        if (op == BLOB_UNMAP && whole && m->thin && m->parent < 0) {
            m->cl[c] = (struct mcluster){.own = false};
            continue;
        }
        if (op == BLOB_WRITE_ZEROES && !m->cl[c].own && blob_map_get(m->open->map, c) != 0)
            own(m, c);
        if (m->cl[c].own)
            m->cl[c].stamp[i % PER] = 0;
    }
    return 0;
}

static int op_resize(struct rt_task *t, struct mblob *m)
{
    unsigned n = m->thin ? rnd(rnd(3) == 0 ? CLUSTERS_MAX : 60) : rnd(30);
    int rc = blob_resize(t, m->open, n);

    CHECK_RC(rc, rc == (m->ro ? -EROFS : 0) || rc == -ENOSPC);
    if (rc < 0)
        return 0;
    for (unsigned i = n; i < m->n; i++)
        m->cl[i] = (struct mcluster){.own = false};
    for (unsigned i = m->n; i < n; i++)
        m->cl[i] = (struct mcluster){.own = !m->thin};
    m->n = n;
    return 0;
}

static int op_snapshot(struct rt_task *t, struct rig *r, unsigned i, struct mblob *s)
{
    struct mblob *m = &model[i];
    struct blob_xattr x = {"x", "\1", 1};
    int rc = blob_snapshot(t, m->open, &x, 0, &s->id);

    CHECK_RC(rc, rc == (m->ro ? -EROFS : 0) || rc == -ENOSPC);
    if (rc < 0)
        return 0;
    s->there = s->ro = true;
    s->thin = m->thin;
    s->rle = m->rle;
    s->n = m->n;
    s->parent = m->parent;
    s->xattr = 0;
    memcpy(s->cl, m->cl, sizeof(s->cl));
    m->parent = (int)(s - model);
    m->thin = true;
    memset(m->cl, 0, sizeof(m->cl));
    return blob_open(t, r->bs, s->id, &s->open);
}

static int op_clone(struct rt_task *t, struct rig *r, unsigned i, struct mblob *c)
{
    const struct mblob *s = &model[i];
    int rc = blob_clone(t, r->bs, s->id, NULL, 0, &c->id);

    CHECK_RC(rc, rc == (s->ro ? 0 : -EINVAL) || rc == -ENOSPC);
    if (rc < 0)
        return 0;
    c->there = c->thin = true;
    c->ro = false;
    c->rle = s->rle;
    c->n = s->n;
    c->parent = (int)i;
    c->xattr = 0;
    memset(c->cl, 0, sizeof(c->cl));
    return blob_open(t, r->bs, c->id, &c->open);
}

static bool below_shows(const struct mblob *p, unsigned cl)
{
    for (int k = p->parent; k >= 0; k = model[k].parent) {
        if (cl >= model[k].n)
            return false;
        if (model[k].cl[cl].own)
            return true;
    }
    return false;
}

/* Without its direct parent. */
static void model_detach(struct mblob *m)
{
    const struct mblob *p = &model[m->parent];

    for (unsigned i = 0; i < m->n; i++) {
        if (!m->cl[i].own && (i < p->n ? p->cl[i].own : below_shows(p, i)))
            own(m, i);
    }
    m->parent = p->parent;
}

static int op_delete(struct rt_task *t, struct rig *r, unsigned i)
{
    struct mblob *m = &model[i];
    unsigned one = 0, n = nclones(i, &one);
    int rc;

    CHECK(blob_delete(t, r->bs, m->id) == -EBUSY);
    blob_close(t, m->open);
    rc = blob_delete(t, r->bs, m->id);
    CHECK_RC(rc, rc == (n > 1 ? -EBUSY : 0) || (n == 1 && rc == -ENOSPC));
    if (rc < 0)
        return blob_open(t, r->bs, m->id, &m->open);
    if (n == 1)
        model_detach(&model[one]);
    m->there = false;
    return 0;
}

static int op_independent(struct rt_task *t, struct mblob *m, bool inflate)
{
    int rc = inflate ? blob_inflate(t, m->open, NULL, NULL) : blob_decouple(t, m->open, NULL, NULL);

    if (rc == -ENOSPC) { /* what has been copied by then stays */
        for (unsigned i = 0; i < m->n; i++) {
            if (!m->cl[i].own && blob_map_get(m->open->map, i) != 0)
                own(m, i);
        }
        return 0;
    }
    CHECK_RC(rc, rc == (inflate || m->parent >= 0 ? 0 : -EINVAL));
    if (rc < 0)
        return 0;
    if (!inflate) {
        model_detach(m);
        return 0;
    }
    for (unsigned i = 0; i < m->n; i++) {
        if (!m->cl[i].own)
            own(m, i);
    }
    m->parent = -1;
    m->thin = false;
    return 0;
}

static int op_release(struct rt_task *t, struct mblob *m)
{
    unsigned at = rnd(m->n), n = some(700, m->n - at);
    int rc = blob_release(t, m->open, at, n);

    CHECK_RC(rc, rc == (m->thin && m->parent < 0 ? (m->ro ? -EROFS : 0) : -EINVAL));
    for (unsigned i = at; i < at + n && rc == 0; i++)
        m->cl[i] = (struct mcluster){.own = false};
    return 0;
}

static int op_allocate(struct rt_task *t, struct rig *r, struct mblob *m)
{
    unsigned at = rnd(m->n), n = some(rnd(2) ? 10 : 600, m->n - at);
    int rc = blob_allocate(t, m->open, at, n);

    CHECK_RC(rc, rc == (m->ro ? -EROFS : 0) || rc == -ENOSPC);
    /* What they hold is not defined: make it zeroes. */
    for (unsigned i = at; i < at + n && rc == 0; i++) {
        if (m->cl[i].own)
            continue;
        m->cl[i] = (struct mcluster){.own = true};
        memset(buf, 0, CLUSTER);
        CHECK(blob_write(t, r->chan, m->open, buf, (uint64_t)i * CLUSTER, CLUSTER, 0) == 0);
    }
    return 0;
}

static int op_xattr(struct rt_task *t, struct mblob *m)
{
    unsigned seed = rnd(4) == 0 ? 0 : 1 + rnd(1000);
    int rc;

    if (seed == 0)
        rc = blob_remove_xattr(t, m->open, "x");
    else {
        memset(buf, (int)(seed % 251), sizeof(buf));
        rc = blob_set_xattr(t, m->open, "x", buf, (uint16_t)xattr_len(seed));
    }
    if (rc == 0)
        m->xattr = seed;
    else
        CHECK_RC(rc, rc == -EROFS ? m->ro : rc == -ENOSPC || (seed == 0 && m->xattr == 0));
    return 0;
}

static int step(struct rt_task *t, struct rig *r)
{
    unsigned i = rnd(BLOBS), k = rnd(BLOBS), op = rnd(26);
    struct mblob *m = &model[i];

    if (!m->there)
        return rnd(2) ? op_create(t, r, m) : 0;
    if (op < 2)
        return op_delete(t, r, i);
    if (op < 4 && !model[k].there)
        return op_snapshot(t, r, i, &model[k]);
    if (op < 7 && !model[k].there)
        return op_clone(t, r, i, &model[k]);
    if (op == 7)
        return op_resize(t, m);
    if (op == 8)
        return op_xattr(t, m);
    if (op == 9 && m->n < 100)
        return op_independent(t, m, true);
    if (op == 10)
        return op_independent(t, m, false);
    if (m->n == 0)
        return 0;
    if (op == 11)
        return op_release(t, m);
    if (op == 12 && m->parent < 0)
        return op_allocate(t, r, m);
    if (op < 15)
        return op_clear(t, r, m, BLOB_UNMAP);
    if (op < 17)
        return op_clear(t, r, m, BLOB_WRITE_ZEROES);
    return op_write(t, r, m);
}

/* Every page in the mask is one of a blob. */
static int pages_check(struct rig *r)
{
    uint64_t used = 0;

    for (unsigned i = 0; i < BLOBS; i++) {
        const struct blob *b = model[i].open;

        if (!model[i].there)
            continue;
        used += 1 + b->nchain;
        for (uint32_t l = 0; l < b->map->nleaves; l++)
            used += b->map->page[l] != 0;
    }
    CHECK(used == r->bs->pages.used);
    return 0;
}

/* --- histories -------------------------------------------------------------------------------- */

static int reopen(struct rt_task *t, struct rig *r)
{
    for (unsigned i = 0; i < BLOBS; i++) {
        if (model[i].there)
            blob_close(t, model[i].open);
    }
    rig_store_close(t, r);
    CHECK(rig_check(t, r) == 0);
    CHECK(rig_store(t, r, 0) == 0);
    CHECK(r->bs->was_clean);
    CHECK(all_check(t, r) == 0);
    for (unsigned i = 0; i < BLOBS; i++) {
        if (model[i].there)
            CHECK(blob_open(t, r->bs, model[i].id, &model[i].open) == 0);
    }
    return 0;
}

/* The device as it is goes to another one, where the store is opened as after a crash. */
static int crash(struct rt_task *t, struct rig *r)
{
    struct rig c = {.uri = "mem:?size=24M&name=copy"};
    struct err why = {""};

    CHECK(dev_open(t, c.uri, &c.dev, &c.blk) == 0);
    for (uint64_t at = 0; at < DEV_BYTES; at += sizeof(buf)) {
        CHECK(blk_read(t, r->blk, buf, at / BLOCK, sizeof(buf) / BLOCK) == 0);
        CHECK(blk_write(t, c.blk, buf, at / BLOCK, sizeof(buf) / BLOCK, 0) == 0);
    }
    CHECK(rig_check(t, &c) == 0);
    if (rig_store(t, &c, rnd(2) ? BLOB_OPEN_READ_ONLY : 0) < 0) {
        fprintf(stderr, "%s\n", why.text);
        return -EILSEQ;
    }
    CHECK(all_check(t, &c) == 0);
    rig_close(t, &c);
    return 0;
}

static int history(struct rt_task *t, void *arg)
{
    struct blob_format_opts opts = {.cluster_bytes = CLUSTER};
    struct rig r = {.uri = "mem:?size=24M&name=model"};
    struct blob_store_info before, after;
    const uint64_t *seed = arg;

    rng = *seed * 0x9e3779b97f4a7c15u + 1;
    opts.md_pages = *seed % 2 ? 60 : 0; /* few: the pages run out, too */
    memset(model, 0, BLOBS * sizeof(*model));
    CHECK(rig_open(t, &r, &opts) == 0);
    blob_store_info(r.bs, &before);
    for (unsigned i = 0; i < 700; i++) {
        CHECK(step(t, &r) == 0);
        CHECK(pages_check(&r) == 0);
        if (i % 100 == 50)
            CHECK(reopen(t, &r) == 0);
        if (i % 50 == 49)
            CHECK(crash(t, &r) == 0);
        if (i % 70 == 69)
            CHECK(blob_store_settle(t, r.bs) == 0);
    }
    for (unsigned left = 1; left > 0;) {
        left = 0;
        for (unsigned i = 0; i < BLOBS; i++) {
            if (model[i].there)
                CHECK(op_delete(t, &r, i) == 0);
            left += model[i].there;
        }
    }
    blob_store_info(r.bs, &after);
    CHECK(after.free_clusters == before.free_clusters);
    CHECK(after.free_md_pages == before.free_md_pages);
    rig_close(t, &r);
    return 0;
}

static void histories_test(void **state)
{
    const char *text = getenv("SEED");
    uint64_t from = text != NULL ? strtoull(text, NULL, 0) : 1, to = text != NULL ? from : 6;

    (void)state;
    model = calloc(BLOBS, sizeof(*model));
    assert_non_null(model);
    for (uint64_t seed = from; seed <= to; seed++) {
        print_message("seed %lu\n", seed);
        run_task(1, history, &seed);
    }
    free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(histories_test),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
