/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir help, and --help of each verb. */
#include "cli/help.h"

#include "base/param.h"
#include "blk/blk.h"
#include "kv/kv.h"

#include <stdlib.h>
#include <string.h>

#define WIDTH 96

const char *help_param_type(const struct param *p)
{
    switch (p->type) {
    case PARAM_STR:
        return "TEXT";
    case PARAM_U64:
        return "N";
    case PARAM_SIZE:
        return "SIZE";
    case PARAM_TIME:
        return "TIME";
    case PARAM_BOOL:
        return "yes|no";
    case PARAM_F64:
        return "X";
    }
    return "";
}

/* Breaks text into lines at spaces. */
static void print_wrapped(struct cli *c, const char *text, unsigned indent)
{
    unsigned at = 0;

    while (*text != '\0') {
        unsigned len = (unsigned)strcspn(text, " \n");

        if (at > 0 && at + 1 + len > WIDTH) {
            cli_print(c, "\n");
            at = 0;
        }
        if (at == 0)
            at = indent;
        else
            at++;
        cli_print(c, "%*s%.*s", at > indent ? 1 : (int)indent, "", (int)len, text);
        at += len;
        text += len;
        if (strncmp(text, "\n\n", 2) == 0) {
            cli_print(c, "\n\n");
            at = 0;
        }
        text += strspn(text, " \n");
    }
    cli_print(c, "\n");
}

static void print_opts(struct cli *c, const struct opt *table)
{
    char *text = NULL;
    size_t len = 0;
    FILE *to = open_memstream(&text, &len);

    if (to == NULL)
        return;
    opts_print_help(to, table);
    fclose(to);
    cli_put(c, text, len);
    free(text);
}

static void print_driver(struct cli *c, const char *kind, const char *name, const char *help,
                         const struct param *params)
{
    char scheme[40];

    snprintf(scheme, sizeof(scheme), "%s", name);
    for (char *p = scheme; *p != '\0'; p++)
        *p = *p == '_' ? '+' : *p;
    cli_print(c, "  %s:  (%s) %s\n", scheme, kind, help != NULL ? help : "");
    for (; params != NULL && params->name != NULL; params++) {
        char left[64];

        snprintf(left, sizeof(left), "?%s=%s", params->name, help_param_type(params));
        cli_print(c, "      %-24s%s", left, params->help != NULL ? params->help : "");
        if (params->default_text != NULL)
            cli_print(c, " (default %s)", params->default_text);
        else if (params->required)
            cli_print(c, " (has to be given)");
        cli_print(c, "\n");
    }
}

static void print_drivers(struct cli *c, unsigned kinds)
{
    cli_print(c, "\nURIs of devices, \"scheme:path?name=value&name=value\":\n");
    for (unsigned i = 0; (kinds & CLI_KV) && kv_drivers[i] != NULL; i++)
        print_driver(c, "key-value", kv_drivers[i]->name, kv_drivers[i]->help,
                     kv_drivers[i]->params);
    for (unsigned i = 0; (kinds & CLI_BLK) && blk_drivers[i] != NULL; i++)
        print_driver(c, "blocks", blk_drivers[i]->name, blk_drivers[i]->help,
                     blk_drivers[i]->params);
}

static void print_examples(struct cli *c, const char *lines)
{
    cli_print(c, "\nExamples:\n");
    while (*lines != '\0') {
        int len = (int)strcspn(lines, "\n");

        cli_print(c, "  %.*s\n", len, lines);
        lines += len + (lines[len] == '\n');
    }
}

void cli_help_verb(struct cli *c, const struct cli_verb *v)
{
    cli_print(c, "kvasir %s %s\n\n", v->name, v->args);
    print_wrapped(c, v->about, 0);
    if (v->opts != NULL) {
        cli_print(c, "\nOptions:\n");
        print_opts(c, v->opts);
    }
    cli_print(c, "\nCommon options:\n");
    print_opts(c, cli_verb_common(v));
    if (v->drivers != 0)
        print_drivers(c, v->drivers);
    if (v->examples != NULL)
        print_examples(c, v->examples);
}

static void help_all(struct cli *c)
{
    cli_print(c, "kvasir VERB [options] [arguments]\n\n"
                 "Moves values and blocks in and out of storage devices, and serves devices over "
                 "NVMe/TCP.\n\n");
    for (unsigned i = 0; cli_verbs[i] != NULL; i++)
        cli_print(c, "  %-12s%s\n", cli_verbs[i]->name, cli_verbs[i]->summary);
    cli_print(c, "\n`kvasir VERB --help` tells more about one. Keys are text, hex:DIGITS or "
                 "@FILE.\nExit codes:");
    for (unsigned i = 0; i <= CLI_EXIT_TOO_LARGE; i++)
        cli_print(c, "%s %u %s", i > 0 ? ";" : "", i, cli_exit_text(i));
    cli_print(c, ".\n");
}

static int help_plain(struct cli *c)
{
    const struct cli_verb *v;

    if (opt_str(&c->opts, "man") != NULL)
        return help_man(c, opt_str(&c->opts, "man"));
    if (cli_arg(c, 0) == NULL) {
        help_all(c);
        return 0;
    }
    v = cli_verb_find(cli_arg(c, 0));
    if (v == NULL)
        return cli_usage(c, "there is no verb '%s'", cli_arg(c, 0));
    cli_help_verb(c, v);
    return 0;
}

static const struct opt help_opts[] = {
    {"man", 0, OPT_FILE, false, "TEMPLATE", NULL,
     "fill in a manual page's template, as the build does"},
    {NULL},
};

const struct cli_verb verb_help = {
    .name = "help",
    .args = "[VERB]",
    .summary = "tell what there is",
    .about = "Lists the verbs, or describes one.",
    .opts = help_opts,
    .args_max = 1,
    .plain = help_plain,
};
