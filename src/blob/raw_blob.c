/* SPDX-License-Identifier: Apache-2.0 */
/* One blob as its metadata pages describe it, and its content through the blobs below it. */
#include "blob/raw.h"

#define CLUSTERS_MAX (1ull << 26)
#define ATTRS_MAX 65536u

struct load {
    struct blob_raw *raw;
    struct blob_raw_blob *b;
    uint64_t want; /* clusters, as the extent table says */
    uint64_t cap;  /* of b->cluster */
    uint8_t *page, *extents;
};

static int add_clusters(struct load *l, uint32_t first, uint64_t n)
{
    struct blob_raw_blob *b = l->b;

    if (n > CLUSTERS_MAX - b->nclusters)
        return -ENOMEM;
    if (b->nclusters + n > l->cap) {
        uint64_t cap = MAX(l->cap * 2, b->nclusters + n);
        uint32_t *more = realloc(b->cluster, cap * sizeof(*more));

        if (more == NULL)
            return -ENOMEM;
        b->cluster = more;
        l->cap = cap;
    }
    for (uint64_t i = 0; i < n; i++)
        b->cluster[b->nclusters++] = first == 0 ? 0 : first + (uint32_t)i;
    b->nallocated += first == 0 ? 0 : n;
    return 0;
}

static int take_rle(struct load *l, const struct blob_raw_desc *d)
{
    if (d->len % 8 != 0)
        return -EBADMSG;
    for (uint32_t at = 0; at < d->len; at += 8) {
        int rc = add_clusters(l, le32_at(d->payload + at), le32_at(d->payload + at + 4));

        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The page of one table entry. It may have more entries than the blob has clusters left. */
static int take_extent_page(struct rt_task *t, struct load *l, uint32_t md_page)
{
    struct blob_raw_desc d;
    uint32_t pos = 0;
    int rc;

    rc = blob_raw_page(t, l->raw, md_page, l->extents);
    if (rc == -ERANGE)
        return -EBADMSG;
    if (rc < 0)
        return rc;
    if (!blob_raw_crc_ok(l->extents) || blob_raw_desc_next(l->extents, &pos, &d) != 1 ||
        d.type != BLOB_RAW_EXTENTS || d.len <= 4 || d.len % 4 != 0 ||
        le32_at(d.payload) != l->b->nclusters)
        return -EBADMSG;
    l->b->extent_pages++;
    for (uint32_t at = 4; at < d.len && rc == 0; at += 4)
        rc = add_clusters(l, le32_at(d.payload + at), 1);
    return rc;
}

static int take_table(struct rt_task *t, struct load *l, const struct blob_raw_desc *d)
{
    int rc = 0;

    if (d->len < 8 || d->len % 8 != 0)
        return -EBADMSG;
    l->b->table = true;
    l->want = le64_at(d->payload);
    for (uint32_t at = 8; at < d->len && rc == 0; at += 8) {
        uint32_t md_page = le32_at(d->payload + at), count = le32_at(d->payload + at + 4);
        uint64_t left = l->want > l->b->nclusters ? l->want - l->b->nclusters : 0;

        if (md_page != 0)
            rc = take_extent_page(t, l, md_page);
        else
            rc = add_clusters(l, 0, MIN(left, (uint64_t)count * BLOB_RAW_PER_PAGE));
    }
    return rc;
}

static int take_attr(struct load *l, const struct blob_raw_desc *d)
{
    struct blob_raw_blob *b = l->b;
    struct blob_raw_xattr x;
    struct blob_raw_attr *more;
    uint8_t *copy;
    int rc;

    rc = blob_raw_xattr(d, &x);
    if (rc < 0)
        return rc;
    if (b->nattrs >= ATTRS_MAX)
        return -ENOMEM;
    more = realloc(b->attr, (b->nattrs + 1) * sizeof(*more));
    if (more == NULL)
        return -ENOMEM;
    b->attr = more;
    copy = malloc(d->len);
    if (copy == NULL)
        return -ENOMEM;
    memcpy(copy, d->payload + 4, d->len - 4);
    b->attr[b->nattrs++] = (struct blob_raw_attr){
        .internal = d->type == BLOB_RAW_INTERNAL,
        .name = bytes_make(copy, x.name.len),
        .value = bytes_make(copy + x.name.len, x.value.len),
    };
    return 0;
}

static int take_desc(struct rt_task *t, struct load *l, const struct blob_raw_desc *d)
{
    switch (d->type) {
    case BLOB_RAW_RLE:
        return take_rle(l, d);
    case BLOB_RAW_TABLE:
        return take_table(t, l, d);
    case BLOB_RAW_XATTR:
    case BLOB_RAW_INTERNAL:
        return take_attr(l, d);
    case BLOB_RAW_FLAGS:
        if (d->len != 24)
            return -EBADMSG;
        l->b->invalid = le64_at(d->payload);
        l->b->data_ro = le64_at(d->payload + 8);
        l->b->md_ro = le64_at(d->payload + 16);
        return 0;
    default:
        return 0;
    }
}

static int take_page(struct rt_task *t, struct load *l)
{
    struct blob_raw_desc d;
    uint32_t pos = 0;
    int rc;

    while ((rc = blob_raw_desc_next(l->page, &pos, &d)) == 1) {
        rc = take_desc(t, l, &d);
        if (rc < 0)
            return rc;
    }
    return rc;
}

/* A loop ends at once: no page has two sequence numbers. */
static int take_chain(struct rt_task *t, struct load *l)
{
    uint32_t at = (uint32_t)l->b->id;
    int rc;

    for (uint32_t seq = 0; at != BLOB_RAW_NONE; seq++) {
        rc = blob_raw_page(t, l->raw, at, l->page);
        if (rc == -ERANGE)
            return seq == 0 ? -ENOENT : -EBADMSG;
        if (rc < 0)
            return rc;
        if (seq == 0 && !blob_raw_is_root(l->page, at))
            return -ENOENT;
        if (!blob_raw_crc_ok(l->page) || blob_raw_page_id(l->page) != l->b->id ||
            blob_raw_page_seq(l->page) != seq)
            return -EBADMSG;
        rc = take_page(t, l);
        if (rc < 0)
            return rc;
        l->b->md_pages++;
        at = blob_raw_page_next(l->page);
    }
    return l->b->table && l->b->nclusters < l->want ? -EBADMSG : 0;
}

const struct blob_raw_attr *blob_raw_attr_find(const struct blob_raw_blob *b, bool internal,
                                               const char *name)
{
    for (unsigned i = 0; i < b->nattrs; i++) {
        if (b->attr[i].internal == internal && bytes_eq(b->attr[i].name, bytes_of_str(name)))
            return &b->attr[i];
    }
    return NULL;
}

static void find_parent(struct blob_raw_blob *b)
{
    const struct blob_raw_attr *snap = blob_raw_attr_find(b, true, "SNAP");

    b->parent = UINT64_MAX;
    if (snap != NULL && snap->value.len == 8 && (b->invalid & BLOB_RAW_THIN) != 0 &&
        (b->invalid & BLOB_RAW_EXTERNAL) == 0)
        b->parent = le64_at(snap->value.ptr);
}

int blob_raw_blob(struct rt_task *t, struct blob_raw *raw, uint64_t id, struct blob_raw_blob **out)
{
    CLEANUP(blob_raw_blob_free_p) struct blob_raw_blob *b = calloc(1, sizeof(*b));
    CLEANUP(free_p) uint8_t *pages = aligned_alloc(4096, 2 * (size_t)BLOB_RAW_BYTES);
    struct load l = {.raw = raw, .b = b, .page = pages};
    int rc;

    if (b == NULL || pages == NULL)
        return -ENOMEM;
    if (id >> 32 != 1)
        return -ENOENT;
    l.extents = pages + BLOB_RAW_BYTES;
    b->id = id;
    rc = take_chain(t, &l);
    if (rc < 0)
        return rc;
    find_parent(b);
    *out = take_ptr(&b);
    return 0;
}

void blob_raw_blob_free(struct blob_raw_blob *b)
{
    if (b == NULL)
        return;
    for (unsigned i = 0; i < b->nattrs; i++)
        free((void *)(uintptr_t)b->attr[i].name.ptr);
    free(b->attr);
    free(b->cluster);
    free(b);
}

void blob_raw_blob_free_p(struct blob_raw_blob **pb)
{
    blob_raw_blob_free(*pb);
}

int blob_raw_chain_load(struct rt_task *t, struct blob_raw *raw, uint64_t id,
                        struct blob_raw_chain *out)
{
    int rc = 0;

    out->n = 0;
    while (id != UINT64_MAX && rc == 0) {
        if (out->n == BLOB_RAW_DEPTH_MAX)
            rc = -EBADMSG;
        else
            rc = blob_raw_blob(t, raw, id, &out->blob[out->n]);
        if (rc == 0)
            id = out->blob[out->n++]->parent;
        else if (rc == -ENOENT && out->n > 0)
            rc = -EBADMSG;
    }
    if (rc < 0)
        blob_raw_chain_fini(out);
    return rc;
}

void blob_raw_chain_fini(struct blob_raw_chain *c)
{
    while (c->n > 0)
        blob_raw_blob_free(c->blob[--c->n]);
}

int blob_raw_chain_read(struct rt_task *t, struct blob_raw *raw, const struct blob_raw_chain *c,
                        uint64_t index, uint8_t *buf)
{
    uint32_t bytes = raw->super.cluster_bytes;

    for (unsigned i = 0; i < c->n; i++) {
        const struct blob_raw_blob *b = c->blob[i];
        int rc;

        if (index >= b->nclusters)
            return 0; /* what lies beyond the end of a parent does not show its own parents */
        if (b->cluster[index] == 0)
            continue;
        rc = blob_raw_read(t, raw, (uint64_t)b->cluster[index] * bytes, buf, bytes);
        return rc < 0 ? rc : 1;
    }
    return 0;
}
