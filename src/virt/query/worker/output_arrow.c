/* SPDX-License-Identifier: Apache-2.0 */
/* The answer as an Arrow stream: the engine has no such form of COPY, so its chunks are taken one
 * by one as they are made, and each becomes a batch. */
#include "virt/query/worker/arrow.h"
#include "virt/query/worker/engine.h"
#include "virt/query/worker/query.h"

#include <errno.h>
#include <stdlib.h>

static struct arrow_writer writer = {.put = qw_answer_put};
static duckdb_arrow_options options;

static int arrow_failed(int rc, struct qw_text *why)
{
    return qw_fail(why, rc, "%s", writer.text[0] ? writer.text : "no memory for the Arrow stream");
}

static int engine_said(duckdb_error error, struct qw_text *why)
{
    int rc = 0;

    if (duck.error_data_has_error(error))
        rc = qw_engine_failed(duck.error_data_message(error), why);
    duck.destroy_error_data(&error);
    return rc;
}

static int make_schema(duckdb_result *result, struct ArrowSchema *out, struct qw_text *why)
{
    idx_t n = duck.column_count(result);
    duckdb_type *types = calloc(n + 1, sizeof(*types));
    const char **names = calloc(n + 1, sizeof(*names));
    int rc = types && names
                 ? 0
                 : qw_fail(why, -ENOMEM, "no memory for %llu columns", (unsigned long long)n);

    for (idx_t i = 0; rc == 0 && i < n; i++) {
        types[i] = duck.column_logical_type(result, i);
        names[i] = duck.column_name(result, i);
    }
    if (rc == 0)
        rc = engine_said(duck.to_arrow_schema(options, types, names, n, out), why);
    for (idx_t i = 0; types && i < n; i++)
        duck.destroy_logical_type(&types[i]);
    free(types);
    free(names);
    return rc;
}

static int put_chunk(duckdb_chunk chunk, const struct ArrowSchema *schema, bool first,
                     struct qw_text *why)
{
    struct ArrowArray batch = {0};
    int rc = engine_said(duck.data_chunk_to_arrow(options, chunk, &batch), why);

    if (rc < 0)
        return rc;
    if (first)
        rc = arrow_put_dictionaries(&writer, schema, &batch);
    if (rc == 0)
        rc = arrow_put_batch(&writer, schema, &batch);
    if (batch.release)
        batch.release(&batch);
    return rc < 0 ? arrow_failed(rc, why) : 0;
}

static int put_chunks(duckdb_result *result, const struct ArrowSchema *schema, uint64_t *out_rows,
                      struct qw_text *why)
{
    const char *said;
    duckdb_chunk chunk;
    uint64_t rows = 0;

    while ((chunk = duck.fetch_chunk(*result))) {
        idx_t n = duck.data_chunk_get_size(chunk);
        int rc = n ? put_chunk(chunk, schema, rows == 0, why) : 0;

        duck.destroy_data_chunk(&chunk);
        if (rc < 0)
            return rc;
        rows += n;
    }
    said = duck.result_error(result);
    *out_rows = rows;
    return said ? qw_engine_failed(said, why) : 0;
}

static int put_result(duckdb_result *result, uint64_t *out_rows, struct qw_text *why)
{
    struct ArrowSchema schema = {0};
    int rc = make_schema(result, &schema, why);

    if (rc < 0)
        return rc;
    rc = arrow_put_schema(&writer, &schema);
    if (rc < 0)
        rc = arrow_failed(rc, why);
    if (rc == 0)
        rc = put_chunks(result, &schema, out_rows, why);
    if (rc == 0)
        rc = arrow_put_end(&writer);
    if (schema.release)
        schema.release(&schema);
    arrow_writer_free(&writer);
    return rc;
}

int qw_output_arrow(const struct qw_statement *s, uint64_t *out_rows, struct qw_text *why)
{
    duckdb_prepared ps = NULL;
    duckdb_pending pending = NULL;
    duckdb_result result = {0};
    int rc = 0;

    duck.connection_get_arrow_options(qw_engine_con(), &options);
    if (duck.prepare(qw_engine_con(), s->text, &ps) != DUCKDB_OK)
        rc = qw_engine_failed(duck.prepare_error(ps), why);
    if (rc == 0 && duck.pending_prepared_streaming(ps, &pending) != DUCKDB_OK)
        rc = qw_engine_failed(duck.pending_error(pending), why);
    if (rc == 0 && duck.execute_pending(pending, &result) != DUCKDB_OK)
        rc = qw_engine_failed(duck.result_error(&result), why);
    if (rc == 0)
        rc = put_result(&result, out_rows, why);
    duck.destroy_result(&result);
    duck.destroy_pending(&pending);
    duck.destroy_prepare(&ps);
    duck.destroy_arrow_options(&options);
    return rc;
}
