/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tables with very many columns. Of CSV the engine makes room for 2,048 values of every column,
 * named by the statement or not, while it looks for types and while it takes the list of columns;
 * what is asked for is held some times over. What helps is more
 * memory, or Parquet.
 */
#include "virt/query/worker/schema.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* As measured, in KiB: what a query takes anyway, what each column of CSV, what each column does
 * that goes into the answer. */
#define BASE_KIB (24u << 10)
#define COLUMN_KIB 44u
#define ANSWERED_KIB 120u

#define PIECE_BYTES (256u << 10)
#define LINE_MAX_BYTES (32u << 20)

static const char usual[] = ",\t;|";

/* The columns of the first line: one more than there are of what separates them. Quotes are not
 * looked at: names rarely have separators in them, and some more or less is near enough. */
static unsigned count_line(const struct qw_query *q)
{
    unsigned long counts[sizeof(usual)] = {0}, most = 0;
    char set[sizeof(usual)], *piece = malloc(PIECE_BYTES);
    uint64_t off = 0;
    bool end = !piece;

    snprintf(set, sizeof(set), "%s", *q->delim ? q->delim : usual);
    while (!end && off < LINE_MAX_BYTES) {
        ssize_t n = qw_object_read(0, off, piece, PIECE_BYTES, true);

        end = n <= 0;
        for (ssize_t i = 0; !end && i < n; i++) {
            const char *at = piece[i] ? strchr(set, piece[i]) : NULL;

            if (at)
                counts[at - set]++;
            end = piece[i] == '\n';
        }
        off += n > 0 ? (uint64_t)n : 0;
    }
    free(piece);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++)
        most = counts[i] > most ? counts[i] : most;
    return (unsigned)most + 1;
}

static bool may_be_csv(const struct qw_query *q, const json_t *schema)
{
    const char *format = json_string_value(json_object_get(schema, "format"));

    return format ? strcmp(format, "csv") == 0 : q->input == QW_CSV || q->input == QW_AUTO;
}

int qw_wide_failed(int rc, const struct qw_query *q, const json_t *schema, struct qw_text *why)
{
    unsigned n = (unsigned)json_array_size(json_object_get(schema, "columns"));

    if (rc != -ENOMEM || !may_be_csv(q, schema))
        return rc;
    if (!n)
        n = count_line(q);
    if (n < QW_WIDE_COLUMNS)
        return rc;
    return qw_fail(
        why, rc,
        "the query needs more memory than it may have: of CSV with %u columns a few take "
        "about %llu MiB, all of them %llu MiB (--query-mem); Parquet takes less",
        n, (BASE_KIB + (unsigned long long)n * COLUMN_KIB) >> 10,
        (BASE_KIB + (unsigned long long)n * ANSWERED_KIB) >> 10);
}
