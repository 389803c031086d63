/* SPDX-License-Identifier: Apache-2.0 */
#include "base/param.h"

#include "base/must.h"

#include <stdio.h>
#include <string.h>

/* --- numbers ---------------------------------------------------------------------------------- */

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* whole + frac / scale, scale a power of ten. */
struct decimal {
    uint64_t whole;
    uint64_t frac;
    uint64_t scale;
};

/* Reads digits, optionally '.' and up to 9 more; returns what follows, NULL when there is no number
 * or it is too large. By hand: strtod follows the locale. */
static const char *decimal_take(const char *s, struct decimal *out)
{
    *out = (struct decimal){.scale = 1};
    if (!is_digit(*s))
        return NULL;
    for (; is_digit(*s); s++) {
        if (__builtin_mul_overflow(out->whole, 10u, &out->whole) ||
            __builtin_add_overflow(out->whole, (uint64_t)(*s - '0'), &out->whole))
            return NULL;
    }
    if (*s != '.')
        return s;
    if (!is_digit(*++s))
        return NULL;
    for (; is_digit(*s); s++) {
        if (out->scale == 1000000000)
            return NULL;
        out->frac = out->frac * 10 + (uint64_t)(*s - '0');
        out->scale *= 10;
    }
    return s;
}

static int decimal_times(struct decimal d, uint64_t unit, uint64_t *out)
{
    unsigned __int128 v = (unsigned __int128)d.whole * unit;

    v += (unsigned __int128)d.frac * unit / d.scale;
    if (v > UINT64_MAX)
        return -EINVAL;
    *out = (uint64_t)v;
    return 0;
}

struct unit {
    const char *name;
    uint64_t value;
};

/* A number and one of the units. A fraction needs a unit larger than 1. */
static int parse_with_unit(const char *text, const struct unit *units, size_t nunits, uint64_t *out)
{
    struct decimal d;
    const char *rest = decimal_take(text, &d);

    if (rest == NULL)
        return -EINVAL;
    for (size_t i = 0; i < nunits; i++) {
        if (strcmp(rest, units[i].name) != 0)
            continue;
        if (units[i].value == 1 && d.scale != 1)
            return -EINVAL;
        return decimal_times(d, units[i].value, out);
    }
    return -EINVAL;
}

int parse_size(const char *text, uint64_t *out)
{
    static const struct unit units[] = {
        {"", 1},          {"B", 1},           {"K", KIB},
        {"k", KIB},       {"KiB", KIB},       {"M", MIB},
        {"m", MIB},       {"MiB", MIB},       {"G", GIB},
        {"g", GIB},       {"GiB", GIB},       {"T", KIB * GIB},
        {"t", KIB * GIB}, {"TiB", KIB * GIB}, {"P", MIB * GIB},
        {"p", MIB * GIB}, {"PiB", MIB * GIB},
    };

    return parse_with_unit(text, units, ARRAY_LEN(units), out);
}

int parse_time(const char *text, uint64_t *out_ns)
{
    static const struct unit units[] = {
        {"ns", 1},
        {"us", NS_PER_US},
        {"ms", NS_PER_MS},
        {"s", NS_PER_S},
        {"m", 60 * NS_PER_S},
        {"h", 3600 * NS_PER_S},
        {"d", 24 * 3600 * NS_PER_S},
    };

    if (strcmp(text, "0") == 0) {
        *out_ns = 0;
        return 0;
    }
    return parse_with_unit(text, units, ARRAY_LEN(units), out_ns);
}

static int hex_digit(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -EINVAL;
}

static int parse_hex_u64(const char *digits, uint64_t *out)
{
    uint64_t v = 0;

    if (*digits == '\0' || strlen(digits) > 16)
        return -EINVAL;
    for (; *digits != '\0'; digits++) {
        int d = hex_digit(*digits);

        if (d < 0)
            return -EINVAL;
        v = v << 4 | (uint64_t)d;
    }
    *out = v;
    return 0;
}

int parse_u64(const char *text, uint64_t *out)
{
    struct decimal d;
    const char *rest;

    if (text[0] == '0' && (text[1] == 'x' || text[1] == 'X'))
        return parse_hex_u64(text + 2, out);
    rest = decimal_take(text, &d);
    if (rest == NULL || *rest != '\0' || d.scale != 1)
        return -EINVAL;
    *out = d.whole;
    return 0;
}

static int parse_f64(const char *text, double *out)
{
    struct decimal d;
    const char *rest = decimal_take(text, &d);

    if (rest == NULL || *rest != '\0')
        return -EINVAL;
    *out = (double)d.whole + (double)d.frac / (double)d.scale;
    return 0;
}

static int parse_bool(const char *text, bool *out)
{
    static const char *const yes[] = {"yes", "true", "on", "1"};
    static const char *const no[] = {"no", "false", "off", "0"};

    for (size_t i = 0; i < ARRAY_LEN(yes); i++) {
        if (strcmp(text, yes[i]) == 0 || strcmp(text, no[i]) == 0) {
            *out = strcmp(text, yes[i]) == 0;
            return 0;
        }
    }
    return -EINVAL;
}

/* --- URIs ------------------------------------------------------------------------------------- */

/* Undoes %xx in place. -EINVAL when one is no byte, or NUL, which no path or name can hold. */
static int percent_decode(char *s)
{
    char *to = s;

    for (; *s != '\0'; s++) {
        int hi, lo;

        if (*s != '%') {
            *to++ = *s;
            continue;
        }
        hi = hex_digit(s[1]);
        lo = hi < 0 ? hi : hex_digit(s[2]);
        if (lo < 0 || (hi | lo) == 0)
            return -EINVAL;
        *to++ = (char)(hi << 4 | lo);
        s += 2;
    }
    *to = '\0';
    return 0;
}

static bool has_control(const char *s)
{
    for (; *s != '\0'; s++) {
        if ((unsigned char)*s < ' ' || *s == 0x7f)
            return true;
    }
    return false;
}

static bool is_alpha(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Length of the scheme at the beginning of s, made lower case; 0 when there is none. */
static size_t scheme_take(char *s)
{
    size_t n = 0;

    if (!is_alpha(s[0]))
        return 0;
    while (is_alpha(s[n]) || is_digit(s[n]) || (s[n] != '\0' && strchr("+-._", s[n]) != NULL)) {
        if (s[n] >= 'A' && s[n] <= 'Z')
            s[n] = (char)(s[n] - 'A' + 'a');
        n++;
    }
    return s[n] == ':' ? n : 0;
}

/* Cuts s at the first `mark`; returns what follows it, NULL when it is not there. */
static char *cut_at(char *s, char mark)
{
    char *at = strchr(s, mark);

    if (at == NULL)
        return NULL;
    *at = '\0';
    return at + 1;
}

int uri_parse(const char *text, struct uri *out, struct err *why)
{
    size_t len = strnlen(text, URI_MAX);
    char *path, *query, *fragment;
    size_t scheme_len;

    if (len == URI_MAX)
        return err_set(why, -ENAMETOOLONG, "a URI has at most %d bytes", URI_MAX - 1);
    memcpy(out->text, text, len + 1);
    if (has_control(text))
        return err_set(why, -EINVAL, "the URI contains control characters; write them as %%xx");
    scheme_len = scheme_take(out->text);
    if (scheme_len == 0)
        return err_set(why, -EINVAL, "'%.60s' is no URI: it begins with a scheme, as in dir:/data",
                       text);
    out->text[scheme_len] = '\0';
    path = out->text + scheme_len + 1;
    fragment = cut_at(path, '#');
    query = cut_at(path, '?');
    if (path[0] == '/' && path[1] == '/')
        path += 2;
    if (percent_decode(path) < 0 || (fragment != NULL && percent_decode(fragment) < 0))
        return err_set(why, -EINVAL,
                       "'%.60s': %% has to be followed by two hexadecimal digits, "
                       "not 00",
                       text);
    out->scheme = out->text;
    out->path = path;
    out->query = query;
    out->fragment = fragment;
    return 0;
}

/* --- parameters ------------------------------------------------------------------------------- */

static const char *type_text(enum param_type type)
{
    switch (type) {
    case PARAM_STR:
        return "text";
    case PARAM_U64:
        return "a number, as 12 or 0x0c";
    case PARAM_SIZE:
        return "a size, as 4096, 64K or 1.5G";
    case PARAM_TIME:
        return "a time, as 10us, 5ms or 2s";
    case PARAM_BOOL:
        return "yes or no";
    case PARAM_F64:
        return "a number, as 0.25";
    }
    return "another value";
}

static int value_parse(const struct param *p, const char *text, struct param_values *out,
                       unsigned i)
{
    switch (p->type) {
    case PARAM_STR:
        out->v[i].str = text;
        return 0;
    case PARAM_U64:
        return parse_u64(text, &out->v[i].u64);
    case PARAM_SIZE:
        return parse_size(text, &out->v[i].u64);
    case PARAM_TIME:
        return parse_time(text, &out->v[i].u64);
    case PARAM_BOOL:
        return parse_bool(text, &out->v[i].flag);
    case PARAM_F64:
        return parse_f64(text, &out->v[i].f64);
    }
    return -EINVAL;
}

static int find_param(const struct param *table, const char *name)
{
    for (int i = 0; table[i].name != NULL; i++) {
        if (strcmp(table[i].name, name) == 0)
            return i;
    }
    return -ENOENT;
}

static int unknown_param(const char *scheme, const char *name, const struct param *table,
                         struct err *why)
{
    char known[160] = "";
    size_t used = 0;

    for (; table->name != NULL && used < sizeof(known); table++)
        used += (size_t)snprintf(known + used, sizeof(known) - used, "%s%s", used > 0 ? ", " : "",
                                 table->name);
    if (used == 0)
        return err_set(why, -EINVAL, "%s: takes no parameters, not even '%.40s'", scheme, name);
    return err_set(why, -EINVAL, "%s: no parameter '%.40s'; there are: %s", scheme, name, known);
}

/* One "name=value" of the query. */
static int take_pair(const char *scheme, char *pair, const struct param *table,
                     struct param_values *out, struct err *why)
{
    char *value = cut_at(pair, '=');
    int i;

    if (percent_decode(pair) < 0 || (value != NULL && percent_decode(value) < 0))
        return err_set(why, -EINVAL, "%s: '%.40s': %% has to be followed by two hexadecimal digits",
                       scheme, pair);
    i = find_param(table, pair);
    if (i < 0)
        return unknown_param(scheme, pair, table, why);
    if (out->given[i])
        return err_set(why, -EINVAL, "%s: '%s' is given twice", scheme, pair);
    if (value == NULL && table[i].type != PARAM_BOOL)
        return err_set(why, -EINVAL, "%s: '%s' needs a value: %s", scheme, pair,
                       type_text(table[i].type));
    if (value_parse(&table[i], value != NULL ? value : "yes", out, (unsigned)i) < 0)
        return err_set(why, -EINVAL, "%s: %s=%.40s: has to be %s", scheme, pair, value,
                       type_text(table[i].type));
    out->given[i] = true;
    return 0;
}

static int take_defaults(const char *scheme, const struct param *table, struct param_values *out,
                         struct err *why)
{
    for (unsigned i = 0; table[i].name != NULL; i++) {
        if (out->given[i])
            continue;
        if (table[i].default_text != NULL)
            must(value_parse(&table[i], table[i].default_text, out, i) == 0);
        else if (table[i].required)
            return err_set(why, -EINVAL, "%s: '%s' has to be given: %s", scheme, table[i].name,
                           table[i].help != NULL ? table[i].help : type_text(table[i].type));
    }
    return 0;
}

int uri_params(struct uri *uri, const struct param *table, struct param_values *out,
               struct err *why)
{
    static const struct param none[] = {{.name = NULL}};
    char *pair = (char *)(uintptr_t)uri->query; /* into uri->text, which is ours to cut up */
    unsigned n = 0;

    if (table == NULL)
        table = none;
    while (table[n].name != NULL)
        n++;
    must(n <= PARAM_MAX);
    *out = (struct param_values){.table = table, .fragment = uri->fragment};
    uri->query = NULL;
    while (pair != NULL) {
        char *next = cut_at(pair, '&');
        int rc = *pair == '\0' ? 0 : take_pair(uri->scheme, pair, table, out, why);

        if (rc < 0)
            return rc;
        pair = next;
    }
    return take_defaults(uri->scheme, table, out, why);
}

static unsigned index_of(const struct param_values *v, const char *name)
{
    int i = find_param(v->table, name);

    must(i >= 0);
    return (unsigned)i;
}

const char *param_str(const struct param_values *v, const char *name)
{
    unsigned i = index_of(v, name);

    must(v->table[i].type == PARAM_STR);
    return v->v[i].str;
}

uint64_t param_u64(const struct param_values *v, const char *name)
{
    unsigned i = index_of(v, name);
    enum param_type type = v->table[i].type;

    must(type == PARAM_U64 || type == PARAM_SIZE || type == PARAM_TIME);
    return v->v[i].u64;
}

double param_f64(const struct param_values *v, const char *name)
{
    unsigned i = index_of(v, name);

    must(v->table[i].type == PARAM_F64);
    return v->v[i].f64;
}

bool param_flag(const struct param_values *v, const char *name)
{
    unsigned i = index_of(v, name);

    must(v->table[i].type == PARAM_BOOL);
    return v->v[i].flag;
}

bool param_given(const struct param_values *v, const char *name)
{
    return v->given[index_of(v, name)];
}
