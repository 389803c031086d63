/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/sql_scan.h"

#include "base/util.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define DEPTH_MAX 64
#define WITH_MAX 32

/* --- tokens ----------------------------------------------------------------------------------- */

enum kind { END, WORD, IDENT_QUOTED, STRING, OTHER };

struct token {
    enum kind kind;
    size_t at, len; /* quotes included */
    bool open;      /* the text ends within it */
};

struct scan {
    const char *sql;
    size_t len, pos;
    bool in_comment; /* the text ends within one that has an end: slash star */
};

static bool word_byte(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$' || (c & 0x80) != 0;
}

static char at(const struct scan *s, size_t i)
{
    return i < s->len ? s->sql[i] : '\0';
}

static void skip_comment(struct scan *s)
{
    unsigned depth = 1;

    s->pos += 2;
    while (s->pos < s->len && depth > 0) {
        if (at(s, s->pos) == '*' && at(s, s->pos + 1) == '/') {
            depth--;
            s->pos++;
        } else if (at(s, s->pos) == '/' && at(s, s->pos + 1) == '*') {
            depth++;
            s->pos++;
        }
        s->pos++;
    }
    s->in_comment = depth > 0;
    s->pos = MIN(s->pos, s->len);
}

static void skip_blank(struct scan *s)
{
    while (s->pos < s->len) {
        if (isspace((unsigned char)at(s, s->pos))) {
            s->pos++;
        } else if (at(s, s->pos) == '-' && at(s, s->pos + 1) == '-') {
            while (s->pos < s->len && at(s, s->pos) != '\n')
                s->pos++;
        } else if (at(s, s->pos) == '/' && at(s, s->pos + 1) == '*') {
            skip_comment(s);
        } else {
            return;
        }
    }
}

/* From the quote at pos to after the one that ends it; doubled quotes are part of it. */
static void take_quoted(struct scan *s, struct token *t, bool backslash)
{
    char quote = at(s, s->pos++);

    while (s->pos < s->len) {
        char c = at(s, s->pos++);

        if (backslash && c == '\\')
            s->pos++;
        else if (c == quote && at(s, s->pos) == quote)
            s->pos++;
        else if (c == quote)
            return;
    }
    s->pos = s->len;
    t->open = true;
}

/* $tag$ ... $tag$; false when what is at pos does not begin one. */
static bool take_dollar(struct scan *s, struct token *t)
{
    size_t tag = s->pos + 1;
    char *end;

    while (tag < s->len && (isalpha((unsigned char)at(s, tag)) || at(s, tag) == '_'))
        tag++;
    if (at(s, tag) != '$')
        return false;
    tag += 1 - s->pos;
    end = memmem(s->sql + s->pos + tag, s->len - s->pos - tag, s->sql + s->pos, tag);
    t->open = end == NULL;
    s->pos = end == NULL ? s->len : (size_t)(end - s->sql) + tag;
    return true;
}

static struct token next(struct scan *s)
{
    struct token t = {.kind = END};
    char c;

    skip_blank(s);
    t.at = s->pos;
    c = at(s, s->pos);
    if (s->pos >= s->len)
        return t;
    if (c == '\'' || c == '"') {
        t.kind = c == '"' ? IDENT_QUOTED : STRING;
        take_quoted(s, &t, false);
    } else if ((c == 'e' || c == 'E') && at(s, s->pos + 1) == '\'') {
        t.kind = STRING;
        s->pos++;
        take_quoted(s, &t, true);
    } else if (c == '$' && take_dollar(s, &t)) {
        t.kind = STRING;
    } else if (word_byte(c)) {
        t.kind = WORD;
        while (s->pos < s->len && word_byte(at(s, s->pos)))
            s->pos++;
    } else {
        t.kind = OTHER;
        s->pos++;
    }
    t.len = s->pos - t.at;
    return t;
}

static bool is(const struct scan *s, const struct token *t, const char *word)
{
    return t->kind != END && t->len == strlen(word) &&
           strncasecmp(s->sql + t->at, word, t->len) == 0;
}

static bool is_one_of(const struct scan *s, const struct token *t, const char *const *words)
{
    for (; *words != NULL; words++) {
        if (is(s, t, *words))
            return true;
    }
    return false;
}

size_t sql_scan_end(const char *sql, size_t len)
{
    struct scan s = {.sql = sql, .len = len};
    struct token t;

    do {
        t = next(&s);
        if (is(&s, &t, ";"))
            return s.pos;
    } while (t.kind != END);
    return 0;
}

bool sql_scan_blank(const char *sql, size_t len)
{
    struct scan s = {.sql = sql, .len = len};
    struct token t;

    do
        t = next(&s);
    while (is(&s, &t, ";"));
    return t.kind == END && !s.in_comment;
}

/* --- names after FROM ------------------------------------------------------------------------- */

/* What stands between one pair of parentheses. */
struct level {
    bool query; /* a SELECT, not the arguments of a function: FROM is what it says */
    bool from;  /* in its list of tables */
    bool with;  /* in its list of WITH queries */
    bool fresh; /* nothing has been read in it */
};

struct walk {
    struct scan s;
    struct level level[DEPTH_MAX];
    unsigned depth;
    bool expect;       /* a table comes next */
    struct token last; /* before this one */
    struct token with[WITH_MAX];
    unsigned nwith;
};

static const char *const begins_query[] = {"select", "with", "from", NULL};
static const char *const describes[] = {"describe", "summarize", NULL};
static const char *const ends_from[] = {"where",   "group",  "order",     "having", "limit",
                                        "union",   "except", "intersect", "window", "select",
                                        "qualify", "offset", NULL};

/* The bytes that a quoted or bare token means, into out (token.len is enough). */
static size_t unquote(const struct scan *s, const struct token *t, char *out)
{
    char quote = s->sql[t->at];
    size_t n = 0, i = t->at, end = t->at + t->len;

    if (t->kind != STRING && t->kind != IDENT_QUOTED) {
        memcpy(out, s->sql + t->at, t->len);
        return t->len;
    }
    if (!t->open)
        end--;
    for (i++; i < end; i++) {
        out[n++] = s->sql[i];
        if (s->sql[i] == quote)
            i++;
    }
    return n;
}

static bool same_text(const struct scan *s, const struct token *a, const struct token *b)
{
    char *x = malloc(a->len + 1), *y = malloc(b->len + 1);
    bool same = false;

    if (x != NULL && y != NULL) {
        size_t n = unquote(s, a, x), m = unquote(s, b, y);

        same = n == m && strncasecmp(x, y, n) == 0;
    }
    free(x);
    free(y);
    return same;
}

static bool is_with(const struct walk *w, const struct token *t)
{
    for (unsigned i = 0; i < w->nwith; i++) {
        if (t->kind != STRING && same_text(&w->s, &w->with[i], t))
            return true;
    }
    return false;
}

/* dir/key.csv without quotes: up to what cannot be part of such a name. */
static void widen(struct walk *w, struct token *t, bool *bare)
{
    struct scan *s = &w->s;

    while (s->pos < s->len && !isspace((unsigned char)at(s, s->pos)) &&
           strchr(",();'\"", at(s, s->pos)) == NULL &&
           !(at(s, s->pos) == '-' && at(s, s->pos + 1) == '-') &&
           !(at(s, s->pos) == '/' && at(s, s->pos + 1) == '*')) {
        *bare = true;
        s->pos++;
    }
    t->len = s->pos - t->at;
}

/* A token where a table is expected; true when it is the name of an object. */
static bool take_table(struct walk *w, struct token *t, bool *bare)
{
    struct scan ahead;
    struct token after;

    *bare = false;
    if (is(&w->s, t, "lateral"))
        return false;
    w->expect = false;
    if (t->kind == OTHER && !is(&w->s, t, "/") && !is(&w->s, t, "."))
        return false;
    if (t->kind == OTHER || t->kind == WORD)
        widen(w, t, bare);
    *bare |= t->kind == OTHER;
    ahead = w->s;
    after = next(&ahead);
    if (t->kind == WORD && is(&ahead, &after, "("))
        return false; /* a function */
    return *bare || !is_with(w, t);
}

static void open_level(struct walk *w)
{
    struct level *l;

    if (w->depth + 1 == DEPTH_MAX)
        return;
    l = &w->level[++w->depth];
    *l = (struct level){.query = w->expect, .from = w->expect, .fresh = true};
}

static void take_word(struct walk *w, const struct token *t)
{
    struct level *l = &w->level[w->depth];
    bool first = l->fresh;

    l->fresh = false;
    if (first && is_one_of(&w->s, t, describes)) { /* a table, or a query */
        struct scan ahead = w->s;
        struct token after = next(&ahead);

        l->fresh = is_one_of(&w->s, &after, begins_query);
        l->query = true;
        w->expect = !l->fresh;
        return;
    }
    if (first && is_one_of(&w->s, t, begins_query)) {
        l->query = true;
        w->expect = false;
    }
    if (is(&w->s, t, "with"))
        l->with = true;
    else if (is_one_of(&w->s, t, ends_from))
        l->from = l->with = false;
    if (!l->query)
        return;
    if (l->with && w->nwith < WITH_MAX &&
        (is(&w->s, &w->last, "with") || is(&w->s, &w->last, "recursive") ||
         is(&w->s, &w->last, ",")) &&
        !is(&w->s, t, "recursive") && (t->kind == WORD || t->kind == IDENT_QUOTED))
        w->with[w->nwith++] = *t;
    if (is(&w->s, t, "from") && !is(&w->s, &w->last, "distinct")) {
        l->from = w->expect = true;
        l->with = false;
    } else if (is(&w->s, t, "join") || (l->from && is(&w->s, t, ","))) {
        w->expect = true;
    }
}

/* The next name of an object; kind END at the end. */
static struct token walk_next(struct walk *w, bool *bare)
{
    for (;;) {
        struct token t = next(&w->s);

        if (t.kind == END)
            return t;
        if (is(&w->s, &t, "(")) {
            open_level(w);
        } else if (is(&w->s, &t, ")")) {
            w->expect = false;
            w->depth -= w->depth > 0;
        } else if (w->expect && !(w->level[w->depth].fresh && is_one_of(&w->s, &t, begins_query))) {
            w->level[w->depth].fresh = false;
            if (take_table(w, &t, bare)) {
                w->last = t;
                return t;
            }
        } else {
            take_word(w, &t);
        }
        w->last = t;
    }
}

static struct walk *walk_new(const char *sql, size_t len)
{
    struct walk *w = calloc(1, sizeof(*w));

    if (w != NULL) {
        w->s = (struct scan){.sql = sql, .len = len};
        w->level[0] = (struct level){.query = true, .fresh = true};
    }
    return w;
}

int sql_scan_name(const char *sql, size_t len, struct sql_name *out, struct err *why)
{
    struct walk *w = walk_new(sql, len);
    struct token first = {.kind = END}, t;
    bool bare = false;
    int rc = 0;

    *out = (struct sql_name){0};
    if (w == NULL)
        return -ENOMEM;
    while (rc == 0 && (t = walk_next(w, &bare)).kind != END) {
        if (first.kind == END) {
            first = t;
            *out = (struct sql_name){.at = t.at, .len = t.len, .bare = bare};
        } else if (!same_text(&w->s, &first, &t)) {
            rc = err_set(why, -EINVAL,
                         "a statement asks one object, or several as one table ('prefix*'): not "
                         "%.*s and %.*s",
                         (int)first.len, sql + first.at, (int)t.len, sql + t.at);
        }
    }
    if (rc == 0 && first.kind != END) {
        out->text = malloc(first.len + 1);
        if (out->text != NULL)
            out->text_len = unquote(&w->s, &first, out->text);
        else
            rc = -ENOMEM;
    }
    free(w);
    return rc;
}

void sql_name_free(struct sql_name *n)
{
    free(n->text);
    *n = (struct sql_name){0};
}

struct sql_tail sql_scan_tail(const char *sql, size_t len)
{
    struct sql_tail tail = {.at = len};
    struct walk *w = walk_new(sql, len);
    struct token t, last = {.kind = END};
    bool bare = false, table = false;

    if (w == NULL)
        return tail;
    do {
        t = walk_next(w, &bare);
        if (t.kind != END && t.at + t.len == len) {
            last = t;
            table = true;
        }
    } while (t.kind != END);
    if (last.kind == END) {
        last = w->last;
        table = w->expect && last.at + last.len < len;
    }
    if (last.at + last.len == len && (last.kind == WORD || last.kind == OTHER) &&
        (last.kind == WORD || bare)) {
        tail.at = last.at;
    } else if (last.open) {
        tail.quote = sql[last.at];
        tail.at = last.at + 1;
    } else if (last.at + last.len == len) {
        table = false; /* it is complete */
    }
    tail.table = table;
    free(w);
    return tail;
}
