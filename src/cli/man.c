/* SPDX-License-Identifier: Apache-2.0 */
/* Manual pages: templates of mdoc, filled in from the tables. */
#include "cli/help.h"

#include "blk/blk.h"
#include "config.h"
#include "daemon/method.h"
#include "kv/kv.h"

#include <string.h>

/* Text as roff takes it: no escapes, no requests at the begin of a line, a line per sentence. */
static void put_text(struct cli *c, const char *text, bool line_start)
{
    for (; *text != '\0'; text++) {
        if (line_start && (*text == '.' || *text == '\''))
            cli_print(c, "\\&");
        line_start = *text == '\n';
        if (*text == '\\') {
            cli_print(c, "\\e");
        } else if (strncmp(text, ". ", 2) == 0) {
            cli_print(c, ".\n");
            line_start = true;
            text++;
        } else {
            cli_put(c, text, 1);
        }
    }
}

/* An argument of a macro: in quotes, so that no word of it is taken for a macro. */
static void put_arg(struct cli *c, const char *text)
{
    cli_print(c, " \"");
    for (; *text != '\0'; text++) {
        if (*text == '"')
            cli_print(c, "\\(dq");
        else if (*text == '\\')
            cli_print(c, "\\e");
        else if (*text == '-')
            cli_print(c, "\\-");
        else
            cli_put(c, text, 1);
    }
    cli_print(c, "\"");
}

/* Paragraphs are separated by an empty line. */
static void put_paragraphs(struct cli *c, const char *text)
{
    const char *gap;

    while ((gap = strstr(text, "\n\n")) != NULL) {
        CLEANUP(free_p) char *one = strndup(text, (size_t)(gap - text));

        put_text(c, one, true);
        cli_print(c, "\n.Pp\n");
        text = gap + 2;
    }
    put_text(c, text, true);
    cli_print(c, "\n");
}

static void put_opts(struct cli *c, const struct opt *table)
{
    cli_print(c, ".Bl -tag -width Ds\n");
    for (; table != NULL && table->name != NULL; table++) {
        cli_print(c, ".It");
        if (table->letter != 0)
            cli_print(c, " Fl %c ,", table->letter);
        cli_print(c, " Fl -%s", table->name);
        if (table->value != NULL) {
            cli_print(c, " Ar");
            put_arg(c, table->value);
        }
        cli_print(c, "\n");
        put_text(c, table->help, true);
        if (table->default_text != NULL && table->default_text[0] != '\0') {
            cli_print(c, " (default ");
            put_text(c, table->default_text, false);
            cli_print(c, ")");
        }
        cli_print(c, ".\n");
    }
    cli_print(c, ".El\n");
}

static void put_lines(struct cli *c, const char *lines)
{
    cli_print(c, ".Bd -literal -offset indent\n");
    put_text(c, lines, true);
    cli_print(c, "\n.Ed\n");
}

static void put_verbs(struct cli *c)
{
    for (unsigned i = 0; cli_verbs[i] != NULL; i++) {
        const struct cli_verb *v = cli_verbs[i];

        cli_print(c, ".Ss kvasir %s\n.Nm Cm %s\n", v->name, v->name);
        if (v->args[0] != '\0') {
            cli_print(c, ".Ar");
            put_arg(c, v->args);
            cli_print(c, "\n");
        }
        cli_print(c, ".Pp\n");
        put_paragraphs(c, v->about);
        if (v->opts != NULL)
            put_opts(c, v->opts);
        if (v->examples != NULL)
            put_lines(c, v->examples);
    }
}

static void put_exit_codes(struct cli *c)
{
    cli_print(c, ".Bl -tag -width Ds -compact\n");
    for (unsigned i = 0; i <= CLI_EXIT_TOO_LARGE; i++)
        cli_print(c, ".It %u\n%s\n", i, cli_exit_text(i));
    cli_print(c, ".It %u\n%s\n.El\n", CLI_EXIT_SIGNAL, cli_exit_text(CLI_EXIT_SIGNAL));
}

static void put_driver(struct cli *c, const char *kind, const char *name, const char *help,
                       const struct param *params)
{
    cli_print(c, ".It Sy ");
    for (; *name != '\0'; name++)
        cli_print(c, "%c", *name == '_' ? '+' : *name);
    cli_print(c, ": Pq %s\n", kind);
    put_text(c, help != NULL ? help : "", true);
    cli_print(c, "\n");
    if (params == NULL || params->name == NULL)
        return;
    cli_print(c, ".Bl -tag -width Ds -compact\n");
    for (; params->name != NULL; params++) {
        cli_print(c, ".It Cm %s Ns = Ns Ar", params->name);
        put_arg(c, help_param_type(params));
        cli_print(c, "\n");
        put_text(c, params->help != NULL ? params->help : "", true);
        if (params->default_text != NULL)
            cli_print(c, " (default %s)", params->default_text);
        cli_print(c, "\n");
    }
    cli_print(c, ".El\n");
}

static void put_drivers(struct cli *c)
{
    cli_print(c, ".Bl -tag -width Ds\n");
    for (unsigned i = 0; kv_drivers[i] != NULL; i++)
        put_driver(c, "key-value", kv_drivers[i]->name, kv_drivers[i]->help, kv_drivers[i]->params);
    for (unsigned i = 0; blk_drivers[i] != NULL; i++)
        put_driver(c, "blocks", blk_drivers[i]->name, blk_drivers[i]->help, blk_drivers[i]->params);
    cli_print(c, ".El\n");
}

static const char *method_type_name(enum method_type type)
{
    static const char *const names[] = {"string", "number", "boolean", "object"};

    return names[type];
}

static void put_method_params(struct cli *c, const struct method_param *p)
{
    cli_print(c, ".Bl -tag -width Ds -compact\n");
    for (; p->name != NULL; p++) {
        if (p->help == NULL)
            continue;
        cli_print(c, ".It Cm %s Pq %s%s\n", p->name, method_type_name(p->type),
                  p->required ? ", required" : "");
        put_text(c, p->help, true);
        cli_print(c, "\n");
        if (p->object != NULL)
            put_method_params(c, p->object);
    }
    cli_print(c, ".El\n");
}

static void put_ignored(struct cli *c, const struct method_param *p)
{
    bool any = false;

    for (; p->name != NULL; p++) {
        if (p->help != NULL)
            continue;
        cli_print(c, any ? ",\n%s" : "Known and without effect: %s", p->name);
        any = true;
    }
    if (any)
        cli_print(c, ".\n");
}

static void put_methods(struct cli *c)
{
    for (unsigned i = 0; method_tables[i] != NULL; i++) {
        for (const struct method *m = method_tables[i]; m->name != NULL; m++) {
            cli_print(c, ".Ss %s\n", m->name);
            put_text(c, m->help, true);
            cli_print(c, "\n");
            if (m->params == NULL)
                continue;
            put_method_params(c, m->params);
            put_ignored(c, m->params);
        }
    }
}

static const struct {
    const char *line;
    void (*fn)(struct cli *c);
} parts[] = {
    {"@VERBS@\n", put_verbs},
    {"@EXIT@\n", put_exit_codes},
    {"@DRIVERS@\n", put_drivers},
    {"@METHODS@\n", put_methods},
};

static bool put_part(struct cli *c, const char *line)
{
    if (strcmp(line, "@COMMON@\n") == 0) {
        put_opts(c, cli_common_opts);
        return true;
    }
    for (unsigned i = 0; i < ARRAY_LEN(parts); i++) {
        if (strcmp(line, parts[i].line) != 0)
            continue;
        parts[i].fn(c);
        return true;
    }
    return false;
}

int help_man(struct cli *c, const char *template_path)
{
    FILE *in = fopen(template_path, "re");
    char line[1024];

    if (in == NULL)
        return cli_fail(c, -errno, "cannot open '%s': %s", template_path, err_str(-errno));
    while (fgets(line, sizeof(line), in) != NULL) {
        char *version = strstr(line, "@VERSION@");

        if (version != NULL)
            cli_print(c, "%.*s%s%s", (int)(version - line), line, KVASIR_VERSION, version + 9);
        else if (!put_part(c, line))
            cli_put(c, line, strlen(line));
    }
    fclose(in);
    return 0;
}
