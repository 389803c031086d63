/* SPDX-License-Identifier: Apache-2.0 */
/*
 * blob_check(): super block, geometry, the walk over the metadata pages in the manner of a replay,
 * and the masks, which have to say what the walk has found.
 */
#include "blob/check_internal.h"

#include <stdarg.h>
#include <stdio.h>

#define MEM_MAX_DEFAULT (1 * GIB)
#define MASK_HEAD 5u

const char *blob_check_severity_name(enum blob_check_severity s)
{
    static const char *const names[] = {"note", "warning", "error"};

    return names[s];
}

void ck_say(struct check *ck, enum blob_check_severity s, const char *structure, uint64_t off,
            uint64_t blob, const char *fmt, ...)
{
    struct blob_check_finding f = {s, structure, off, blob, ck->text};
    va_list args;

    ck->rep->errors += s == BLOB_CHECK_ERROR;
    ck->rep->warnings += s == BLOB_CHECK_WARNING;
    ck->rep->notes += s == BLOB_CHECK_NOTE;
    if (ck->opts->found == NULL)
        return;
    va_start(args, fmt);
    vsnprintf(ck->text, sizeof(ck->text), fmt, args);
    va_end(args);
    ck->opts->found(ck->opts->arg, &f);
}

#define SUPER_SAYS(ck, severity, off, ...)                                                         \
    ck_say(ck, severity, "super block", off, UINT64_MAX, __VA_ARGS__)

/* --- super block ------------------------------------------------------------------------------ */

static int check_identity(struct check *ck)
{
    const struct blob_raw_super *s = &ck->raw.super;

    if (!s->signature_ok) {
        SUPER_SAYS(ck, BLOB_CHECK_ERROR, 0, "no signature: no blobstore begins here");
        return -ENODATA;
    }
    if (!s->crc_ok)
        SUPER_SAYS(ck, BLOB_CHECK_ERROR, 4092, "its checksum is wrong: the store cannot be opened");
    if (s->version < 1 || s->version > 3) {
        SUPER_SAYS(ck, BLOB_CHECK_ERROR, 8, "version %u is not known (1 to 3 are)", s->version);
        return -ENOTSUP;
    }
    if (s->length != BLOB_RAW_BYTES)
        SUPER_SAYS(ck, BLOB_CHECK_WARNING, 12, "length is %u, not 4096", s->length);
    if (s->clean > 1)
        SUPER_SAYS(ck, BLOB_CHECK_WARNING, 16, "clean is %u, not 0 or 1", s->clean);
    if (s->blobid_mask_len == 0)
        SUPER_SAYS(ck, BLOB_CHECK_NOTE, 76,
                   "no blob id mask (older than version 3): every load is a replay");
    return 0;
}

/* Sizes that everything else is computed from. */
static int check_units(struct check *ck)
{
    const struct blob_raw_super *s = &ck->raw.super;

    if (s->page_bytes < 4096 || s->page_bytes > MIB || (s->page_bytes & (s->page_bytes - 1)) != 0) {
        SUPER_SAYS(ck, BLOB_CHECK_ERROR, 92, "metadata pages of %u bytes are not possible",
                   s->page_bytes);
        return -EBADMSG;
    }
    if (s->cluster_bytes < s->page_bytes || s->cluster_bytes % s->page_bytes != 0) {
        SUPER_SAYS(ck, BLOB_CHECK_ERROR, 28, "clusters of %u bytes are not possible (pages of %u)",
                   s->cluster_bytes, s->page_bytes);
        return -EBADMSG;
    }
    if (s->io_unit_bytes < 512 || (s->io_unit_bytes & (s->io_unit_bytes - 1)) != 0 ||
        s->io_unit_bytes > s->cluster_bytes)
        SUPER_SAYS(ck, BLOB_CHECK_ERROR, 88, "an io unit of %u bytes is not possible",
                   s->io_unit_bytes);
    if (s->size_bytes > ck->raw.dev_bytes)
        SUPER_SAYS(ck, BLOB_CHECK_ERROR, 80, "the store has %lu bytes, the device only %lu",
                   s->size_bytes, ck->raw.dev_bytes);
    return 0;
}

struct region {
    const char *name;
    uint64_t field;      /* its place in the super block */
    uint64_t start, len; /* pages */
    uint64_t need;       /* bytes */
};

static uint64_t mask_bytes(uint64_t bits)
{
    return MASK_HEAD + (bits + 7) / 8;
}

/* Masks and metadata lie one after the other behind the super block. */
static int check_regions(struct check *ck)
{
    const struct blob_raw_super *s = &ck->raw.super;
    const struct region regions[] = {
        {"page mask", 32, s->page_mask_start, s->page_mask_len, mask_bytes(s->md_len)},
        {"cluster mask", 40, s->cluster_mask_start, s->cluster_mask_len, mask_bytes(ck->clusters)},
        {"blob id mask", 72, s->blobid_mask_start, s->blobid_mask_len, mask_bytes(s->md_len)},
        {"metadata", 48, s->md_start, s->md_len, 1},
    };
    uint64_t end = 1;
    int rc = 0;

    for (unsigned i = 0; i < ARRAY_LEN(regions); i++) {
        const struct region *r = &regions[i];

        if (r->field == 72 && r->len == 0)
            continue;
        if (r->start < end) {
            SUPER_SAYS(ck, BLOB_CHECK_ERROR, r->field,
                       "%s begins at page %lu, inside of what is before it (to page %lu)", r->name,
                       r->start, end - 1);
            rc = -EBADMSG;
        }
        if (r->len * s->page_bytes < r->need) {
            SUPER_SAYS(ck, BLOB_CHECK_ERROR, r->field + 4, "%s has %lu pages, %lu bytes are needed",
                       r->name, r->len, r->need);
            rc = -EBADMSG;
        }
        end = MAX(end, r->start + r->len);
    }
    if (end * s->page_bytes > ck->raw.dev_bytes || ck->reserved > ck->clusters) {
        SUPER_SAYS(ck, BLOB_CHECK_ERROR, 48,
                   "the metadata needs %lu clusters, the store has %lu (device of %lu bytes)",
                   ck->reserved, ck->clusters, ck->raw.dev_bytes);
        rc = -EBADMSG;
    }
    return rc;
}

static int check_super(struct rt_task *t, struct check *ck)
{
    struct blob_raw_super *s = &ck->raw.super;
    int rc;

    rc = check_identity(ck);
    if (rc < 0)
        return rc;
    rc = check_units(ck);
    if (rc < 0)
        return rc;
    rc = blob_raw_read(t, &ck->raw, 0, ck->chain, BLOB_RAW_BYTES);
    if (rc < 0)
        return rc;
    if (!bytes_are_zero(ck->chain + 96, 4092 - 96))
        SUPER_SAYS(ck, BLOB_CHECK_WARNING, 96, "reserved bytes are not zero");
    ck->clusters = blob_raw_clusters(s);
    ck->reserved = blob_raw_reserved(s);
    ck->md_len = s->md_len;
    ck->lvolstore = memcmp(s->bstype, "LVOLSTORE\0\0\0\0\0\0", 16) == 0;
    if (ck->clusters >= UINT32_MAX) {
        SUPER_SAYS(ck, BLOB_CHECK_ERROR, 80, "%lu clusters: numbers have 32 bits", ck->clusters);
        return -EBADMSG;
    }
    return check_regions(ck);
}

/* --- the walk over the pages ------------------------------------------------------------------ */

/* Notes what a page is that may turn out to be of no blob. */
static void classify(struct check *ck, uint32_t md_page, const uint8_t *page)
{
    if (bytes_are_zero(page, BLOB_RAW_BYTES))
        return;
    ck->page_kind[md_page] |= CK_PAGE_NONZERO;
    if (blob_raw_page_id(page) == (BLOB_RAW_ID_HIGH | md_page) && blob_raw_page_seq(page) == 0)
        ck->page_kind[md_page] |= CK_PAGE_ROOTLIKE;
}

static int walk_window(struct rt_task *t, struct check *ck, uint32_t first, uint32_t n)
{
    uint32_t page_bytes = ck->raw.super.page_bytes;
    int rc;

    rc = blob_raw_read(t, &ck->raw, ck_page_off(ck, first), ck->window, (size_t)n * page_bytes);
    if (rc < 0)
        return rc;
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        const uint8_t *page = ck->window + (size_t)i * page_bytes;

        classify(ck, first + i, page);
        if ((ck->page_kind[first + i] & CK_PAGE_ROOTLIKE) && blob_raw_crc_ok(page))
            rc = ck_walk_blob(t, ck, first + i, page);
    }
    return rc;
}

static int walk(struct rt_task *t, struct check *ck)
{
    uint32_t step = MAX(CK_WINDOW_BYTES / ck->raw.super.page_bytes, 1u);
    int rc = 0;

    for (uint64_t i = 0; i < ck->md_len && rc == 0; i += step)
        rc = walk_window(t, ck, (uint32_t)i, (uint32_t)MIN(step, ck->md_len - i));
    return rc;
}

/* What lies in pages that no blob has. After a crash that is what the interrupted operation left:
 * replay takes the pages as free. A root that cannot be read is a blob lost, or not yet made. */
static void check_leftovers(struct check *ck, bool masks)
{
    uint64_t stale = 0;

    for (uint32_t i = 0; i < ck->md_len; i++) {
        uint8_t kind = ck->page_kind[i];

        if (!(kind & CK_PAGE_NONZERO) || ck->page_owner[i] != CK_NOBODY)
            continue;
        if (kind & CK_PAGE_ROOTLIKE)
            ck_say(ck, masks ? BLOB_CHECK_NOTE : BLOB_CHECK_WARNING, "metadata page",
                   ck_page_off(ck, i), BLOB_RAW_ID_HIGH | i,
                   "page %u is the root of a blob by its id, but its checksum is wrong", i);
        else
            stale++;
    }
    if (stale > 0)
        ck_say(ck, BLOB_CHECK_NOTE, "metadata", ck_page_off(ck, 0), UINT64_MAX,
               "%lu pages of no blob are not zero", stale);
}

/* --- masks ------------------------------------------------------------------------------------ */

enum mask_kind { MASK_PAGES = 0, MASK_CLUSTERS = 1, MASK_BLOBS = 2 };

struct mask {
    enum mask_kind kind;
    const char *name;
    uint64_t off, len_bytes; /* on the device, whole pages */
    uint64_t bits, unused;   /* what it has to cover; bits it has set that nobody needs */
    uint64_t first_unused;
};

/* Whether blobs use what bit n stands for, as the walk has found. */
static bool in_use(const struct check *ck, const struct mask *m, uint64_t n)
{
    if (m->kind == MASK_CLUSTERS)
        return n < ck->reserved || ck->cluster_owner[n] != CK_NOBODY;
    if (ck->page_owner[n] == CK_NOBODY)
        return false;
    return m->kind == MASK_PAGES || ck->blob[ck->page_owner[n] - 1].root == n;
}

static void bit_differs(struct check *ck, struct mask *m, uint64_t n, bool set)
{
    uint64_t off = m->off + MASK_HEAD + n / 8;

    if (set && m->kind == MASK_BLOBS) {
        ck_say(ck, BLOB_CHECK_ERROR, m->name, off, BLOB_RAW_ID_HIGH | n,
               "bit %lu is set, but there is no root of a blob in that page", n);
    } else if (set) {
        if (m->unused++ == 0)
            m->first_unused = n;
    } else {
        ck_say(ck, BLOB_CHECK_ERROR, m->name, off,
               m->kind == MASK_CLUSTERS && n < ck->reserved ? UINT64_MAX
               : m->kind == MASK_CLUSTERS ? ck->blob[ck->cluster_owner[n] - 1].pub.id
                                          : ck->blob[ck->page_owner[n] - 1].pub.id,
               "bit %lu is clear, but it is in use: it would be given away a second time", n);
    }
}

/* One piece of a mask; `at` is its first byte, counted behind the head. */
static void compare_bytes(struct check *ck, struct mask *m, uint64_t at, const uint8_t *p,
                          size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (p[i] == 0 && (at + i) * 8 >= m->bits)
            continue; /* most of a small store's masks */
        for (unsigned bit = 0; bit < 8; bit++) {
            uint64_t n = (at + i) * 8 + bit;
            bool set = (p[i] >> bit & 1) != 0;

            if (n >= m->bits) {
                if (set)
                    ck_say(ck, BLOB_CHECK_WARNING, m->name, m->off + MASK_HEAD + at + i, UINT64_MAX,
                           "a bit is set behind the last one (%lu)", n);
                continue;
            }
            if (m->kind == MASK_CLUSTERS && !set)
                ck->rep->free_clusters++;
            if (set != in_use(ck, m, n))
                bit_differs(ck, m, n, set);
        }
    }
}

static int mask_head(struct check *ck, const struct mask *m, const uint8_t *p)
{
    if (p[0] != m->kind) {
        ck_say(ck, BLOB_CHECK_ERROR, m->name, m->off, UINT64_MAX, "its type is %u, not %u", p[0],
               m->kind);
        return -EBADMSG;
    }
    if (le32_at(p + 1) != m->bits)
        ck_say(ck, BLOB_CHECK_ERROR, m->name, m->off + 1, UINT64_MAX, "it has %u bits, not %lu",
               le32_at(p + 1), m->bits);
    return 0;
}

static int check_mask(struct rt_task *t, struct check *ck, struct mask m)
{
    for (uint64_t at = 0; at < m.len_bytes; at += CK_WINDOW_BYTES) {
        size_t n = MIN(m.len_bytes - at, CK_WINDOW_BYTES);
        size_t skip = at == 0 ? MASK_HEAD : 0;
        int rc = blob_raw_read(t, &ck->raw, m.off + at, ck->window, n);

        if (rc < 0)
            return rc;
        if (at == 0 && mask_head(ck, &m, ck->window) < 0)
            return 0;
        compare_bytes(ck, &m, at + skip - MASK_HEAD, ck->window + skip, n - skip);
    }
    if (m.unused > 0)
        ck_say(ck, BLOB_CHECK_WARNING, m.name, m.off + MASK_HEAD + m.first_unused / 8, UINT64_MAX,
               "%lu bits are set that no blob uses (the first is %lu): lost until a replay",
               m.unused, m.first_unused);
    return 0;
}

static int check_masks(struct rt_task *t, struct check *ck)
{
    const struct blob_raw_super *s = &ck->raw.super;
    uint64_t page = s->page_bytes;
    const struct mask masks[] = {
        {MASK_PAGES, "page mask", s->page_mask_start * page, s->page_mask_len * page, s->md_len},
        {MASK_CLUSTERS, "cluster mask", s->cluster_mask_start * page, s->cluster_mask_len * page,
         ck->clusters},
        {MASK_BLOBS, "blob id mask", s->blobid_mask_start * page, s->blobid_mask_len * page,
         s->md_len},
    };
    int rc = 0;

    ck->rep->free_clusters = 0;
    for (unsigned i = 0; i < ARRAY_LEN(masks) && rc == 0; i++)
        rc = check_mask(t, ck, masks[i]);
    return rc;
}

/* --- the whole -------------------------------------------------------------------------------- */

static int take_memory(struct check *ck)
{
    uint64_t max = ck->opts->mem_max_bytes != 0 ? ck->opts->mem_max_bytes : MEM_MAX_DEFAULT;

    if (5ull * ck->md_len + 4 * ck->clusters > max)
        return -ENOMEM;
    ck->page_owner = calloc(MAX(ck->md_len, 1u), sizeof(*ck->page_owner));
    ck->page_kind = calloc(MAX(ck->md_len, 1u), sizeof(*ck->page_kind));
    ck->cluster_owner = calloc(MAX(ck->clusters, 1u), sizeof(*ck->cluster_owner));
    ck->conflict = calloc(CK_CONFLICTS_MAX, sizeof(*ck->conflict));
    return ck->page_owner == NULL || ck->page_kind == NULL || ck->cluster_owner == NULL ||
                   ck->conflict == NULL
               ? -ENOMEM
               : 0;
}

static void give_memory(struct check *ck)
{
    free(ck->page_owner);
    free(ck->page_kind);
    free(ck->cluster_owner);
    free(ck->conflict);
    free(ck->blob);
    free(ck->mem);
    blob_raw_fini(&ck->raw);
    free(ck);
}

static void give_memory_p(struct check **pck)
{
    if (*pck != NULL)
        give_memory(*pck);
}

static void count(struct check *ck)
{
    struct blob_check_report *r = ck->rep;

    r->blobs = ck->nblobs;
    r->clusters = ck->clusters;
    r->reserved_clusters = ck->reserved;
    r->md_pages = ck->md_len;
    for (uint64_t i = 0; i < ck->clusters; i++)
        r->used_clusters += ck->cluster_owner[i] != CK_NOBODY;
    for (uint32_t i = 0; i < ck->md_len; i++)
        r->used_md_pages += ck->page_owner[i] != CK_NOBODY;
    r->free_clusters = ck->clusters - ck->reserved - r->used_clusters;
}

static void hand_out(struct check *ck)
{
    for (size_t i = 0; i < ck->nblobs && ck->opts->blob != NULL; i++) {
        struct ck_blob *b = &ck->blob[i];

        b->pub.name = b->name;
        b->pub.uuid = b->uuid;
        ck->opts->blob(ck->opts->arg, &b->pub);
    }
}

static int check_all(struct rt_task *t, struct check *ck)
{
    bool masks;
    int rc;

    rc = check_super(t, ck);
    if (rc < 0)
        return rc;
    rc = take_memory(ck);
    if (rc < 0)
        return rc;
    rc = walk(t, ck);
    if (rc < 0)
        return rc;
    ck_relations(ck);
    ck_conflicts(ck);
    ck_lvolstore(ck);
    ck->rep->clean = ck->raw.super.clean != 0 && ck->raw.super.blobid_mask_len != 0;
    masks = ck->rep->clean && !ck->opts->ignore_masks;
    count(ck);
    check_leftovers(ck, masks);
    if (!ck->rep->clean)
        SUPER_SAYS(ck, BLOB_CHECK_NOTE, 16,
                   "the store was not closed cleanly: masks are stale and not compared");
    if (masks)
        rc = check_masks(t, ck);
    hand_out(ck);
    return rc;
}

int blob_check(struct rt_task *t, struct blk_chan *chan, const struct blob_check_opts *opts,
               struct blob_check_report *out)
{
    static const struct blob_check_opts none;
    CLEANUP(give_memory_p) struct check *ck = calloc(1, sizeof(*ck));
    int rc;

    if (ck == NULL)
        return -ENOMEM;
    *out = (struct blob_check_report){0};
    ck->opts = opts != NULL ? opts : &none;
    ck->rep = out;
    rc = blob_raw_init(t, chan, &ck->raw);
    if (rc < 0)
        return rc;
    out->super = ck->raw.super;
    ck->mem =
        aligned_alloc(4096, MAX(CK_WINDOW_BYTES, MIN(ck->raw.super.page_bytes, MIB) & ~4095ull) +
                                2 * (size_t)BLOB_RAW_BYTES);
    if (ck->mem == NULL)
        return -ENOMEM;
    ck->chain = ck->mem;
    ck->extents = ck->mem + BLOB_RAW_BYTES;
    ck->window = ck->mem + 2 * (size_t)BLOB_RAW_BYTES;
    return check_all(t, ck);
}
