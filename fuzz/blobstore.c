/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A blobstore whose metadata somebody has changed. The input is a list of patches (u8 page, u16
 * offset, u8 length, bytes) for the first pages of a small store of ours, under checksums as they
 * come or made right. Both readers look at it: nothing may break, the dump and the raw reader
 * included, and what the check takes for faultless has to open as the same blobs, for reading and
 * for writing, and be faultless afterwards.
 */
#include "fuzz.h"

#include "base/crc.h"
#include "blob/blob.h"
#include "blob/check.h"
#include "blob/dump.h"

#define URI "mem:?size=1M&block_size=4096&name=fuzz"
#define PAGES 52u /* super block, three masks, 48 pages of metadata */
#define BLOBS_MAX 48u

#define MODE_FORGE 1u   /* checksums of what was changed are made right */
#define MODE_UNCLEAN 2u /* the store was not closed */

static struct {
    struct rt *rt;
    struct blk_dev *dev;
    struct blk_chan *chan;
    uint8_t *base, *now; /* PAGES each: as made, and changed */
    const uint8_t *input;
    size_t input_len;
    bool done;
    struct blob_check_blob blob[BLOBS_MAX];
    unsigned nblobs;
    struct blob_check_report rep;
} f;

/* --- the store -------------------------------------------------------------------------------- */

static void make_blobs(struct rt_task *t, struct blob_store *bs)
{
    static uint8_t block[4096], value[3000];
    struct blob_xattr xattrs[] = {{"colour", "blue", 5}, {"long", value, sizeof(value)}};
    struct blob_create_opts opts = {.clusters = 3, .xattrs = xattrs, .nxattrs = 2};
    struct blob_chan *chan;
    struct blob *b;
    uint64_t id, snap, clone;

    must(blob_create(t, bs, &opts, &id) == 0);
    must(blob_open(t, bs, id, &b) == 0);
    must(blob_set_xattr(t, b, "more", value, sizeof(value)) == 0); /* a second page */
    blob_close(t, b);
    opts = (struct blob_create_opts){.clusters = 5, .extent_rle = true};
    must(blob_create(t, bs, &opts, &id) == 0);
    opts = (struct blob_create_opts){.clusters = 1100, .thin = true}; /* three extent pages */
    must(blob_create(t, bs, &opts, &id) == 0);
    must(blob_open(t, bs, id, &b) == 0);
    must(blob_chan_get(t, bs, &chan) == 0);
    must(blob_write(t, chan, b, block, 0, sizeof(block), 0) == 0);
    must(blob_write(t, chan, b, block, 1000 * 16384, sizeof(block), 0) == 0);
    must(blob_snapshot(t, b, NULL, 0, &snap) == 0);
    must(blob_write(t, chan, b, block, 16384, sizeof(block), 0) == 0);
    blob_chan_put(t, chan);
    blob_close(t, b);
    must(blob_clone(t, bs, snap, NULL, 0, &clone) == 0);
}

static int begin(struct rt_task *t, void *arg)
{
    struct blob_format_opts opts = {.cluster_bytes = 16384, .md_pages = 48};
    struct blob_store *bs;
    struct err why;

    (void)arg;
    f.base = aligned_alloc(4096, PAGES * 4096);
    f.now = aligned_alloc(4096, PAGES * 4096);
    must(f.base != NULL);
    must(f.now != NULL);
    must(blk_open(t, URI, &f.dev, &why) == 0);
    must(blob_format(t, f.dev, &opts, &why) == 0);
    must(blob_store_open(t, URI, NULL, 0, &bs, &why) == 0);
    make_blobs(t, bs);
    blob_store_close(t, bs);
    must(blk_chan_get(t, f.dev, &f.chan) == 0);
    must(blk_read(t, f.chan, f.base, 0, PAGES) == 0);
    must(le32_at(f.base + 48) == 4); /* the metadata begins where PAGES takes it to begin */
    return 0;
}

/* --- one input -------------------------------------------------------------------------------- */

static void seal(uint8_t *page)
{
    le32_put(page + 4092, crc32c(0, page, 4092));
}

static void patch(struct input *in, uint8_t mode)
{
    while (in->left > 0) {
        uint32_t page = input_u8(in) % PAGES;
        uint8_t off[2], len;
        uint32_t at;

        input_fill(in, off, sizeof(off));
        len = input_u8(in);
        at = le16_at(off) % 4096;
        input_fill(in, f.now + page * 4096 + at, MIN(len, 4096 - at));
        if ((mode & MODE_FORGE) != 0 && (page == 0 || page >= 4))
            seal(f.now + page * 4096);
    }
    if ((mode & MODE_UNCLEAN) != 0) {
        le32_put(f.now + 16, 0);
        seal(f.now);
    }
}

static void blob_seen(void *arg, const struct blob_check_blob *b)
{
    (void)arg;
    must(b->id == (BLOB_RAW_ID_HIGH | (uint32_t)b->id));
    must(f.nblobs < BLOBS_MAX);
    f.blob[f.nblobs++] = *b;
}

static void found(void *arg, const struct blob_check_finding *finding)
{
    (void)arg;
    must(strlen(finding->text) > 0);
}

static int dump_line(struct rt_task *t, void *arg, const struct blob_dump_line *l)
{
    (void)t;
    (void)arg;
    must(l->offset < MIB);
    must(strlen(l->field) > 0);
    return 0;
}

/* True: it has no fault. */
static bool check(struct rt_task *t)
{
    struct blob_check_opts opts = {.found = found, .blob = blob_seen};
    int rc;

    f.nblobs = 0;
    rc = blob_check(t, f.chan, &opts, &f.rep);
    must(rc == 0 || rc == -ENODATA || rc == -EBADMSG || rc == -ENOTSUP || rc == -ENOMEM);
    return rc == 0 && f.rep.errors + f.rep.warnings == 0;
}

/* The other users of raw.h. */
static void read_raw(struct rt_task *t)
{
    struct blob_dump_opts opts = {.line = dump_line, .all = true};
    struct blob_raw raw;
    int rc;

    rc = blob_dump(t, f.chan, &opts);
    must(rc == 0 || rc == -ENODATA || rc == -EBADMSG);
    must(blob_raw_init(t, f.chan, &raw) == 0);
    for (unsigned i = 0; i < f.nblobs; i++) {
        struct blob_raw_blob *b = NULL;

        rc = blob_raw_blob(t, &raw, f.blob[i].id, &b);
        must(rc == 0 || rc == -EBADMSG || rc == -ENOMEM);
        must(rc == 0 || f.blob[i].broken || f.blob[i].clusters > 1u << 26);
        blob_raw_blob_free(b);
    }
    blob_raw_fini(&raw);
}

static void compare(struct rt_task *t, struct blob_store *bs)
{
    struct blob_store_info info;

    blob_store_info(bs, &info);
    must(info.unreadable == 0);
    must(info.free_clusters == f.rep.free_clusters);
    for (unsigned i = 0; i < f.nblobs; i++) {
        const struct blob_check_blob *want = &f.blob[i];
        struct blob_info b;
        struct blob *blob;

        if (want->making || want->removing || (want->invalid & BLOB_RAW_EXTERNAL) != 0)
            continue;
        must(blob_open(t, bs, want->id, &blob) == 0);
        blob_info(blob, &b);
        blob_close(t, blob);
        must(b.clusters == want->clusters);
        must(b.allocated_clusters == want->allocated);
        must(b.parent == want->parent);
    }
}

static void open_store(struct rt_task *t, unsigned flags, bool faultless)
{
    struct blob_store *bs;
    struct err why = {""};
    int rc;

    rc = blob_store_open(t, URI, NULL, flags, &bs, &why);
    must(rc == 0 || why.text[0] != '\0');
    must(rc == 0 || !faultless || rc == -ENOMEM);
    if (rc < 0)
        return;
    if (faultless)
        compare(t, bs);
    blob_store_close(t, bs);
}

static int try_input(struct rt_task *t, void *arg)
{
    struct input in = {f.input, f.input_len};
    uint8_t mode = input_u8(&in);
    bool faultless;

    (void)arg;
    memcpy(f.now, f.base, PAGES * 4096);
    patch(&in, mode);
    must(blk_write(t, f.chan, f.now, 0, PAGES, 0) == 0);
    faultless = check(t);
    read_raw(t);
    open_store(t, BLOB_OPEN_READ_ONLY, faultless);
    open_store(t, 0, faultless);
    if (faultless)
        must(check(t));
    return 0;
}

/* --- frame ------------------------------------------------------------------------------------ */

static void done(struct rt_req *req)
{
    must(req->rc == 0);
    f.done = true;
}

static void run(rt_task_fn fn)
{
    struct rt_req req;

    rt_req_init(&req, done);
    f.done = false;
    must(rt_loop_start(f.rt, "fuzz", fn, NULL, &req) == 0);
    while (!f.done)
        rt_loop_turn(f.rt);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_len)
{
    if (f.rt == NULL) {
        struct rt_config cfg = {.buf_bytes = MIB, .backend = RT_BACKEND_EPOLL};
        struct err why;

        must(rt_loop_new(&cfg, &f.rt, &why) == 0);
        run(begin);
    }
    f.input = input;
    f.input_len = input_len;
    run(try_input);
    return 0;
}
