/* SPDX-License-Identifier: Apache-2.0 */
/* The dump: every structure with its place. See dump.h. */
#include "blob/dump.h"

#include <stdarg.h>
#include <stdio.h>

#define VALUE_MAX 640
#define MASK_PIECE (64 * 1024u)
#define RUNS_A_LINE 8

struct dump {
    struct blob_raw raw;
    const struct blob_dump_opts *opts;
    struct rt_task *t;
    uint8_t *page;
    uint8_t *piece; /* MASK_PIECE */
    int rc;         /* of the first line that failed */
    uint64_t empty_from, empties;
    char value[VALUE_MAX];
};

static void line(struct dump *d, uint64_t off, const char *structure, const char *field,
                 const char *fmt, ...) PRINTF_LIKE(5, 6);
static void line(struct dump *d, uint64_t off, const char *structure, const char *field,
                 const char *fmt, ...)
{
    struct blob_dump_line l = {off, structure, field, d->value};
    va_list args;

    if (d->rc < 0)
        return;
    va_start(args, fmt);
    vsnprintf(d->value, sizeof(d->value), fmt, args);
    va_end(args);
    d->rc = d->opts->line(d->t, d->opts->arg, &l);
}

/* Bytes as text: printable ASCII as it is, all else as \xNN; long ones are cut, and so are the
 * zeroes that end or fill up strings. */
static const char *text_of(struct bytes v, char *out, size_t max)
{
    size_t n = 0;

    while (v.len > 0 && v.ptr[v.len - 1] == '\0')
        v.len--;
    for (size_t i = 0; i < v.len; i++) {
        uint8_t c = v.ptr[i];

        if (n + 8 > max) {
            n += (size_t)snprintf(out + n, max - n, "...");
            break;
        }
        if (c >= 0x20 && c < 0x7f && c != '\\' && c != '"')
            out[n++] = (char)c;
        else
            n += (size_t)snprintf(out + n, max - n, "\\x%02x", c);
    }
    out[n] = '\0';
    return out;
}

/* --- super block ------------------------------------------------------------------------------ */

#define SUPER(off, field, ...) line(d, off, "super block", field, __VA_ARGS__)

static void dump_super(struct dump *d)
{
    const struct blob_raw_super *s = &d->raw.super;
    char text[72];

    SUPER(0, "signature", "%s", s->signature_ok ? "SPDKBLOB" : "wrong");
    SUPER(8, "version", "%u", s->version);
    SUPER(12, "length", "%u", s->length);
    SUPER(16, "clean", "%u", s->clean);
    if (s->super_blob == UINT64_MAX)
        SUPER(20, "super_blob", "none");
    else
        SUPER(20, "super_blob", "0x%lx", s->super_blob);
    SUPER(28, "cluster_size", "%u", s->cluster_bytes);
    SUPER(32, "used_page_mask_start", "%u", s->page_mask_start);
    SUPER(36, "used_page_mask_len", "%u", s->page_mask_len);
    SUPER(40, "used_cluster_mask_start", "%u", s->cluster_mask_start);
    SUPER(44, "used_cluster_mask_len", "%u", s->cluster_mask_len);
    SUPER(48, "md_start", "%u", s->md_start);
    SUPER(52, "md_len", "%u", s->md_len);
    SUPER(56, "bstype", "\"%s\"", text_of(bytes_make(s->bstype, 16), text, sizeof(text)));
    SUPER(72, "used_blobid_mask_start", "%u", s->blobid_mask_start);
    SUPER(76, "used_blobid_mask_len", "%u", s->blobid_mask_len);
    SUPER(80, "size", "%lu", s->size_bytes);
    SUPER(88, "io_unit_size", "%u", s->io_unit_bytes);
    SUPER(92, "md_page_size", "%u", s->page_bytes);
    SUPER(4092, "crc", "0x%08x%s", s->crc, s->crc_ok ? "" : " (wrong)");
}

/* --- masks ------------------------------------------------------------------------------------ */

/* Runs of set bits collect in `text` until a line is full. */
struct runs {
    struct dump *d;
    const char *name;
    uint64_t off, line_off, from, set;
    bool open;
    unsigned n;
    size_t len;
    char text[RUNS_A_LINE * 24];
};

static void runs_line(struct runs *r)
{
    if (r->n > 0)
        line(r->d, r->line_off, r->name, "used", "%s", r->text);
    r->n = 0;
    r->len = 0;
}

static void runs_end(struct runs *r, uint64_t to)
{
    if (!r->open)
        return;
    r->open = false;
    if (r->n == 0)
        r->line_off = r->off + 5 + r->from / 8;
    r->len += (size_t)snprintf(r->text + r->len, sizeof(r->text) - r->len, "%s%lu",
                               r->n > 0 ? " " : "", r->from);
    if (to > r->from)
        r->len += (size_t)snprintf(r->text + r->len, sizeof(r->text) - r->len, "-%lu", to);
    if (++r->n == RUNS_A_LINE)
        runs_line(r);
}

static void runs_bit(struct runs *r, uint64_t n, bool set)
{
    r->set += set;
    if (set && !r->open) {
        r->open = true;
        r->from = n;
    } else if (!set && r->open) {
        runs_end(r, n - 1);
    }
}

static int dump_mask(struct dump *d, const char *name, uint32_t start, uint32_t len)
{
    uint64_t page = d->raw.super.page_bytes, bytes = len * page, bits = 0, n = 0;
    struct runs r = {.d = d, .name = name, .off = start * page};

    for (uint64_t at = 0; at < bytes && d->rc == 0; at += MASK_PIECE) {
        size_t size = MIN(bytes - at, MASK_PIECE), skip = at == 0 ? 5 : 0;
        int rc = blob_raw_read(d->t, &d->raw, r.off + at, d->piece, size);

        if (rc < 0)
            return rc;
        if (at == 0) {
            bits = MIN(le32_at(d->piece + 1), (bytes - 5) * 8);
            line(d, r.off, name, "type", "%u", d->piece[0]);
            line(d, r.off + 1, name, "bits", "%u", le32_at(d->piece + 1));
        }
        for (size_t i = skip; i < size && n < bits; i++) {
            for (unsigned bit = 0; bit < 8 && n < bits; bit++, n++)
                runs_bit(&r, n, (d->piece[i] >> bit & 1) != 0);
        }
    }
    if (n > 0)
        runs_end(&r, n - 1);
    runs_line(&r);
    line(d, r.off, name, "set", "%lu of %lu", r.set, bits);
    return d->rc;
}

static int dump_masks(struct dump *d)
{
    const struct blob_raw_super *s = &d->raw.super;
    int rc;

    rc = dump_mask(d, "used page mask", s->page_mask_start, s->page_mask_len);
    if (rc == 0)
        rc = dump_mask(d, "used cluster mask", s->cluster_mask_start, s->cluster_mask_len);
    if (rc == 0 && s->blobid_mask_len > 0)
        rc = dump_mask(d, "used blob id mask", s->blobid_mask_start, s->blobid_mask_len);
    return rc;
}

/* --- descriptors ------------------------------------------------------------------------------ */

#define PAGE "metadata page"

static const struct {
    unsigned word;
    uint64_t bit;
    const char *name;
} flag_names[] = {
    {0, BLOB_RAW_THIN, "thin"},
    {0, BLOB_RAW_HAS_INTERNAL, "internal-xattr"},
    {0, BLOB_RAW_HAS_TABLE, "extent-table"},
    {0, BLOB_RAW_EXTERNAL, "external-snapshot"},
    {1, BLOB_RAW_READ_ONLY, "read-only"},
};

static void dump_flags(struct dump *d, const struct blob_raw_desc *e, uint64_t off)
{
    static const char *const clear[] = {"default", "none", "unmap", "write-zeroes"};
    static const char *const words[] = {"flags.invalid", "flags.data_ro", "flags.md_ro"};

    if (e->len != 24) {
        line(d, off, PAGE, "flags", "%u bytes, not 24", e->len);
        return;
    }
    for (unsigned w = 0; w < 3; w++) {
        uint64_t v = le64_at(e->payload + 8 * (size_t)w);
        char text[96] = "";
        size_t n = 0;

        for (unsigned i = 0; i < ARRAY_LEN(flag_names); i++) {
            if (flag_names[i].word == w && (v & flag_names[i].bit))
                n += (size_t)snprintf(text + n, sizeof(text) - n, " %s", flag_names[i].name);
        }
        if (w == 2)
            snprintf(text, sizeof(text), " clear=%s", clear[v & BLOB_RAW_CLEAR_MASK]);
        line(d, off + 5 + 8ull * w, PAGE, words[w], "0x%lx%s", v, text);
    }
}

static void dump_attr(struct dump *d, const struct blob_raw_desc *e, uint64_t off)
{
    bool internal = e->type == BLOB_RAW_INTERNAL;
    struct blob_raw_xattr x;
    char name[128], value[400];

    if (blob_raw_xattr(e, &x) < 0) {
        line(d, off, PAGE, "xattr", "%u bytes that do not add up", e->len);
        return;
    }
    text_of(x.name, name, sizeof(name));
    if (internal && x.value.len == 8)
        line(d, off, PAGE, "internal xattr", "%s = 0x%lx", name, le64_at(x.value.ptr));
    else
        line(d, off, PAGE, internal ? "internal xattr" : "xattr", "%s = \"%s\" (%zu bytes)", name,
             text_of(x.value, value, sizeof(value)), x.value.len);
}

/* Pairs of two numbers, a line each. */
static void dump_pairs(struct dump *d, const struct blob_raw_desc *e, uint64_t off, bool table)
{
    for (uint32_t at = table ? 8 : 0; at + 8 <= e->len; at += 8) {
        uint32_t a = le32_at(e->payload + at), b = le32_at(e->payload + at + 4);
        uint64_t where = off + 5 + at;

        if (table && a != 0)
            line(d, where, PAGE, "table entry", "page %u, count %u", a, b);
        else if (table)
            line(d, where, PAGE, "table entry", "none, %u times", b);
        else if (a != 0)
            line(d, where, PAGE, "extent", "clusters %u-%lu", a, (uint64_t)a + b - 1);
        else
            line(d, where, PAGE, "extent", "%u clusters not allocated", b);
    }
}

/* The clusters of an extent page as runs, or one by one. */
static void dump_clusters(struct dump *d, const struct blob_raw_desc *e, uint64_t off)
{
    uint32_t n = e->len / 4, i = 1;
    uint64_t start;

    if (e->len < 4) {
        line(d, off, "extent page", "clusters", "%u bytes", e->len);
        return;
    }
    start = le32_at(e->payload);
    line(d, off + 5, "extent page", "start", "%lu, %u entries", start, n - 1);
    while (i < n) {
        uint32_t first = le32_at(e->payload + 4 * (size_t)i), run = 1;
        uint64_t index = start + i - 1, where = off + 5 + 4ull * i;

        while (!d->opts->all && i + run < n &&
               le32_at(e->payload + 4 * (size_t)(i + run)) == (first == 0 ? 0 : first + run))
            run++;
        if (first == 0)
            line(d, where, "extent page", "not allocated", "%lu-%lu", index, index + run - 1);
        else if (run == 1)
            line(d, where, "extent page", "cluster", "%lu is %u", index, first);
        else
            line(d, where, "extent page", "clusters", "%lu-%lu are %u-%u", index, index + run - 1,
                 first, first + run - 1);
        i += run;
    }
}

static void dump_desc(struct dump *d, const struct blob_raw_desc *e, uint64_t off)
{
    switch (e->type) {
    case BLOB_RAW_PADDING:
        line(d, off, PAGE, "padding", "%u bytes", e->len);
        break;
    case BLOB_RAW_RLE:
        line(d, off, PAGE, "extents", "%u runs", e->len / 8);
        dump_pairs(d, e, off, false);
        break;
    case BLOB_RAW_XATTR:
    case BLOB_RAW_INTERNAL:
        dump_attr(d, e, off);
        break;
    case BLOB_RAW_FLAGS:
        dump_flags(d, e, off);
        break;
    case BLOB_RAW_TABLE:
        if (e->len < 8) {
            line(d, off, PAGE, "extent table", "%u bytes", e->len);
            break;
        }
        line(d, off + 5, PAGE, "extent table", "%lu clusters, %u entries", le64_at(e->payload),
             (e->len - 8) / 8);
        dump_pairs(d, e, off, true);
        break;
    case BLOB_RAW_EXTENTS:
        dump_clusters(d, e, off);
        break;
    default:
        line(d, off, PAGE, "descriptor", "type %u (unknown), %u bytes", e->type, e->len);
    }
}

/* --- pages ------------------------------------------------------------------------------------ */

static void dump_page(struct dump *d, uint32_t md_page)
{
    uint64_t off = blob_raw_page_off(&d->raw, md_page);
    const uint8_t *p = d->page;
    struct blob_raw_desc e = {0};
    uint32_t pos = 0;
    int more;

    line(d, off, PAGE, "page", "%u%s", md_page,
         blob_raw_is_root(p, md_page) ? ", root of a blob" : "");
    line(d, off, PAGE, "id", "0x%lx", blob_raw_page_id(p));
    line(d, off + 8, PAGE, "sequence", "%u", blob_raw_page_seq(p));
    while ((more = blob_raw_desc_next(p, &pos, &e)) == 1)
        dump_desc(d, &e, off + e.off);
    if (more < 0)
        line(d, off + e.off, PAGE, "descriptor", "type %u, %u bytes: longer than the page", e.type,
             e.len);
    if (blob_raw_page_next(p) == BLOB_RAW_NONE)
        line(d, off + 4088, PAGE, "next", "none");
    else
        line(d, off + 4088, PAGE, "next", "%u", blob_raw_page_next(p));
    line(d, off + 4092, PAGE, "crc", "0x%08x%s", le32_at(p + 4092),
         blob_raw_crc_ok(p) ? "" : " (wrong)");
}

static void dump_empties(struct dump *d)
{
    if (d->empties > 0 && d->opts->all)
        line(d, blob_raw_page_off(&d->raw, (uint32_t)d->empty_from), PAGE, "zeroes",
             "pages %lu-%lu", d->empty_from, d->empty_from + d->empties - 1);
    d->empties = 0;
}

static int dump_pages(struct dump *d)
{
    for (uint64_t i = 0; i < d->raw.super.md_len && d->rc == 0; i++) {
        int rc = blob_raw_page(d->t, &d->raw, (uint32_t)i, d->page);

        if (rc < 0)
            return rc;
        if (bytes_are_zero(d->page, BLOB_RAW_BYTES)) {
            if (d->empties++ == 0)
                d->empty_from = i;
            continue;
        }
        dump_empties(d);
        dump_page(d, (uint32_t)i);
    }
    dump_empties(d);
    return d->rc;
}

/* The extent pages that the descriptors of the page in `root` name. It is kept aside meanwhile. */
static int dump_extent_pages(struct dump *d)
{
    uint8_t *kept = d->piece;
    struct blob_raw_desc e;
    uint32_t pos = 0;
    int rc = 0;

    memcpy(kept, d->page, BLOB_RAW_BYTES);
    while (rc == 0 && blob_raw_desc_next(kept, &pos, &e) == 1) {
        for (uint32_t at = 8; e.type == BLOB_RAW_TABLE && at + 8 <= e.len && rc == 0; at += 8) {
            uint32_t md_page = le32_at(e.payload + at);

            if (md_page == 0 || md_page >= d->raw.super.md_len)
                continue;
            rc = blob_raw_page(d->t, &d->raw, md_page, d->page);
            if (rc == 0)
                dump_page(d, md_page);
        }
    }
    memcpy(d->page, kept, BLOB_RAW_BYTES);
    return rc < 0 ? rc : d->rc;
}

static int dump_blob(struct dump *d)
{
    uint32_t at = (uint32_t)d->opts->blob;
    int rc = 0;

    if (d->opts->blob >> 32 != 1)
        return -ENOENT;
    /* No longer than the store: pages may go round in circles. */
    for (uint64_t seq = 0; seq < d->raw.super.md_len && at != BLOB_RAW_NONE && rc == 0; seq++) {
        rc = blob_raw_page(d->t, &d->raw, at, d->page);
        if (rc == -ERANGE || (rc == 0 && seq == 0 && blob_raw_page_id(d->page) != d->opts->blob))
            return seq == 0 ? -ENOENT : d->rc;
        if (rc < 0)
            return rc;
        dump_page(d, at);
        rc = dump_extent_pages(d);
        if (blob_raw_page_seq(d->page) != seq || !blob_raw_crc_ok(d->page))
            break;
        at = blob_raw_page_next(d->page);
    }
    return rc < 0 ? rc : d->rc;
}

/* Whether the masks and pages that the super block names lie on the device. */
static bool can_follow(const struct blob_raw *raw)
{
    const struct blob_raw_super *s = &raw->super;
    uint64_t end = MAX(MAX((uint64_t)s->page_mask_start + s->page_mask_len,
                           (uint64_t)s->cluster_mask_start + s->cluster_mask_len),
                       MAX((uint64_t)s->blobid_mask_start + s->blobid_mask_len,
                           (uint64_t)s->md_start + s->md_len));

    return s->page_bytes >= BLOB_RAW_BYTES && s->page_mask_len > 0 && s->cluster_mask_len > 0 &&
           end <= raw->dev_bytes / s->page_bytes;
}

static int dump_all(struct dump *d)
{
    int rc;

    if (!d->raw.super.signature_ok)
        return -ENODATA;
    if (d->opts->blob == 0)
        dump_super(d);
    if (d->rc < 0)
        return d->rc;
    if (!can_follow(&d->raw))
        return -EBADMSG;
    if (d->opts->blob != 0)
        return dump_blob(d);
    rc = dump_masks(d);
    return rc < 0 ? rc : dump_pages(d);
}

int blob_dump(struct rt_task *t, struct blk_chan *chan, const struct blob_dump_opts *opts)
{
    CLEANUP(free_p) struct dump *d = calloc(1, sizeof(*d));
    CLEANUP(free_p) uint8_t *mem = aligned_alloc(4096, MASK_PIECE + BLOB_RAW_BYTES);
    int rc;

    if (d == NULL || mem == NULL)
        return -ENOMEM;
    d->opts = opts;
    d->t = t;
    d->piece = mem;
    d->page = mem + MASK_PIECE;
    rc = blob_raw_init(t, chan, &d->raw);
    if (rc == 0)
        rc = dump_all(d);
    blob_raw_fini(&d->raw);
    return rc;
}
