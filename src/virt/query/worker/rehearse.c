/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The zygote's rehearsal: small queries of each form, before the first worker is made. What the
 * engine does for the first time (functions looked up, tables built, pages of its library read)
 * is then done for all of them.
 */
#include "virt/query/worker/engine.h"
#include "virt/query/worker/query.h"

#include <string.h>

static const char csv[] = "id,name,born,price\n1,a,2000-01-01,1.5\n2,\"b\",2001-02-03,2.5\n";
static const char json[] = "{\"id\":1,\"name\":\"a\",\"born\":\"2000-01-01\",\"price\":1.5}\n";
static const char sql[] =
    "SELECT name, count(*) AS n, sum(price) AS s, max(born) AS m FROM t WHERE id >= 1 "
    "AND name LIKE 'a%' GROUP BY name ORDER BY n LIMIT 10";

static const char small_sql[] = "SELECT name, price FROM t WHERE id >= 1 AND name LIKE 'a%'";
static json_t *csv_known; /* its columns, once they have been found out */
static json_t *known;     /* of the next play; NULL: found out */

static int play(const void *bytes, size_t len, enum qw_format input, enum qw_format output,
                const char *statement, struct qw_text *why)
{
    static struct qw_object object;
    struct qw_query q = {.sql = statement,
                         .input = input,
                         .output = output,
                         .header = "auto",
                         .header_out = true,
                         .delim = "",
                         .quote = "",
                         .escape = "",
                         .schema = "",
                         .objects = &object,
                         .nobjects = 1,
                         .known = known,
                         .rehearsal = true};
    struct qw_statement s;
    uint64_t rows;
    int rc;

    object = (struct qw_object){.name = "rehearsal", .size = len, .bytes = bytes};
    qw_objects_set(&object, 1, NULL);
    rc = qw_engine_run("DROP VIEW IF EXISTS t", NULL, why);
    if (rc == 0)
        rc = qw_statement_check(statement, &s, why);
    if (rc == 0)
        rc = qw_input_open(&q, &s, why);
    if (rc == 0)
        rc = qw_output_run(&q, &s, &rows, why);
    return rc;
}

static int end_play(int rc, struct qw_text *why)
{
    if (rc == 0)
        rc = qw_engine_run("DROP VIEW IF EXISTS t", NULL, why);
    qw_answer_rehearse(false);
    qw_objects_set(NULL, 0, NULL);
    qw_table_unset();
    qw_files_reset();
    return rc;
}

int qw_rehearse_scout(enum qw_scout scout)
{
    static struct qw_text why;

    known = csv_known;
    qw_answer_rehearse(true);
    return end_play(play(csv, sizeof(csv) - 1, QW_AUTO, QW_CSV,
                         scout == QW_SCOUT_SMALL ? small_sql : sql, &why),
                    &why);
}

int qw_rehearse(struct qw_text *why)
{
    static char parquet[16u << 10];
    const void *last;
    size_t len;
    int rc;

    qw_answer_rehearse(true);
    rc = play(csv, sizeof(csv) - 1, QW_AUTO, QW_PARQUET, "SELECT * FROM t", why);
    last = qw_answer_last(&len);
    if (rc == 0 && len <= sizeof(parquet)) {
        memcpy(parquet, last, len);
        rc = play(parquet, len, QW_AUTO, QW_CSV, sql, why);
    }
    if (rc == 0)
        rc = play(csv, sizeof(csv) - 1, QW_AUTO, QW_CSV, sql, why);
    if (rc == 0)
        csv_known = json_incref((json_t *)(uintptr_t)qw_input_schema());
    if (rc == 0)
        rc = play(json, sizeof(json) - 1, QW_AUTO, QW_JSON, sql, why);
    if (rc == 0)
        rc = play(json, sizeof(json) - 1, QW_AUTO, QW_ARROW, "SELECT * FROM t", why);
    return end_play(rc, why);
}
