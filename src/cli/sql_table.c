/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/sql_table.h"

#include "base/util.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HELD_ROWS 1000
#define HELD_BYTES (1 * MIB)

struct buf {
    char *p;
    size_t len, cap;
};

static int buf_add(struct buf *b, const char *p, size_t len)
{
    if (b->len + len > b->cap) {
        size_t cap = MAX(2 * b->cap, b->len + len + 256);
        char *bigger = realloc(b->p, cap);

        if (bigger == NULL)
            return -ENOMEM;
        b->p = bigger;
        b->cap = cap;
    }
    memcpy(b->p + b->len, p, len);
    b->len += len;
    return 0;
}

/* --- characters ------------------------------------------------------------------------------- */

/* The code point at `s` and its bytes; 1 byte and UINT32_MAX when it is no UTF-8. */
static unsigned code_point(const char *s, size_t len, uint32_t *out)
{
    const uint8_t *p = (const uint8_t *)s;
    unsigned n = p[0] < 0x80 ? 1 : p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : p[0] >= 0xc2 ? 2 : 0;
    uint32_t c = n == 1 ? p[0] : p[0] & (0xffu >> (n + 1));

    *out = UINT32_MAX;
    if (n == 0 || n > len || p[0] > 0xf4)
        return 1;
    for (unsigned i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 1;
        c = c << 6 | (p[i] & 0x3f);
    }
    *out = c;
    return n;
}

static bool within(uint32_t c, const uint32_t (*ranges)[2], size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (c >= ranges[i][0] && c <= ranges[i][1])
            return true;
    }
    return false;
}

static unsigned width_of(uint32_t c)
{
    static const uint32_t none[][2] = {
        {0x300, 0x36f},   {0x483, 0x489},   {0x591, 0x5bd},   {0x64b, 0x65f},   {0x1ab0, 0x1aff},
        {0x1dc0, 0x1dff}, {0x200b, 0x200f}, {0x20d0, 0x20ff}, {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}};
    static const uint32_t wide[][2] = {{0x1100, 0x115f}, {0x2e80, 0xa4cf},   {0xac00, 0xd7a3},
                                       {0xf900, 0xfaff}, {0xfe30, 0xfe6f},   {0xff00, 0xff60},
                                       {0xffe0, 0xffe6}, {0x1f300, 0x1faff}, {0x20000, 0x3fffd}};

    if (within(c, none, ARRAY_LEN(none)))
        return 0;
    return within(c, wide, ARRAY_LEN(wide)) ? 2 : 1;
}

unsigned sql_text_width(const char *text, size_t len)
{
    unsigned width = 0;
    uint32_t c;

    for (size_t i = 0; i < len;) {
        i += code_point(text + i, len - i, &c);
        width += c == UINT32_MAX ? 1 : width_of(c);
    }
    return width;
}

/* What of a value is shown: control characters and what is no UTF-8 as \n, \x1B; cut to `max`
 * cells. Returns the width. */
static unsigned show(struct buf *out, const char *text, size_t len, unsigned max, int *rc)
{
    size_t cut = out->len;
    unsigned width = 0, cut_width = 0;

    for (size_t i = 0; i < len;) {
        char escape[8];
        uint32_t c;
        unsigned n = code_point(text + i, len - i, &c), w;

        if (c == '\n' || c == '\t' || c == '\r') {
            w = (unsigned)snprintf(escape, sizeof(escape), "\\%c",
                                   c == '\n'   ? 'n'
                                   : c == '\t' ? 't'
                                               : 'r');
            *rc |= buf_add(out, escape, w);
        } else if (c == UINT32_MAX || c < 0x20 || (c >= 0x7f && c < 0xa0)) {
            w = (unsigned)snprintf(escape, sizeof(escape), "\\x%02X",
                                   c == UINT32_MAX ? (uint8_t)text[i] : c);
            *rc |= buf_add(out, escape, w);
        } else {
            w = width_of(c);
            *rc |= buf_add(out, text + i, n);
        }
        i += n;
        width += w;
        if (max != 0 && width > max) {
            out->len = cut;
            *rc |= buf_add(out, "…", strlen("…"));
            return cut_width + 1;
        }
        if (max == 0 || width < max) {
            cut = out->len;
            cut_width = width;
        }
    }
    return width;
}

/* --- records of CSV --------------------------------------------------------------------------- */

/* A record as it comes in: fields are one after the other in `text`. */
struct cell {
    size_t at, len;
    unsigned width;
    bool null;
};

struct record {
    struct buf text;
    struct cell *cells;
    unsigned n, cap;
    size_t begin; /* of the field that is being read */
    bool quoted;  /* it had quotes */
    bool in_quotes;
    bool quote_seen; /* in quotes: the last byte was one, its meaning depends on the next */
};

static int end_field(struct record *r)
{
    if (r->n == r->cap) {
        unsigned cap = MAX(16u, 2 * r->cap);
        struct cell *bigger = realloc(r->cells, cap * sizeof(*bigger));

        if (bigger == NULL)
            return -ENOMEM;
        r->cells = bigger;
        r->cap = cap;
    }
    r->cells[r->n++] = (struct cell){.at = r->begin,
                                     .len = r->text.len - r->begin,
                                     .null = r->text.len == r->begin && !r->quoted};
    r->begin = r->text.len;
    r->quoted = false;
    return 0;
}

static void record_clear(struct record *r)
{
    r->n = 0;
    r->text.len = r->begin = 0;
    r->quoted = false;
}

/* Takes bytes up to the end of a record: 1 then, 0 when more are needed. */
static int take_record(struct record *r, const char **p, const char *end)
{
    int rc = 0;

    while (rc == 0 && *p < end) {
        char c = *(*p)++;

        if (r->in_quotes && !r->quote_seen) {
            if (c == '"')
                r->quote_seen = true;
            else
                rc = buf_add(&r->text, &c, 1);
            continue;
        }
        if (r->quote_seen) {
            r->quote_seen = false;
            r->in_quotes = c == '"';
            if (c == '"') {
                rc = buf_add(&r->text, &c, 1);
                continue;
            }
        }
        if (c == '"' && r->text.len == r->begin && !r->quoted)
            r->in_quotes = r->quoted = true;
        else if (c == ',' || c == '\n')
            rc = end_field(r);
        else if (c != '\r')
            rc = buf_add(&r->text, &c, 1);
        if (rc == 0 && c == '\n')
            return 1;
    }
    return rc;
}

int sql_csv_each(const char *csv, size_t len,
                 int (*each)(void *arg, const struct sql_field *f, unsigned n), void *arg)
{
    const char *p = csv, *end = csv + len;
    struct record r = {0};
    struct sql_field *f = NULL;
    unsigned cap = 0;
    int rc;

    while ((rc = take_record(&r, &p, end)) == 1) {
        if (r.n > cap) {
            free(f);
            cap = r.n;
            f = calloc(cap, sizeof(*f));
            if (f == NULL) {
                rc = -ENOMEM;
                break;
            }
        }
        for (unsigned i = 0; i < r.n; i++)
            f[i] = (struct sql_field){
                .text = r.text.p + r.cells[i].at, .len = r.cells[i].len, .null = r.cells[i].null};
        rc = each(arg, f, r.n);
        if (rc != 0)
            break;
        record_clear(&r);
    }
    free(f);
    free(r.text.p);
    free(r.cells);
    return rc;
}

/* --- the table -------------------------------------------------------------------------------- */

struct sql_table {
    struct sql_table_opts o;
    struct record in;
    struct buf text;   /* of the held cells, as they are shown */
    struct cell *held; /* ncols each: names, types if known, rows */
    size_t nheld, cap; /* cells */
    unsigned ncols;
    unsigned nheads; /* records before the rows: 1 or 2 */
    unsigned *width;
    bool *right; /* numbers */
    bool begun;  /* what was held has been written */
    uint64_t rows;
    struct buf line;
};

struct sql_table *sql_table_new(const struct sql_table_opts *o)
{
    struct sql_table *tab = calloc(1, sizeof(*tab));

    if (tab != NULL)
        tab->o = *o;
    return tab;
}

void sql_table_free(struct sql_table *tab)
{
    if (tab == NULL)
        return;
    free(tab->in.text.p);
    free(tab->in.cells);
    free(tab->text.p);
    free(tab->held);
    free(tab->width);
    free(tab->right);
    free(tab->line.p);
    free(tab);
}

static bool numeric_type(const char *type, size_t len)
{
    static const char *const names[] = {"TINYINT", "SMALLINT", "INTEGER",   "BIGINT",
                                        "HUGEINT", "UTINYINT", "USMALLINT", "UINTEGER",
                                        "UBIGINT", "UHUGEINT", "FLOAT",     "DOUBLE"};

    if (len >= 7 && strncmp(type, "DECIMAL", 7) == 0)
        return type[len - 1] != ']';
    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        if (len == strlen(names[i]) && strncmp(type, names[i], len) == 0)
            return true;
    }
    return false;
}

static bool looks_numeric(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if (!isdigit((unsigned char)s[i]) && strchr("+-.eE", s[i]) == NULL)
            return false;
    }
    return len > 0;
}

static int hold(struct sql_table *tab, const struct record *r)
{
    unsigned max = tab->o.style == SQL_LINE ? 0 : tab->o.width_max;
    int rc = 0;

    if (tab->nheld + tab->ncols > tab->cap) {
        size_t cap = MAX(2 * tab->cap, tab->nheld + tab->ncols);
        struct cell *bigger = realloc(tab->held, cap * sizeof(*bigger));

        if (bigger == NULL)
            return -ENOMEM;
        tab->held = bigger;
        tab->cap = cap;
    }
    for (unsigned i = 0; i < tab->ncols; i++) {
        struct cell *c = &tab->held[tab->nheld++];
        const struct cell *in = i < r->n ? &r->cells[i] : NULL;
        bool null = in == NULL || in->null;

        *c = (struct cell){.at = tab->text.len, .null = null};
        if (null)
            c->width = show(&tab->text, tab->o.null_text, strlen(tab->o.null_text), max, &rc);
        else
            c->width = show(&tab->text, r->text.p + in->at, in->len, max, &rc);
        c->len = tab->text.len - c->at;
    }
    return rc < 0 ? -ENOMEM : 0;
}

static int header(struct sql_table *tab)
{
    const char *p = tab->o.types, *end = p + tab->o.types_len;
    struct record types = {0};
    int rc = 0;

    tab->ncols = tab->in.n;
    tab->width = calloc(tab->ncols, sizeof(*tab->width));
    tab->right = calloc(tab->ncols, sizeof(*tab->right));
    if (tab->width == NULL || tab->right == NULL)
        return -ENOMEM;
    rc = hold(tab, &tab->in);
    tab->nheads = 1;
    if (rc == 0 && p != NULL && take_record(&types, &p, end) == 1 && types.n == tab->ncols) {
        for (unsigned i = 0; i < tab->ncols; i++)
            tab->right[i] = numeric_type(types.text.p + types.cells[i].at, types.cells[i].len);
        rc = hold(tab, &types);
        tab->nheads = 2;
    }
    free(types.text.p);
    free(types.cells);
    return rc;
}

static size_t held_rows(const struct sql_table *tab)
{
    return tab->nheld / tab->ncols;
}

static void measure(struct sql_table *tab)
{
    bool guess = tab->nheads == 1 && held_rows(tab) > 1;

    for (unsigned i = 0; i < tab->ncols; i++) {
        if (guess)
            tab->right[i] = true;
        for (size_t row = 0; row < held_rows(tab); row++) {
            const struct cell *c = &tab->held[row * tab->ncols + i];

            tab->width[i] = MAX(tab->width[i], c->width);
            if (guess && row > 0 && !c->null && !looks_numeric(tab->text.p + c->at, c->len))
                tab->right[i] = false;
        }
    }
}

static int spaces(struct buf *b, unsigned n)
{
    int rc = 0;

    while (n-- > 0 && rc == 0)
        rc = buf_add(b, " ", 1);
    return rc;
}

static void put_line(struct sql_table *tab)
{
    while (tab->line.len > 0 && tab->line.p[tab->line.len - 1] == ' ')
        tab->line.len--;
    tab->o.put(tab->o.arg, tab->line.p, tab->line.len);
    tab->o.put(tab->o.arg, "\n", 1);
    tab->line.len = 0;
}

static int put_row(struct sql_table *tab, const struct cell *cells)
{
    int rc = 0;

    for (unsigned i = 0; i < tab->ncols && rc == 0; i++) {
        const struct cell *c = &cells[i];
        unsigned pad = tab->width[i] - MIN(c->width, tab->width[i]);

        rc = buf_add(&tab->line, i > 0 ? " | " : " ", i > 0 ? 3 : 1);
        if (rc == 0 && tab->right[i])
            rc = spaces(&tab->line, pad);
        if (rc == 0)
            rc = buf_add(&tab->line, tab->text.p + c->at, c->len);
        if (rc == 0 && !tab->right[i])
            rc = spaces(&tab->line, pad);
    }
    put_line(tab);
    return rc;
}

static int put_rule(struct sql_table *tab)
{
    int rc = 0;

    for (unsigned i = 0; i < tab->ncols && rc == 0; i++) {
        if (i > 0)
            rc = buf_add(&tab->line, "+", 1);
        for (unsigned k = 0; k < tab->width[i] + 2 && rc == 0; k++)
            rc = buf_add(&tab->line, "-", 1);
    }
    put_line(tab);
    return rc;
}

/* name = value, a line each, the names to the right. */
static int put_block(struct sql_table *tab, const struct cell *cells)
{
    unsigned widest = 0;
    int rc = 0;

    for (unsigned i = 0; i < tab->ncols; i++)
        widest = MAX(widest, tab->held[i].width);
    if (tab->rows++ > 0)
        put_line(tab);
    for (unsigned i = 0; i < tab->ncols && rc == 0; i++) {
        rc = spaces(&tab->line, widest - tab->held[i].width);
        if (rc == 0)
            rc = buf_add(&tab->line, tab->text.p + tab->held[i].at, tab->held[i].len);
        if (rc == 0)
            rc = buf_add(&tab->line, " = ", 3);
        if (rc == 0)
            rc = buf_add(&tab->line, tab->text.p + cells[i].at, cells[i].len);
        put_line(tab);
    }
    return rc;
}

static int put_cells(struct sql_table *tab, const struct cell *cells)
{
    if (tab->o.style == SQL_LINE)
        return put_block(tab, cells);
    tab->rows++;
    return put_row(tab, cells);
}

/* Writes what is held and keeps of it the names only. */
static int begin(struct sql_table *tab)
{
    int rc = 0;

    tab->begun = true;
    if (tab->ncols == 0)
        return 0;
    measure(tab);
    if (tab->o.style == SQL_TABLE) {
        for (unsigned i = 0; i < tab->nheads && rc == 0; i++)
            rc = put_row(tab, &tab->held[i * tab->ncols]);
        if (rc == 0)
            rc = put_rule(tab);
    }
    for (size_t row = tab->nheads; row < held_rows(tab) && rc == 0; row++)
        rc = put_cells(tab, &tab->held[row * tab->ncols]);
    tab->nheld = (size_t)tab->nheads * tab->ncols;
    tab->text.len = tab->held[tab->nheld - 1].at + tab->held[tab->nheld - 1].len;
    return rc;
}

static int take_row(struct sql_table *tab)
{
    size_t text_len = tab->text.len, nheld = tab->nheld;
    int rc;

    if (tab->ncols == 0)
        return header(tab);
    rc = hold(tab, &tab->in);
    if (rc == 0 && tab->begun) {
        rc = put_cells(tab, &tab->held[nheld]);
        tab->nheld = nheld;
        tab->text.len = text_len;
    } else if (rc == 0 && (held_rows(tab) > HELD_ROWS || tab->text.len > HELD_BYTES)) {
        rc = begin(tab);
    }
    return rc;
}

int sql_table_feed(struct sql_table *tab, const char *csv, size_t len)
{
    const char *p = csv, *end = csv + len;
    int rc;

    while ((rc = take_record(&tab->in, &p, end)) == 1) {
        rc = take_row(tab);
        if (rc < 0)
            return rc;
        record_clear(&tab->in);
    }
    return rc;
}

int sql_table_end(struct sql_table *tab, uint64_t *out_rows)
{
    int rc = tab->begun ? 0 : begin(tab);

    *out_rows = tab->rows;
    return rc;
}
