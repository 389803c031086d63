/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a chain of metadata pages says. Page by page, then the extent pages; pure. Nothing is
 * believed: numbers are bounded before memory is taken for them.
 */
#include "blob/format.h"

/* --- cluster maps ----------------------------------------------------------------------------- */

struct blob_map *blob_map_new(uint64_t nclusters)
{
    struct blob_map *m = calloc(1, sizeof(*m));
    uint64_t nleaves = (nclusters + BLOB_LEAF_CLUSTERS - 1) / BLOB_LEAF_CLUSTERS;

    if (m == NULL)
        return NULL;
    m->nclusters = nclusters;
    m->nleaves = (uint32_t)nleaves;
    m->leaf = calloc(nleaves + 1, sizeof(struct blob_leaf *));
    m->page = calloc(nleaves + 1, sizeof(*m->page));
    if (m->leaf == NULL || m->page == NULL) {
        blob_map_free(m);
        return NULL;
    }
    return m;
}

void blob_map_free(struct blob_map *m)
{
    if (m == NULL)
        return;
    for (uint32_t i = 0; m->leaf != NULL && i < m->nleaves; i++)
        free(m->leaf[i]);
    free(m->leaf);
    free(m->page);
    free(m);
}

int blob_map_reserve(struct blob_map *m, uint64_t idx)
{
    struct blob_leaf **at = &m->leaf[idx / BLOB_LEAF_CLUSTERS];
    struct blob_leaf *l;

    if (*at != NULL)
        return 0;
    l = calloc(1, sizeof(*l));
    if (l == NULL)
        return -ENOMEM;
    __atomic_store_n(at, l, __ATOMIC_RELEASE);
    return 0;
}

void blob_map_set(struct blob_map *m, uint64_t idx, uint32_t cluster)
{
    struct blob_leaf *l = m->leaf[idx / BLOB_LEAF_CLUSTERS];

    if (l == NULL && cluster == 0)
        return;
    must(l != NULL);
    __atomic_store_n(&l->cluster[idx % BLOB_LEAF_CLUSTERS], cluster, __ATOMIC_RELEASE);
}

struct blob_map *blob_map_copy(const struct blob_map *m, uint64_t nclusters, bool with_pages)
{
    struct blob_map *to = blob_map_new(nclusters);
    uint64_t end = MIN(m->nclusters, nclusters);

    for (uint64_t i = 0; to != NULL && i < end; i++) {
        uint32_t cluster = blob_map_get(m, i);

        if (cluster == 0)
            continue;
        if (blob_map_reserve(to, i) < 0) {
            blob_map_free(to);
            return NULL;
        }
        blob_map_set(to, i, cluster);
    }
    if (to != NULL && with_pages)
        memcpy(to->page, m->page, MIN(m->nleaves, to->nleaves) * sizeof(*to->page));
    return to;
}

/* --- a chain ---------------------------------------------------------------------------------- */

void blob_parse_fini(struct blob_parse *p)
{
    blob_head_fini(&p->head);
    blob_map_free(p->map);
    free(p->pair);
    p->map = NULL;
    p->pair = NULL;
}

static int flags_parse(struct blob_parse *p, const struct blob_desc *d)
{
    const struct blob_flags_disk *f = (const struct blob_flags_disk *)d->data;

    if (d->len != sizeof(*f) || p->has_flags)
        return -EBADMSG;
    p->has_flags = true;
    p->head.invalid = le64_get(f->invalid);
    p->head.data_ro = le64_get(f->data_ro);
    p->head.md_ro = le64_get(f->md_ro);
    if (p->head.invalid & ~(uint64_t)BLOB_INVALID_KNOWN)
        p->unknown = true;
    return 0;
}

static int xattr_parse(struct blob_parse *p, const struct blob_desc *d)
{
    bool internal = d->type == BLOB_DESC_XATTR_INTERNAL;
    uint64_t flags = p->head.invalid;
    uint16_t name_len, value_len;
    int rc;

    if (d->len < 4)
        return -EBADMSG;
    name_len = le16_at(d->data);
    value_len = le16_at(d->data + 2);
    if (d->len != 4u + name_len + value_len)
        return -EBADMSG;
    rc = blob_head_set(&p->head, internal, (const char *)d->data + 4, name_len,
                       d->data + 4 + name_len, value_len);
    p->head.invalid = flags; /* as the disk has them */
    return rc;
}

static int pair_add(struct blob_parse *p, struct blob_pair pair)
{
    struct blob_pair *more;
    size_t cap;

    if (p->npairs == p->pairs_cap) {
        cap = p->pairs_cap == 0 ? 16 : 2 * p->pairs_cap;
        more = realloc(p->pair, cap * sizeof(*more));
        if (more == NULL)
            return -ENOMEM;
        p->pair = more;
        p->pairs_cap = cap;
    }
    p->pair[p->npairs++] = pair;
    return 0;
}

static struct blob_pair pair_at(const uint8_t *data)
{
    return (struct blob_pair){le32_at(data), le32_at(data + 4)};
}

static int rle_parse(struct blob_parse *p, const struct blob_desc *d)
{
    if (d->len == 0 || d->len % sizeof(struct blob_pair_disk) != 0 || p->has_table)
        return -EBADMSG;
    p->has_rle = true;
    for (uint32_t at = 0; at < d->len; at += sizeof(struct blob_pair_disk)) {
        struct blob_pair pair = pair_at(d->data + at);
        int rc;

        p->nrle += pair.count;
        if (p->nrle > BLOB_CLUSTERS_MAX ||
            (pair.at != 0 && (uint64_t)pair.at + pair.count > p->total_clusters))
            return -EBADMSG;
        rc = pair_add(p, pair);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int table_parse(struct blob_parse *p, const struct blob_desc *d)
{
    uint64_t nclusters;

    if (d->len < 8 || (d->len - 8) % sizeof(struct blob_pair_disk) != 0 || p->has_rle)
        return -EBADMSG;
    nclusters = le64_at(d->data);
    if (nclusters > BLOB_CLUSTERS_MAX || (p->has_table && nclusters != p->nlisted))
        return -EBADMSG;
    p->has_table = true;
    p->nlisted = nclusters;
    for (uint32_t at = 8; at < d->len; at += sizeof(struct blob_pair_disk)) {
        struct blob_pair pair = pair_at(d->data + at);
        int rc;

        if (pair.at != 0 && (pair.count != 1 || pair.at >= p->md_len))
            return -EBADMSG;
        p->ntable += pair.count;
        if (p->ntable > BLOB_CLUSTERS_MAX / BLOB_LEAF_CLUSTERS)
            return -EBADMSG;
        rc = pair_add(p, pair);
        if (rc < 0)
            return rc;
    }
    return 0;
}

int blob_parse_page(struct blob_parse *p, const struct blob_page_disk *page, uint32_t seq)
{
    struct blob_desc d;
    uint32_t pos = 0;
    int rc;

    if (le64_get(page->id) != p->id || le32_get(page->sequence) != seq)
        return -EBADMSG;
    while ((rc = blob_desc_next(page, &pos, &d)) > 0) {
        switch (d.type) {
        case BLOB_DESC_PADDING:
            break;
        case BLOB_DESC_RLE:
            rc = rle_parse(p, &d);
            break;
        case BLOB_DESC_XATTR:
        case BLOB_DESC_XATTR_INTERNAL:
            rc = xattr_parse(p, &d);
            break;
        case BLOB_DESC_FLAGS:
            rc = flags_parse(p, &d);
            break;
        case BLOB_DESC_TABLE:
            rc = table_parse(p, &d);
            break;
        case BLOB_DESC_EXTENT_PAGE:
            return -EBADMSG;
        default: /* it could not be kept when the chain is written again */
            p->unknown = true;
        }
        if (rc < 0)
            return rc;
    }
    return rc;
}

static int map_from_rle(struct blob_parse *p)
{
    uint64_t idx = 0;

    for (size_t i = 0; i < p->npairs; i++) {
        struct blob_pair pair = p->pair[i];

        for (uint32_t n = 0; pair.at != 0 && n < pair.count; n++) {
            if (blob_map_reserve(p->map, idx + n) < 0)
                return -ENOMEM;
            blob_map_set(p->map, idx + n, pair.at + n);
        }
        idx += pair.count;
    }
    return 0;
}

static int map_from_table(struct blob_parse *p)
{
    uint64_t leaf = 0;

    if (p->ntable != p->map->nleaves)
        return -EBADMSG;
    for (size_t i = 0; i < p->npairs; i++) {
        if (p->pair[i].at != 0)
            p->map->page[leaf] = p->pair[i].at;
        leaf += p->pair[i].count;
    }
    return 0;
}

int blob_parse_end(struct blob_parse *p)
{
    if (p->has_table != ((p->head.invalid & BLOB_INVALID_TABLE) != 0))
        return -EBADMSG;
    p->map = blob_map_new(p->has_table ? p->nlisted : p->nrle);
    if (p->map == NULL)
        return -ENOMEM;
    return p->has_table ? map_from_table(p) : map_from_rle(p);
}

int blob_parse_extent_page(struct blob_parse *p, const struct blob_page_disk *page, uint32_t leaf)
{
    uint64_t first = (uint64_t)leaf * BLOB_LEAF_CLUSTERS;
    uint32_t n, pos = 0;
    struct blob_desc d, more;

    if (le32_get(page->sequence) != 0 || le32_get(page->next) != BLOB_NO_PAGE)
        return -EBADMSG;
    if (blob_desc_next(page, &pos, &d) != 1 || d.type != BLOB_DESC_EXTENT_PAGE)
        return -EBADMSG;
    if (blob_desc_next(page, &pos, &more) != 0)
        return -EBADMSG;
    if (d.len <= 4 || d.len % 4 != 0 || le32_at(d.data) != first)
        return -EBADMSG;
    n = d.len / 4 - 1;
    if (n > BLOB_LEAF_CLUSTERS || (leaf + 1 < p->map->nleaves && n < BLOB_LEAF_CLUSTERS))
        return -EBADMSG;
    /* SPDK writes the last page of a blob before the root when the blob's size changes, and takes
     * the size from the page if only that came about. */
    if (leaf + 1 == p->map->nleaves)
        p->map->nclusters = first + n;
    if (blob_map_reserve(p->map, first) < 0)
        return -ENOMEM;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t cluster = le32_at(d.data + 4 + 4 * i);

        if (cluster >= p->total_clusters)
            return -EBADMSG;
        blob_map_set(p->map, first + i, cluster);
    }
    return 0;
}
