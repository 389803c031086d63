/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir version. */
#include "cli/cli.h"

#include "blk/blk.h"
#include "config.h"
#include "kv/kv.h"

static int version_plain(struct cli *c)
{
    json_t *kv = json_array(), *blk = json_array();

    for (unsigned i = 0; kv_drivers[i] != NULL; i++)
        json_array_append_new(kv, json_string(kv_drivers[i]->name));
    for (unsigned i = 0; blk_drivers[i] != NULL; i++)
        json_array_append_new(blk, json_string(blk_drivers[i]->name));
    if (c->json) {
        cli_json(c, json_pack("{s:s, s:o, s:o}", "version", KVASIR_VERSION, "kv_drivers", kv,
                              "blk_drivers", blk));
        return 0;
    }
    cli_print(c, "kvasir %s\nkey-value drivers:", KVASIR_VERSION);
    for (size_t i = 0; i < json_array_size(kv); i++)
        cli_print(c, " %s", json_string_value(json_array_get(kv, i)));
    cli_print(c, "\nblock drivers:");
    for (size_t i = 0; i < json_array_size(blk); i++)
        cli_print(c, " %s", json_string_value(json_array_get(blk, i)));
    cli_print(c, "\n");
    json_decref(kv);
    json_decref(blk);
    return 0;
}

const struct cli_verb verb_version = {
    .name = "version",
    .args = "",
    .summary = "print the version and the drivers that are built in",
    .about = "Prints the version of kvasir and the names of its drivers.",
    .args_max = 0,
    .plain = version_plain,
};
