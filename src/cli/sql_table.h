/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An answer, which comes as CSV with a header, for people: columns in line, or a line for each
 * value. Widths come from the first rows, which are held; those after them are written as they
 * come, so memory does not grow with the answer. Nothing that a terminal would obey gets through.
 */
#ifndef KVASIR_CLI_SQL_TABLE_H
#define KVASIR_CLI_SQL_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sql_style { SQL_TABLE, SQL_LINE };

struct sql_table_opts {
    enum sql_style style;
    unsigned width_max;    /* of a column, in cells of a terminal; 0: no limit */
    const char *null_text; /* what NULL looks like */
    const char *types;     /* a record of CSV with the columns' types; NULL: not known */
    size_t types_len;
    void (*put)(void *arg, const char *text, size_t len);
    void *arg;
};

struct sql_table;
/** NULL: no memory. What `o` points to stays until the end. */
struct sql_table *sql_table_new(const struct sql_table_opts *o);
/** The next bytes of CSV. 0, -ENOMEM. */
int sql_table_feed(struct sql_table *tab, const char *csv, size_t len);
/** The end of the answer: writes what is held. */
int sql_table_end(struct sql_table *tab, uint64_t *out_rows);
void sql_table_free(struct sql_table *tab);

/** One record of CSV at a time, for who wants fields: see sql_table.c. */
struct sql_field {
    const char *text; /* not terminated */
    size_t len;
    bool null;        /* nothing, without quotes */
};
/** Calls `each` for every record. 0 or what `each` returned. For small answers held whole. */
int sql_csv_each(const char *csv, size_t len,
                 int (*each)(void *arg, const struct sql_field *f, unsigned n), void *arg);

/** Cells of a terminal that UTF-8 takes. */
unsigned sql_text_width(const char *text, size_t len);

#endif
