/* SPDX-License-Identifier: Apache-2.0 */
/* Super block, checksums, descriptors: see format.h. What a chain means is in parse.c. */
#include "blob/format.h"

#include "base/bytes.h"
#include "base/crc.h"

static const uint8_t signature[8] = {'S', 'P', 'D', 'K', 'B', 'L', 'O', 'B'};

#define CRC_BYTES (BLOB_PAGE_BYTES - 4)

bool blob_page_crc_good(const void *page)
{
    return crc32c(0, page, CRC_BYTES) == le32_at((const uint8_t *)page + CRC_BYTES);
}

void blob_page_seal(void *page)
{
    le32_put((uint8_t *)page + CRC_BYTES, crc32c(0, page, CRC_BYTES));
}

/* --- super block ------------------------------------------------------------------------------ */

uint64_t blob_super_clusters(const struct blob_super *s)
{
    return s->size_bytes / s->cluster_bytes;
}

uint64_t blob_super_md_clusters(const struct blob_super *s)
{
    uint64_t bytes = ((uint64_t)s->md_start + s->md_len) * s->md_page_bytes;

    return (bytes + s->cluster_bytes - 1) / s->cluster_bytes;
}

static uint64_t mask_pages(const struct blob_super *s, uint64_t nbits)
{
    uint64_t bytes = sizeof(struct blob_mask_disk) + (nbits + 7) / 8;

    return (bytes + s->md_page_bytes - 1) / s->md_page_bytes;
}

static void fields_decode(const struct blob_super_disk *d, struct blob_super *s)
{
    *s = (struct blob_super){
        .version = le32_get(d->version),
        .clean = le32_get(d->clean) != 0,
        .super_blob = le64_get(d->super_blob),
        .cluster_bytes = le32_get(d->cluster_bytes),
        .page_mask_start = le32_get(d->page_mask_start),
        .page_mask_len = le32_get(d->page_mask_len),
        .cluster_mask_start = le32_get(d->cluster_mask_start),
        .cluster_mask_len = le32_get(d->cluster_mask_len),
        .id_mask_start = le32_get(d->id_mask_start),
        .id_mask_len = le32_get(d->id_mask_len),
        .md_start = le32_get(d->md_start),
        .md_len = le32_get(d->md_len),
        .size_bytes = le64_get(d->size_bytes),
        .io_unit_bytes = le32_get(d->io_unit_bytes),
        .md_page_bytes = le32_get(d->md_page_bytes),
    };
    memcpy(s->bstype, d->bstype, sizeof(s->bstype));
    if (s->io_unit_bytes == 0)
        s->io_unit_bytes = 4096;
    if (s->md_page_bytes == 0)
        s->md_page_bytes = BLOB_PAGE_BYTES;
}

/* Whether a mask of `nbits` lies whole between the super block and the metadata pages. */
static bool mask_fits(const struct blob_super *s, uint32_t start, uint32_t len, uint64_t nbits)
{
    return start >= 1 && (uint64_t)start + len <= s->md_start && len >= mask_pages(s, nbits);
}

static bool ranges_meet(uint32_t a, uint32_t a_len, uint32_t b, uint32_t b_len)
{
    return (uint64_t)a < (uint64_t)b + b_len && (uint64_t)b < (uint64_t)a + a_len;
}

static int geometry_check(const struct blob_super *s, struct err *why)
{
    uint32_t p = s->md_page_bytes;
    uint64_t total;

    if (p < BLOB_PAGE_BYTES || p > 65536 || (p & (p - 1)) != 0)
        return err_set(why, -EBADMSG, "super block: metadata pages of %u bytes", p);
    if (s->cluster_bytes < p || s->cluster_bytes % p != 0)
        return err_set(why, -EBADMSG, "super block: clusters of %u bytes", s->cluster_bytes);
    total = blob_super_clusters(s);
    if (total >= BLOB_CLUSTERS_MAX)
        return err_set(why, -EBADMSG, "super block: %llu clusters", (unsigned long long)total);
    if (s->md_len == 0 || s->md_len == UINT32_MAX || blob_super_md_clusters(s) > total)
        return err_set(why, -EBADMSG, "super block: %u metadata pages from page %u on do not fit",
                       s->md_len, s->md_start);
    if (!mask_fits(s, s->page_mask_start, s->page_mask_len, s->md_len) ||
        !mask_fits(s, s->cluster_mask_start, s->cluster_mask_len, total) ||
        ranges_meet(s->page_mask_start, s->page_mask_len, s->cluster_mask_start,
                    s->cluster_mask_len))
        return err_set(why, -EBADMSG, "super block: the masks of pages and clusters do not fit");
    if (s->id_mask_len == 0)
        return 0;
    if (!mask_fits(s, s->id_mask_start, s->id_mask_len, s->md_len) ||
        ranges_meet(s->page_mask_start, s->page_mask_len, s->id_mask_start, s->id_mask_len) ||
        ranges_meet(s->cluster_mask_start, s->cluster_mask_len, s->id_mask_start, s->id_mask_len))
        return err_set(why, -EBADMSG, "super block: the mask of blob ids does not fit");
    return 0;
}

int blob_super_decode(const struct blob_super_disk *d, uint64_t dev_bytes, struct blob_super *out,
                      struct err *why)
{
    struct blob_super s;
    int rc;

    if (memcmp(d->signature, signature, sizeof(signature)) != 0)
        return err_set(why, -ENODATA, "there is no blobstore on it");
    fields_decode(d, &s);
    if (s.version < 1 || s.version > 3)
        return err_set(why, -ENOTSUP, "the blobstore has version %u; 1 to 3 are known", s.version);
    if (!blob_page_crc_good(d))
        return err_set(why, -EBADMSG, "the checksum of the super block is wrong");
    if (s.size_bytes == 0)
        s.size_bytes = dev_bytes;
    if (s.size_bytes > dev_bytes)
        return err_set(why, -EBADMSG,
                       "the blobstore is %llu bytes large, but the device has %llu only",
                       (unsigned long long)s.size_bytes, (unsigned long long)dev_bytes);
    rc = geometry_check(&s, why);
    if (rc < 0)
        return rc;
    *out = s;
    return 0;
}

void blob_super_encode(const struct blob_super *s, struct blob_super_disk *d)
{
    memcpy(d->signature, signature, sizeof(signature));
    d->version = le32_make(s->version);
    d->length = le32_make(BLOB_PAGE_BYTES);
    d->clean = le32_make(s->clean);
    d->super_blob = le64_make(s->super_blob);
    d->cluster_bytes = le32_make(s->cluster_bytes);
    d->page_mask_start = le32_make(s->page_mask_start);
    d->page_mask_len = le32_make(s->page_mask_len);
    d->cluster_mask_start = le32_make(s->cluster_mask_start);
    d->cluster_mask_len = le32_make(s->cluster_mask_len);
    d->md_start = le32_make(s->md_start);
    d->md_len = le32_make(s->md_len);
    memcpy(d->bstype, s->bstype, sizeof(d->bstype));
    d->id_mask_start = le32_make(s->id_mask_start);
    d->id_mask_len = le32_make(s->id_mask_len);
    d->size_bytes = le64_make(s->size_bytes);
    d->io_unit_bytes = le32_make(s->io_unit_bytes);
    d->md_page_bytes = le32_make(s->md_page_bytes);
    blob_page_seal(d);
}

int blob_super_layout(struct blob_super *s, struct err *why)
{
    uint64_t total = blob_super_clusters(s);
    uint64_t p = mask_pages(s, s->md_len), c = mask_pages(s, total);
    uint64_t start = 1 + p + MAX(p, c) + p;

    if (total == 0 || total >= BLOB_CLUSTERS_MAX)
        return err_set(why, -EINVAL, "%llu clusters of %u bytes; choose another cluster size",
                       (unsigned long long)total, s->cluster_bytes);
    if (start + s->md_len > UINT32_MAX)
        return err_set(why, -EINVAL, "%u metadata pages are too many", s->md_len);
    s->page_mask_start = 1;
    s->page_mask_len = (uint32_t)p;
    s->cluster_mask_start = (uint32_t)(1 + p);
    s->cluster_mask_len = (uint32_t)c;
    s->id_mask_start = (uint32_t)(1 + p + MAX(p, c));
    s->id_mask_len = (uint32_t)p;
    s->md_start = (uint32_t)start;
    if (blob_super_md_clusters(s) >= total)
        return err_set(why, -ENOSPC,
                       "the device is too small: the metadata takes %llu of its %llu clusters",
                       (unsigned long long)blob_super_md_clusters(s), (unsigned long long)total);
    return geometry_check(s, why);
}

/* --- descriptors ------------------------------------------------------------------------------ */

int blob_desc_next(const struct blob_page_disk *p, uint32_t *pos, struct blob_desc *out)
{
    const struct blob_desc_disk *d = (const struct blob_desc_disk *)(p->desc + *pos);
    uint32_t left = BLOB_DESC_BYTES - *pos, len;

    if (left < sizeof(*d))
        return 0;
    len = le32_get(d->len);
    if (d->type == BLOB_DESC_PADDING && len == 0)
        return 0;
    if (len > left - sizeof(*d))
        return -EBADMSG;
    *out = (struct blob_desc){.type = d->type, .len = len, .data = (const uint8_t *)(d + 1)};
    *pos += (uint32_t)sizeof(*d) + len;
    return 1;
}

/* --- xattrs ----------------------------------------------------------------------------------- */

static void attr_fini(struct blob_attr *a)
{
    free(a->name);
    free(a->value);
}

void blob_head_fini(struct blob_head *h)
{
    for (unsigned i = 0; i < h->nattrs; i++)
        attr_fini(&h->attr[i]);
    free(h->attr);
    h->attr = NULL;
    h->nattrs = 0;
}

static struct blob_attr *find(const struct blob_head *h, bool internal, const char *name,
                              uint16_t name_len)
{
    for (unsigned i = 0; i < h->nattrs; i++) {
        struct blob_attr *a = &h->attr[i];

        if (a->internal == internal && a->name_len == name_len &&
            memcmp(a->name, name, name_len) == 0)
            return a;
    }
    return NULL;
}

struct blob_attr *blob_head_find(const struct blob_head *h, bool internal, const char *name)
{
    return find(h, internal, name, (uint16_t)strlen(name));
}

int blob_head_set(struct blob_head *h, bool internal, const char *name, uint16_t name_len,
                  const void *value, uint16_t value_len)
{
    struct blob_attr *a = find(h, internal, name, name_len), *more;
    uint8_t *v = malloc((size_t)value_len + 1);
    char *n = malloc((size_t)name_len + 1);

    more = a == NULL ? realloc(h->attr, (h->nattrs + 1) * sizeof(*more)) : h->attr;
    if (more != NULL)
        h->attr = more;
    if (v == NULL || n == NULL || more == NULL) {
        free(v);
        free(n);
        return -ENOMEM;
    }
    memcpy(n, name, name_len);
    n[name_len] = '\0';
    if (value_len > 0)
        memcpy(v, value, value_len);
    v[value_len] = 0;
    if (a == NULL)
        a = &h->attr[h->nattrs++];
    else
        attr_fini(a);
    *a = (struct blob_attr){
        .name = n, .value = v, .name_len = name_len, .value_len = value_len, .internal = internal};
    if (internal)
        h->invalid |= BLOB_INVALID_INTERNAL_XATTR;
    return 0;
}

bool blob_head_del(struct blob_head *h, bool internal, const char *name)
{
    struct blob_attr *a = blob_head_find(h, internal, name);
    bool more = false;

    if (a == NULL)
        return false;
    attr_fini(a);
    memmove(a, a + 1, (size_t)(&h->attr[--h->nattrs] - a) * sizeof(*a));
    for (unsigned i = 0; i < h->nattrs; i++)
        more = more || h->attr[i].internal;
    if (!more)
        h->invalid &= ~(uint64_t)BLOB_INVALID_INTERNAL_XATTR;
    return true;
}

int blob_head_copy(const struct blob_head *from, struct blob_head *out)
{
    struct blob_head h = {0};

    for (unsigned i = 0; i < from->nattrs; i++) {
        const struct blob_attr *a = &from->attr[i];

        if (blob_head_set(&h, a->internal, a->name, a->name_len, a->value, a->value_len) < 0) {
            blob_head_fini(&h);
            return -ENOMEM;
        }
    }
    h.invalid = from->invalid;
    h.data_ro = from->data_ro;
    h.md_ro = from->md_ro;
    *out = h;
    return 0;
}

/* --- writing ---------------------------------------------------------------------------------- */

void blob_pages_fini(struct blob_pages *p)
{
    free(p->page);
    *p = (struct blob_pages){0};
}

static int page_add(struct blob_pages *p)
{
    struct blob_page_disk *more;
    unsigned cap = p->cap == 0 ? 1 : 2 * p->cap;

    if (p->n == p->cap) {
        more = aligned_alloc(BLOB_PAGE_BYTES, (size_t)cap * sizeof(*more));
        if (more == NULL)
            return -ENOMEM;
        if (p->n > 0)
            memcpy(more, p->page, p->n * sizeof(*more));
        free(p->page);
        p->page = more;
        p->cap = cap;
    }
    memset(&p->page[p->n++], 0, sizeof(*p->page));
    p->used = 0;
    return 0;
}

static uint32_t room(const struct blob_pages *p)
{
    return p->n == 0 ? 0 : BLOB_DESC_BYTES - p->used;
}

/* Makes room for one descriptor of `len` bytes of payload, which goes to *out_at. */
static int desc_add(struct blob_pages *p, uint8_t type, uint32_t len, uint8_t **out_at)
{
    struct blob_desc_disk head = {.type = type, .len = le32_make(len)};
    uint8_t *at;

    if (len > BLOB_DESC_BYTES - sizeof(head))
        return -EINVAL;
    if (room(p) < sizeof(head) + len && page_add(p) < 0)
        return -ENOMEM;
    at = p->page[p->n - 1].desc + p->used;
    memcpy(at, &head, sizeof(head));
    *out_at = at + sizeof(head);
    p->used += (uint32_t)sizeof(head) + len;
    return 0;
}

static int xattr_add(struct blob_pages *p, const struct blob_attr *a)
{
    uint8_t *at;
    int rc = desc_add(p, a->internal ? BLOB_DESC_XATTR_INTERNAL : BLOB_DESC_XATTR,
                      4u + a->name_len + a->value_len, &at);

    if (rc < 0)
        return rc;
    le16_put(at, a->name_len);
    le16_put(at + 2, a->value_len);
    memcpy(at + 4, a->name, a->name_len);
    memcpy(at + 4 + a->name_len, a->value, a->value_len);
    return 0;
}

int blob_pages_head(struct blob_pages *p, const struct blob_head *h)
{
    struct blob_flags_disk flags = {.invalid = le64_make(h->invalid),
                                    .data_ro = le64_make(h->data_ro),
                                    .md_ro = le64_make(h->md_ro)};
    uint8_t *at;
    int rc = desc_add(p, BLOB_DESC_FLAGS, sizeof(flags), &at);

    if (rc < 0)
        return rc;
    memcpy(at, &flags, sizeof(flags));
    for (unsigned internal = 0; internal < 2; internal++) {
        for (unsigned i = 0; i < h->nattrs && rc == 0; i++) {
            if (h->attr[i].internal == (internal != 0))
                rc = xattr_add(p, &h->attr[i]);
        }
    }
    return rc;
}

void blob_pairs_begin(struct blob_pairs_enc *e, struct blob_pages *to, uint8_t type,
                      uint64_t nclusters)
{
    e->to = to;
    e->type = type;
    e->nclusters = nclusters;
    e->last = (struct blob_pair){0, 0};
    e->n = 0;
    e->max = 0;
}

/* How many pairs the next descriptor may have: what the page has room for, or a whole page. */
static unsigned pairs_room(const struct blob_pairs_enc *e)
{
    uint32_t head = (uint32_t)sizeof(struct blob_desc_disk) + (e->type == BLOB_DESC_TABLE ? 8 : 0);
    uint32_t left = room(e->to);

    if (left < head + sizeof(struct blob_pair_disk))
        left = BLOB_DESC_BYTES;
    return (unsigned)((left - head) / sizeof(struct blob_pair_disk));
}

static int pairs_flush(struct blob_pairs_enc *e)
{
    uint32_t head = e->type == BLOB_DESC_TABLE ? 8 : 0;
    uint32_t len = e->n * (uint32_t)sizeof(e->buf[0]);
    uint8_t *at;
    int rc = desc_add(e->to, e->type, head + len, &at);

    if (rc < 0)
        return rc;
    if (head > 0)
        le64_put(at, e->nclusters);
    memcpy(at + head, e->buf, len);
    e->n = 0;
    return 0;
}

static int pair_out(struct blob_pairs_enc *e)
{
    int rc = 0;

    if (e->last.count == 0)
        return 0;
    if (e->n == 0)
        e->max = pairs_room(e);
    e->buf[e->n++] = (struct blob_pair_disk){le32_make(e->last.at), le32_make(e->last.count)};
    e->last.count = 0;
    if (e->n == e->max)
        rc = pairs_flush(e);
    return rc;
}

/* What goes on where the last one ends is one with it; an extent page never does. */
static bool goes_on(const struct blob_pairs_enc *e, uint32_t at, uint32_t count)
{
    if (e->last.count == 0 || (uint64_t)e->last.count + count > UINT32_MAX)
        return false;
    if (at == 0 || e->last.at == 0)
        return at == e->last.at;
    return e->type == BLOB_DESC_RLE && at == e->last.at + e->last.count;
}

int blob_pairs_add(struct blob_pairs_enc *e, uint32_t at, uint32_t count)
{
    int rc;

    if (goes_on(e, at, count)) {
        e->last.count += count;
        return 0;
    }
    rc = pair_out(e);
    e->last = (struct blob_pair){at, count};
    return rc;
}

int blob_pairs_end(struct blob_pairs_enc *e)
{
    int rc = pair_out(e);

    if (rc < 0)
        return rc;
    /* A blob of no clusters has the table all the same, but no list of runs. */
    if (e->n > 0 || (e->type == BLOB_DESC_TABLE && e->nclusters == 0))
        return pairs_flush(e);
    return 0;
}

void blob_pages_seal(struct blob_pages *p, uint64_t id, const uint32_t *where)
{
    for (unsigned i = 0; i < p->n; i++) {
        p->page[i].id = le64_make(id);
        p->page[i].sequence = le32_make(i);
        p->page[i].next = le32_make(i + 1 < p->n ? where[i + 1] : BLOB_NO_PAGE);
        blob_page_seal(&p->page[i]);
    }
}

void blob_extent_page(struct blob_page_disk *page, uint64_t id, uint32_t start,
                      const uint32_t *cluster, uint32_t n)
{
    struct blob_desc_disk head = {.type = BLOB_DESC_EXTENT_PAGE, .len = le32_make(4 + 4 * n)};
    uint8_t *at = page->desc;

    memset(page, 0, sizeof(*page));
    page->id = le64_make(id);
    page->next = le32_make(BLOB_NO_PAGE);
    memcpy(at, &head, sizeof(head));
    at += sizeof(head);
    le32_put(at, start);
    for (uint32_t i = 0; i < n; i++)
        le32_put(at + 4 + 4 * i, cluster[i]);
    blob_page_seal(page);
}
