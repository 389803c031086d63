/* SPDX-License-Identifier: Apache-2.0 */
/* The objects of a query as one table. */
#include "virt/query/worker/engine.h"
#include "virt/query/worker/query.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void write_paths(FILE *f, unsigned n)
{
    fputc('[', f);
    for (unsigned i = 0; i < n; i++)
        fprintf(f, "%s'" QW_PATH_OBJECT "%u'", i ? ", " : "", i);
    fputc(']', f);
}

int qw_input_open(struct qw_query *q, const struct qw_statement *s, struct qw_text *why)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < s->ntables; i++) {
        char *sql = NULL;
        size_t len;
        FILE *f = open_memstream(&sql, &len);

        if (!f)
            return qw_fail(why, -ENOMEM, "no memory for the table");
        fputs("CREATE OR REPLACE TEMP VIEW ", f);
        qw_sql_name(f, s->tables[i]);
        fputs(" AS SELECT * FROM read_csv(", f);
        write_paths(f, q->nobjects);
        fputs(")", f);
        fclose(f);
        rc = qw_engine_run(sql, NULL, why);
        free(sql);
    }
    return rc;
}
