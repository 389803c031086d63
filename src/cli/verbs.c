/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs, in the order of help and man page, and the options that they share. */
#include "cli/cli.h"
#include "daemon/runtime_opts.h"

#include <string.h>

extern const struct cli_verb verb_put, verb_get, verb_ls, verb_stat, verb_exists, verb_rm, verb_cp,
    verb_select, verb_sql, verb_read, verb_write, verb_blob, verb_check, verb_stats, verb_lvol,
    verb_discover, verb_identify, verb_bench, verb_serve, verb_completion, verb_help, verb_version;

const struct cli_verb *const cli_verbs[] = {
    &verb_put,    &verb_get,        &verb_ls,   &verb_stat,     &verb_exists,   &verb_rm,
    &verb_select, &verb_sql,        &verb_cp,   &verb_read,     &verb_write,    &verb_blob,
    &verb_check,  &verb_stats,      &verb_lvol, &verb_discover, &verb_identify, &verb_bench,
    &verb_serve,  &verb_completion, &verb_help, &verb_version,  NULL,
};

const struct opt cli_common_opts[] = {
    {"json", 0, OPT_FLAG, false, NULL, NULL, "one JSON object a line, errors too"},
    RUNTIME_OPTS,
    {"quiet", 'q', OPT_FLAG, false, NULL, NULL, "no remarks and no progress"},
    {"verbose", 'v', OPT_FLAG, false, NULL, NULL, "log what is done on standard error"},
    {"help", 'h', OPT_FLAG, false, NULL, NULL, "this text"},
    {NULL},
};

const struct opt cli_plain_opts[] = {
    {"json", 0, OPT_FLAG, false, NULL, NULL, "one JSON object a line, errors too"},
    {"help", 'h', OPT_FLAG, false, NULL, NULL, "this text"},
    {NULL},
};

const struct opt *cli_verb_common(const struct cli_verb *v)
{
    return v->run != NULL ? cli_common_opts : cli_plain_opts;
}

const struct cli_verb *cli_verb_find(const char *name)
{
    for (unsigned i = 0; cli_verbs[i] != NULL; i++) {
        if (strcmp(cli_verbs[i]->name, name) == 0)
            return cli_verbs[i];
    }
    return NULL;
}
