/* SPDX-License-Identifier: Apache-2.0 */
/*
 * URIs "scheme:path?name=value&name=value#fragment" and the parameters of drivers: one table per
 * driver feeds the parser, --help, the man page and JSON-RPC.
 */
#ifndef KVASIR_BASE_PARAM_H
#define KVASIR_BASE_PARAM_H

#include "base/err.h"

#include <stdint.h>

enum param_type {
    PARAM_STR,
    PARAM_U64,  /* decimal or 0x */
    PARAM_SIZE, /* bytes: 4096, 64K, 1M, 2G, 1T (powers of 1024) */
    PARAM_TIME, /* ns: 10us, 5ms, 2s, 1m */
    PARAM_BOOL, /* yes/no, true/false, on/off, 1/0; a bare name means yes */
    PARAM_F64,  /* 0.25 */
};

struct param {
    const char *name;          /* NULL ends the table */
    enum param_type type;
    const char *default_text;  /* NULL: has to be given when `required`, else absent */
    bool required;
    const char *help;
};

#define PARAM_MAX 32

/** Parsed values, index for index with the table; texts live in the uri. */
struct param_values {
    const struct param *table;
    const char *fragment; /* of the URI: what part of path is meant; NULL when absent */
    bool given[PARAM_MAX];
    union {
        const char *str;
        uint64_t u64;
        double f64;
        bool flag;
    } v[PARAM_MAX];
};

#define URI_MAX 2048

/** A URI taken apart, percent-decoded; everything points into `text`. */
struct uri {
    const char *scheme; /* "nvme+tcp" */
    const char *path;   /* after "scheme:", without a leading "//", up to '?' or '#' */
    const char *query;  /* undecoded; NULL when absent */
    const char *fragment; /* NULL when absent */
    char text[URI_MAX];
};

/** 0, or -EINVAL / -ENAMETOOLONG with text. The scheme becomes lower case; %00 is refused. */
int uri_parse(const char *text, struct uri *out, struct err *why);
/**
 * Parses uri->query by the table (NULL: no parameters) and uses it up; the values point into
 * uri->text, which has to stay. Unknown names are errors that list the known ones, as are values of
 * another type, names given twice, and required ones that are missing: -EINVAL with text.
 */
int uri_params(struct uri *uri, const struct param *table, struct param_values *out,
               struct err *why);

/** Values by name, after parsing; the name has to be in the table. */
const char *param_str(const struct param_values *v, const char *name);
uint64_t param_u64(const struct param_values *v, const char *name);
double param_f64(const struct param_values *v, const char *name);
bool param_flag(const struct param_values *v, const char *name);
bool param_given(const struct param_values *v, const char *name);

/** "64K", "1.5G", "4096" to bytes; "10ms" to ns. 0 or -EINVAL. */
int parse_size(const char *text, uint64_t *out);
int parse_time(const char *text, uint64_t *out_ns);
int parse_u64(const char *text, uint64_t *out);

#endif
