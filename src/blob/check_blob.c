/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blob_check(): the pages of one blob, from its root along the chain, with their descriptors and
 * the extent pages. Each page and cluster is claimed for the blob, which is how double use shows.
 */
#include "blob/check_internal.h"

#include "base/map.h"

#include <stdio.h>

#define PAGE "metadata page"
#define EXTENT_PAGE "extent page"

/* A finding in the blob being walked. */
#define SAY(ck, severity, structure, off, ...)                                                     \
    ck_say(ck, severity, structure, off, (ck)->b->pub.id, __VA_ARGS__)
#define BAD(ck, structure, off, ...)                                                               \
    do {                                                                                           \
        (ck)->b->pub.broken = true;                                                                \
        SAY(ck, BLOB_CHECK_ERROR, structure, off, __VA_ARGS__);                                    \
    } while (0)

/* --- claims ----------------------------------------------------------------------------------- */

static uint32_t me(const struct check *ck)
{
    return (uint32_t)(ck->b - ck->blob) + 1;
}

/* Sharing is legal between the two halves of an interrupted snapshot: judged later. */
static void conflict(struct check *ck, uint32_t first, bool page, uint64_t number, uint64_t off)
{
    uint32_t second = me(ck);

    for (unsigned i = 0; i < ck->nconflicts; i++) {
        struct ck_conflict *c = &ck->conflict[i];

        if (c->first == first && c->second == second && c->page == page) {
            c->count++;
            return;
        }
    }
    if (ck->nconflicts == CK_CONFLICTS_MAX)
        ck->more_conflicts++;
    else
        ck->conflict[ck->nconflicts++] = (struct ck_conflict){first, second, page, number, 1, off};
}

/* False: it must not be read as a page of this blob. `off` is where it is named. */
static bool claim_page(struct check *ck, uint32_t md_page, enum ck_page kind, uint64_t off)
{
    uint32_t owner = ck->page_owner[md_page];

    if (owner == CK_NOBODY) {
        ck->page_owner[md_page] = me(ck);
        ck->page_kind[md_page] |= kind;
        return true;
    }
    if (owner == me(ck)) {
        BAD(ck, PAGE, off, "page %u is in the blob twice", md_page);
        return false;
    }
    if (kind == CK_EXTENTS && (ck->page_kind[md_page] & CK_PAGE_KIND) == CK_EXTENTS) {
        conflict(ck, owner, true, md_page, off);
        return true;
    }
    BAD(ck, PAGE, off, "page %u is already one of blob 0x%lx", md_page, ck->blob[owner - 1].pub.id);
    return false;
}

static void claim_cluster(struct check *ck, uint32_t cluster, const char *structure, uint64_t off)
{
    uint32_t owner;

    if (cluster >= ck->clusters) {
        BAD(ck, structure, off, "cluster %u is behind the end of the store (%lu clusters)", cluster,
            ck->clusters);
        return;
    }
    if (cluster < ck->reserved) {
        BAD(ck, structure, off, "cluster %u holds metadata (the first %lu do)", cluster,
            ck->reserved);
        return;
    }
    ck->b->pub.allocated++;
    owner = ck->cluster_owner[cluster];
    if (owner == CK_NOBODY)
        ck->cluster_owner[cluster] = me(ck);
    else if (owner == me(ck))
        BAD(ck, structure, off, "cluster %u is in the blob twice", cluster);
    else
        conflict(ck, owner, false, cluster, off);
}

/* --- descriptors ------------------------------------------------------------------------------ */

static void take_flags(struct check *ck, const struct blob_raw_desc *d, uint64_t off)
{
    struct blob_check_blob *p = &ck->b->pub;

    if (d->len != 24) {
        BAD(ck, PAGE, off, "flags of %u bytes, not 24", d->len);
        return;
    }
    if (ck->b->has_flags)
        BAD(ck, PAGE, off, "flags a second time");
    ck->b->has_flags = true;
    p->invalid = le64_at(d->payload);
    p->data_ro = le64_at(d->payload + 8);
    p->md_ro = le64_at(d->payload + 16);
    if (p->invalid & ~(uint64_t)BLOB_RAW_INVALID_KNOWN)
        BAD(ck, PAGE, off, "unknown flags 0x%lx: the blob cannot be opened",
            p->invalid & ~(uint64_t)BLOB_RAW_INVALID_KNOWN);
    if (p->data_ro & ~(uint64_t)BLOB_RAW_READ_ONLY)
        SAY(ck, BLOB_CHECK_WARNING, PAGE, off, "unknown flags 0x%lx: its data are read-only",
            p->data_ro & ~(uint64_t)BLOB_RAW_READ_ONLY);
    if (p->md_ro & ~(uint64_t)BLOB_RAW_CLEAR_MASK)
        SAY(ck, BLOB_CHECK_WARNING, PAGE, off, "unknown flags 0x%lx: its metadata are read-only",
            p->md_ro & ~(uint64_t)BLOB_RAW_CLEAR_MASK);
}

static bool ends_in_nul(struct bytes v)
{
    return v.len > 0 && v.ptr[v.len - 1] == '\0';
}

/* Text up to a NUL, for people; what is no printable ASCII becomes '?'. */
static void text_of(struct bytes v, char *out, size_t max)
{
    size_t n = 0;

    for (; n < v.len && n < max && v.ptr[n] != '\0'; n++)
        out[n] = v.ptr[n] >= 0x20 && v.ptr[n] < 0x7f ? (char)v.ptr[n] : '?';
    out[n] = '\0';
}

static void take_user_attr(struct check *ck, const struct blob_raw_xattr *x)
{
    struct ck_blob *b = ck->b;

    if (bytes_eq(x->name, bytes_of_str("name"))) {
        b->has_name = true;
        b->names_bad = x->value.len > CK_NAME_MAX || !ends_in_nul(x->value);
        text_of(x->value, b->name, CK_NAME_MAX);
    } else if (bytes_eq(x->name, bytes_of_str("uuid"))) {
        b->has_uuid = x->value.len == CK_UUID_BYTES && ends_in_nul(x->value);
        text_of(x->value, b->uuid, CK_UUID_BYTES);
    }
}

static void take_internal_attr(struct check *ck, const struct blob_raw_xattr *x, uint64_t off)
{
    struct ck_blob *b = ck->b;
    bool snap = bytes_eq(x->name, bytes_of_str("SNAP"));
    bool making = bytes_eq(x->name, bytes_of_str("SNAPTMP"));
    bool removing = bytes_eq(x->name, bytes_of_str("SNAPRM"));

    if (bytes_eq(x->name, bytes_of_str("EXTSNAP"))) {
        b->has_esnap = true;
        return;
    }
    if (!snap && !making && !removing)
        return;
    if (x->value.len != 8) {
        BAD(ck, PAGE, off, "%.*s has %zu bytes, not 8", (int)x->name.len, x->name.ptr,
            x->value.len);
        return;
    }
    if (snap) {
        b->has_snap = true;
        b->pub.parent = le64_at(x->value.ptr);
    } else {
        b->pub.making |= making;
        b->pub.removing |= removing;
        b->marked = le64_at(x->value.ptr);
    }
}

static void take_attr(struct check *ck, const struct blob_raw_desc *d, uint64_t off)
{
    struct blob_raw_xattr x;
    uint64_t hash;

    if (blob_raw_xattr(d, &x) < 0) {
        BAD(ck, PAGE, off, "xattr of %u bytes: name and value do not fill it", d->len);
        return;
    }
    if (x.name.len == 0)
        SAY(ck, BLOB_CHECK_WARNING, PAGE, off, "xattr without a name");
    hash = hash_bytes(x.name) + d->type;
    for (unsigned i = 0; i < ck->nnames; i++) {
        if (ck->name_hash[i] == hash)
            SAY(ck, BLOB_CHECK_WARNING, PAGE, off, "xattr '%.*s' a second time",
                (int)MIN(x.name.len, 64u), x.name.ptr);
    }
    if (ck->nnames < ARRAY_LEN(ck->name_hash))
        ck->name_hash[ck->nnames++] = hash;
    if (d->type == BLOB_RAW_XATTR)
        take_user_attr(ck, &x);
    else
        take_internal_attr(ck, &x, off);
}

/* --- extents ---------------------------------------------------------------------------------- */

static void take_rle(struct check *ck, const struct blob_raw_desc *d, uint64_t off)
{
    if (ck->b->pub.table)
        BAD(ck, PAGE, off, "extents as runs beside an extent table");
    ck->b->has_rle = true;
    if (d->len == 0 || d->len % 8 != 0) {
        BAD(ck, PAGE, off, "runs of extents of %u bytes, no multiple of 8", d->len);
        return;
    }
    for (uint32_t at = 0; at < d->len; at += 8) {
        uint32_t first = le32_at(d->payload + at), n = le32_at(d->payload + at + 4);

        if (n == 0)
            SAY(ck, BLOB_CHECK_WARNING, PAGE, off + 5 + at, "a run of no clusters");
        ck->seen += n;
        if (first == 0) {
            ck->b->hole |= n > 0;
            continue;
        }
        if (n > ck->clusters || first > ck->clusters - n) {
            BAD(ck, PAGE, off + 5 + at,
                "clusters %u to %lu: behind the end of the store (%lu clusters)", first,
                (uint64_t)first + n - 1, ck->clusters);
            continue;
        }
        for (uint32_t i = 0; i < n; i++)
            claim_cluster(ck, first + i, PAGE, off + 5 + at);
    }
}

/* How many entries the extent page has, or -EBADMSG when it is none. */
static int extent_page_form(struct check *ck, uint64_t off, struct blob_raw_desc *d)
{
    const uint8_t *p = ck->extents;
    struct blob_raw_desc more;
    uint32_t pos = 0;

    if (!blob_raw_crc_ok(p)) {
        BAD(ck, EXTENT_PAGE, off, "its checksum is wrong");
        return -EBADMSG;
    }
    if (blob_raw_page_seq(p) != 0 || blob_raw_page_next(p) != BLOB_RAW_NONE)
        BAD(ck, EXTENT_PAGE, off, "sequence %u and next 0x%x, not 0 and 0xffffffff",
            blob_raw_page_seq(p), blob_raw_page_next(p));
    if (le32_at(p + 12) != 0)
        SAY(ck, BLOB_CHECK_WARNING, EXTENT_PAGE, off + 12, "reserved bytes are not zero");
    if (blob_raw_desc_next(p, &pos, d) != 1 || d->type != BLOB_RAW_EXTENTS || d->len <= 4 ||
        d->len % 4 != 0) {
        BAD(ck, EXTENT_PAGE, off, "no list of clusters in it: the whole store would be refused");
        return -EBADMSG;
    }
    if (blob_raw_desc_next(p, &pos, &more) != 0)
        BAD(ck, EXTENT_PAGE, off + more.off, "something follows the list of clusters (type %u)",
            more.type);
    return (int)(d->len / 4 - 1);
}

static void extent_page_len(struct check *ck, uint32_t md_page, uint64_t off, uint64_t n,
                            uint64_t left)
{
    uint64_t expect = MIN(left, BLOB_RAW_PER_PAGE);

    if (n < expect)
        BAD(ck, EXTENT_PAGE, off, "page %u has %lu clusters, the table expects %lu", md_page, n,
            expect);
    else if (n > BLOB_RAW_PER_PAGE)
        BAD(ck, EXTENT_PAGE, off, "page %u has %lu clusters, more than 512", md_page, n);
    else if (n > expect)
        SAY(ck, BLOB_CHECK_WARNING, EXTENT_PAGE, off,
            "page %u has %lu clusters, the table expects %lu: a growth was interrupted", md_page, n,
            expect);
}

/* The page that a table entry (at byte `named`) names. */
static int take_extent_page(struct rt_task *t, struct check *ck, uint32_t md_page, uint64_t named)
{
    uint64_t off = ck_page_off(ck, md_page);
    uint64_t left = ck->want > ck->seen ? ck->want - ck->seen : 0;
    struct blob_raw_desc d;
    int n, rc;

    if (md_page >= ck->md_len) {
        BAD(ck, PAGE, named, "extent page %u: there are only %u pages", md_page, ck->md_len);
        ck->seen += MIN(left, BLOB_RAW_PER_PAGE);
        return 0;
    }
    if (!claim_page(ck, md_page, CK_EXTENTS, named)) {
        ck->seen += MIN(left, BLOB_RAW_PER_PAGE);
        return 0;
    }
    rc = blob_raw_page(t, &ck->raw, md_page, ck->extents);
    if (rc < 0)
        return rc;
    ck->b->pub.extent_pages++;
    n = extent_page_form(ck, off, &d);
    if (n < 0) {
        ck->seen += MIN(left, BLOB_RAW_PER_PAGE);
        return 0;
    }
    if (le32_at(d.payload) != ck->seen)
        BAD(ck, EXTENT_PAGE, off + d.off + 5, "it begins at cluster %u of the blob, not %lu",
            le32_at(d.payload), ck->seen);
    extent_page_len(ck, md_page, off, (uint64_t)n, left);
    for (uint32_t i = 0; i < (uint32_t)n; i++) {
        uint32_t cluster = le32_at(d.payload + 4 + 4 * i);

        if (cluster == 0)
            ck->b->hole |= i < left;
        else
            claim_cluster(ck, cluster, EXTENT_PAGE, off + d.off + 9 + 4ull * i);
    }
    ck->seen += (uint64_t)n;
    return 0;
}

/* A run of table entries without a page. The last of them may stand for fewer clusters. */
static void take_missing(struct check *ck, uint32_t count, uint64_t off)
{
    uint64_t left = ck->want > ck->seen ? ck->want - ck->seen : 0;
    uint64_t entries = (left + BLOB_RAW_PER_PAGE - 1) / BLOB_RAW_PER_PAGE;

    if (count == 0)
        SAY(ck, BLOB_CHECK_WARNING, PAGE, off, "an entry of the extent table that counts none");
    if (count > entries)
        BAD(ck, PAGE, off, "extent table: %u entries without a page, only %lu are left", count,
            entries);
    ck->seen += MIN(left, (uint64_t)count * BLOB_RAW_PER_PAGE);
    ck->b->hole |= left > 0 && count > 0;
}

static int take_table(struct rt_task *t, struct check *ck, const struct blob_raw_desc *d,
                      uint64_t off)
{
    uint64_t want;
    int rc = 0;

    if (ck->b->has_rle)
        BAD(ck, PAGE, off, "an extent table beside extents as runs");
    if (d->len < 8 || d->len % 8 != 0) {
        BAD(ck, PAGE, off, "extent table of %u bytes", d->len);
        return 0;
    }
    want = le64_at(d->payload);
    if (ck->b->pub.table && want != ck->want)
        BAD(ck, PAGE, off + 5, "extent table of %lu clusters, its beginning says %lu", want,
            ck->want);
    ck->want = ck->b->pub.table ? ck->want : want;
    ck->b->pub.table = true;
    for (uint32_t at = 8; at < d->len && rc == 0; at += 8) {
        uint32_t md_page = le32_at(d->payload + at), count = le32_at(d->payload + at + 4);

        if (md_page == 0) {
            take_missing(ck, count, off + 5 + at);
            continue;
        }
        if (count != 1)
            BAD(ck, PAGE, off + 5 + at, "extent page %u counts %u entries, not 1", md_page, count);
        rc = take_extent_page(t, ck, md_page, off + 5 + at);
    }
    return rc;
}

/* --- pages ------------------------------------------------------------------------------------ */

static int take_page(struct rt_task *t, struct check *ck, const uint8_t *page)
{
    struct blob_raw_desc d;
    uint32_t pos = 0;
    int more, rc = 0;

    while ((more = blob_raw_desc_next(page, &pos, &d)) == 1 && rc == 0) {
        uint64_t off = ck->page_at + d.off;

        switch (d.type) {
        case BLOB_RAW_PADDING:
            break;
        case BLOB_RAW_RLE:
            take_rle(ck, &d, off);
            break;
        case BLOB_RAW_XATTR:
        case BLOB_RAW_INTERNAL:
            take_attr(ck, &d, off);
            break;
        case BLOB_RAW_FLAGS:
            take_flags(ck, &d, off);
            break;
        case BLOB_RAW_TABLE:
            rc = take_table(t, ck, &d, off);
            break;
        case BLOB_RAW_EXTENTS:
            BAD(ck, PAGE, off, "a list of clusters outside of an extent page");
            break;
        default:
            BAD(ck, PAGE, off, "descriptor of unknown type %u: replay refuses the store", d.type);
        }
    }
    if (more < 0)
        BAD(ck, PAGE, ck->page_at + d.off, "descriptor of %u bytes does not fit in its page",
            d.len);
    return rc;
}

/* A page of the chain but the root. False: the chain cannot be followed. */
static bool chain_page_ok(struct check *ck, uint32_t md_page, uint32_t seq)
{
    const uint8_t *p = ck->chain;

    if (!blob_raw_crc_ok(p)) {
        BAD(ck, PAGE, ck->page_at, "page %u of the blob's chain: wrong checksum", md_page);
        return false;
    }
    if (blob_raw_page_id(p) != ck->b->pub.id || blob_raw_page_seq(p) != seq) {
        BAD(ck, PAGE, ck->page_at, "page %u has id 0x%lx and sequence %u, not 0x%lx and %u",
            md_page, blob_raw_page_id(p), blob_raw_page_seq(p), ck->b->pub.id, seq);
        return false;
    }
    return true;
}

static int take_chain(struct rt_task *t, struct check *ck)
{
    uint32_t next, seq = 0;
    int rc;

    for (;;) {
        if (le32_at(ck->chain + 12) != 0)
            SAY(ck, BLOB_CHECK_WARNING, PAGE, ck->page_at + 12, "reserved bytes are not zero");
        ck->b->pub.md_pages++;
        rc = take_page(t, ck, ck->chain);
        next = blob_raw_page_next(ck->chain);
        if (rc < 0 || next == BLOB_RAW_NONE)
            return rc;
        if (next >= ck->md_len) {
            BAD(ck, PAGE, ck->page_at + 4088, "page %u follows: there are only %u", next,
                ck->md_len);
            return 0;
        }
        /* Claimed but once: a loop ends here. */
        if (!claim_page(ck, next, CK_CHAIN, ck->page_at + 4088))
            return 0;
        rc = blob_raw_page(t, &ck->raw, next, ck->chain);
        if (rc < 0)
            return rc;
        ck->page_at = ck_page_off(ck, next);
        if (!chain_page_ok(ck, next, ++seq))
            return 0;
    }
}

/* What has to fit together once the whole chain has been read. */
static void check_sum(struct check *ck)
{
    struct ck_blob *b = ck->b;
    uint64_t off = ck_page_off(ck, b->root);
    bool thin = (b->pub.invalid & BLOB_RAW_THIN) != 0;
    bool external = (b->pub.invalid & BLOB_RAW_EXTERNAL) != 0;

    b->pub.clusters = b->pub.table ? MAX(ck->want, ck->seen) : ck->seen;
    if (!b->has_flags)
        SAY(ck, BLOB_CHECK_NOTE, PAGE, off, "the blob has no flags");
    if (b->pub.table && ck->seen < ck->want)
        BAD(ck, PAGE, off, "the extent table ends at cluster %lu of %lu", ck->seen, ck->want);
    if (b->pub.table != ((b->pub.invalid & BLOB_RAW_HAS_TABLE) != 0))
        BAD(ck, PAGE, off,
            b->pub.table ? "an extent table, but not the flag that announces it"
                         : "the flag of an extent table, but there is none");
    if (b->hole && !thin)
        BAD(ck, PAGE, off, "clusters are not allocated, but the blob is not thin");
    if (b->has_snap && (!thin || external)) {
        SAY(ck, BLOB_CHECK_NOTE, PAGE, off, "a parent that does not count (%s)",
            external ? "the blob has an external one" : "the blob is not thin");
        b->pub.parent = UINT64_MAX;
    }
    if (external && b->has_esnap && thin)
        SAY(ck, BLOB_CHECK_NOTE, PAGE, off,
            "the blob stands on an external snapshot, which is not looked at");
    if (b->has_esnap && !external)
        SAY(ck, BLOB_CHECK_WARNING, PAGE, off,
            "the id of an external snapshot, but not the flag: it does not count");
    if (external && (!b->has_esnap || !thin))
        BAD(ck, PAGE, off, "the flag of an external snapshot, but %s",
            thin ? "no EXTSNAP" : "the blob is not thin");
}

static int add_blob(struct check *ck, uint32_t md_page)
{
    if (ck->nblobs == ck->cap) {
        size_t cap = MAX(ck->cap * 2, 16u);
        struct ck_blob *more = realloc(ck->blob, cap * sizeof(*more));

        if (more == NULL)
            return -ENOMEM;
        ck->blob = more;
        ck->cap = cap;
    }
    ck->b = &ck->blob[ck->nblobs++];
    *ck->b = (struct ck_blob){.root = md_page,
                              .pub = {.id = BLOB_RAW_ID_HIGH | md_page, .parent = UINT64_MAX},
                              .marked = UINT64_MAX};
    return 0;
}

int ck_walk_blob(struct rt_task *t, struct check *ck, uint32_t md_page, const uint8_t *root)
{
    int rc;

    rc = add_blob(ck, md_page);
    if (rc < 0)
        return rc;
    ck->want = ck->seen = 0;
    ck->nnames = 0;
    ck->page_at = ck_page_off(ck, md_page);
    claim_page(ck, md_page, CK_CHAIN, ck->page_at);
    memcpy(ck->chain, root, BLOB_RAW_BYTES);
    rc = take_chain(t, ck);
    if (rc < 0)
        return rc;
    check_sum(ck);
    return 0;
}
