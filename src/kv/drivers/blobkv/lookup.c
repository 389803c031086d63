/* SPDX-License-Identifier: Apache-2.0 */
/* Where the current version of a key is, exactly: memtables, then leaves. And reading it. */
#include "kv/drivers/blobkv/blobkv.h"
#include "kv/drivers/blobkv/leaf.h"

#define TABLE_BYTES_PER_KEY 10u

/** Looks in memtables only: 1 found (0 written), -ENOENT deleted there, 0 they do not know. */
static int find_in_memory(const struct bkv *s, struct bytes key, struct bkv_place *out)
{
    const struct bkv_mem_entry *e = bkv_memtab_find(s->active, key);

    if (e == NULL && s->frozen != NULL)
        e = bkv_memtab_find(s->frozen, key);
    if (e == NULL)
        return 0;
    *out = e->place;
    return e->place.type == BKV_DELETE ? -ENOENT : 1;
}

int bkv_find_cached(struct bkv *s, struct bytes key, struct bkv_place *out)
{
    int rc = find_in_memory(s, key, out);

    if (rc != 0)
        return MIN(rc, 0);
    return bkv_tree_find_cached(s->tree, key, out);
}

bool bkv_has_moved_on(const struct bkv *s, struct bytes key, uint64_t addr)
{
    struct bkv_place place;
    int rc = find_in_memory(s, key, &place);

    return rc < 0 || (rc == 1 && place.addr != addr);
}

/* A leaf that has been read for one key tells where its neighbours are, too: after a reopen the
 * table is full again when each leaf has been read once. */
static void learn_leaf(struct bkv *s, const uint8_t *page)
{
    bool unchanged = bkv_memtab_count(s->active) == 0 && s->frozen == NULL;
    struct bkv_leaf_iter it;
    struct bkv_place place;

    /* A table that cannot have them all would forget keys that are in use for these. */
    if (bkv_tree_nkeys(s->tree) > s->opts.table_bytes / TABLE_BYTES_PER_KEY)
        return;
    bkv_leaf_first(&it, page, s->scratch);
    while (bkv_leaf_next(&it, &place) == 1) {
        struct bytes key = bytes_make(it.key, it.key_len);

        if (unchanged || !bkv_has_moved_on(s, key, place.addr))
            bkv_hot_learn(s->hot, bkv_hash(s, key), place.addr, place.rec_len);
    }
}

int bkv_find(struct rt_task *t, struct bkv *s, struct bytes key, struct bkv_place *out)
{
    for (;;) {
        CLEANUP(rt_buf_put_p) struct rt_buf *leaf = NULL;
        struct bkv_place place;
        struct bkv_tree *tree;
        uint64_t no = s->checkpoint_no;
        int rc = bkv_find_cached(s, key, out);

        if (rc != -EAGAIN)
            return rc;
        tree = bkv_tree_ref(s->tree);
        rc = bkv_tree_find(t, tree, key, &place, &leaf);
        bkv_tree_put(tree);
        if (no != s->checkpoint_no)
            continue; /* that was another tree, and its pages may be others by now */
        if (rc < 0 && rc != -ENOENT)
            return rc;
        if (leaf != NULL)
            learn_leaf(s, leaf->data);
        /* What has changed while we waited is in a memtable. */
        switch (find_in_memory(s, key, out)) {
        case 0:
            if (rc == 0)
                *out = place;
            return rc;
        case 1:
            return 0;
        default:
            return -ENOENT;
        }
    }
}

int bkv_read_sectors(struct rt_task *t, struct bkv *s, uint64_t addr, uint32_t len, uint8_t *buf)
{
    struct iovec iov = {.iov_base = buf, .iov_len = len};
    struct blob_req req = {.op = BLOB_READ,
                           .iov = &iov,
                           .iovcnt = 1,
                           .off_bytes = addr,
                           .len_bytes = len,
                           .blob = s->blob};
    int rc;

    rt_req_init_task(&req.req, t);
    bkv_pin(s, addr);
    blob_submit(s->chan, &req);
    rc = rt_wait(t, &req.req);
    bkv_unpin(s, addr);
    s->stats.read_bytes += len;
    return rc;
}

int bkv_read_record(struct rt_task *t, struct bkv *s, uint64_t addr, uint32_t rec_len,
                    struct rt_buf **out_buf, struct bkv_record_out *out)
{
    uint64_t first = addr & ~(uint64_t)(s->sector_bytes - 1);
    uint32_t skip = (uint32_t)(addr - first);
    uint32_t len = (uint32_t)round_up_u64(skip + (uint64_t)rec_len, s->sector_bytes);
    uint32_t gen = bkv_gen_of(s, addr);
    CLEANUP(rt_buf_put_p) struct rt_buf *buf = NULL;
    int rc;

    if (rec_len > BKV_RECORD_MAX || gen == 0)
        return -EBADMSG; /* a leaf said so */
    bkv_pin(s, addr);    /* while it waits for the buffer, too */
    buf = rt_buf_take(t, len);
    rc = buf != NULL ? bkv_read_sectors(t, s, first, len, buf->data) : -ECANCELED;
    bkv_unpin(s, addr);
    if (rc < 0)
        return rc;
    rc = bkv_record_decode(buf->data + skip, rec_len, addr, gen, out, NULL);
    if (rc < 0)
        return -EBADMSG;
    *out_buf = take_ptr(&buf);
    return 0;
}

int bkv_read_place(struct rt_task *t, struct bkv *s, const struct bkv_place *place,
                   struct bytes key, struct rt_buf **out_buf, struct bkv_record_out *out)
{
    CLEANUP(rt_buf_put_p) struct rt_buf *buf = NULL;
    struct bytes found;
    int rc = bkv_read_record(t, s, place->addr, place->rec_len, &buf, out);

    if (rc < 0)
        return rc;
    if (out->seq != place->seq || out->type != place->type)
        return -EBADMSG;
    rc = bkv_record_key(s->codec, out, s->scratch, &found);
    if (rc < 0)
        return rc;
    if (key.len > 0 && !bytes_eq(found, key))
        return -EBADMSG;
    *out_buf = take_ptr(&buf);
    return 0;
}

int bkv_read_key(struct rt_task *t, struct bkv *s, struct bytes key, struct bkv_place *out_place,
                 struct rt_buf **out_buf, struct bkv_record_out *out)
{
    int rc = bkv_find(t, s, key, out_place);

    return rc < 0 ? rc : bkv_read_place(t, s, out_place, key, out_buf, out);
}
