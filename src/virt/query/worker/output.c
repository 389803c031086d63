/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The answer: the engine writes it as a file that cannot be written twice, and its bytes leave in
 * pieces as they come. So memory does not grow with the answer.
 */
#include "virt/query/worker/engine.h"
#include "virt/query/worker/query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static char pending[QW_RESULT_BYTES];
static size_t npending;

static bool rehearsing; /* what was answered stays in `pending` */
static size_t last_len;

void qw_answer_rehearse(bool on)
{
    rehearsing = on;
}

const void *qw_answer_last(size_t *out_len)
{
    *out_len = last_len;
    return pending;
}

static void send_piece(const void *p, size_t len)
{
    last_len = len;
    if (!rehearsing && len)
        qw_stream_send(QW_RESULT, NULL, p, len);
}

static void flush(void)
{
    send_piece(pending, npending);
    npending = 0;
}

int qw_answer_put(void *arg, const void *buf, size_t len)
{
    const char *p = buf;

    (void)arg;
    while (len) {
        size_t n = sizeof(pending) - npending;

        if (npending == 0 && len >= sizeof(pending)) {
            send_piece(p, sizeof(pending));
            n = sizeof(pending);
        } else {
            if (n > len)
                n = len;
            memcpy(pending + npending, p, n);
            npending += n;
            if (npending == sizeof(pending))
                flush();
        }
        p += n;
        len -= n;
    }
    return 0;
}

static const char *copy_options(const struct qw_query *q)
{
    switch (q->output) {
    case QW_JSON:
        return "FORMAT json, ARRAY true";
    case QW_JSONL:
        return "FORMAT json";
    case QW_PARQUET:
        return "FORMAT parquet";
    default:
        return q->header_out ? "FORMAT csv, HEADER true" : "FORMAT csv, HEADER false";
    }
}

/* The engine showed a place in what was put around the statement. Alone, it shows the statement's
 * own, unless it is data that is wrong. */
static int statement_failed(int rc, const struct qw_statement *s, struct qw_text *why)
{
    duckdb_prepared ps = NULL;
    char *place;

    if (rc != -EINVAL)
        return rc;
    if (duck.prepare(qw_engine_con(), s->text, &ps) != DUCKDB_OK)
        return qw_engine_failed(duck.prepare_error(ps), why);
    place = strstr(why->s, "\n\nLINE 1: COPY (");
    if (place)
        *place = 0;
    return rc;
}

int qw_output_run(const struct qw_query *q, const struct qw_statement *s, uint64_t *out_rows,
                  struct qw_text *why)
{
    duckdb_result result;
    char *sql = NULL;
    int rc;

    if (q->output == QW_ARROW) {
        rc = qw_output_arrow(s, out_rows, why);
        flush();
        return rc;
    }
    /* The statement was parsed alone, so that its parentheses match and it ends where it ends;
     * the end of the line closes what a comment at its end could have swallowed. */
    if (asprintf(&sql, "COPY (%s\n) TO '" QW_PATH_ANSWER "' (%s, USE_TMP_FILE false)", s->text,
                 copy_options(q)) < 0)
        return qw_fail(why, -ENOMEM, "no memory for the statement");
    rc = qw_engine_run(sql, &result, why);
    free(sql);
    if (rc < 0)
        return statement_failed(rc, s, why);
    *out_rows = (uint64_t)duck.value_int64(&result, 0, 0);
    duck.destroy_result(&result);
    flush();
    return 0;
}
