/* SPDX-License-Identifier: Apache-2.0 */
#include "base/opt.h"

#include "base/must.h"
#include "base/param.h"

#include <getopt.h>
#include <string.h>

#define LONG_ONLY 256 /* getopt values of options: their index from here */

static unsigned word_count(const char *words)
{
    unsigned n = 1;

    for (; *words != '\0'; words++)
        n += *words == '|';
    return n;
}

/* The place of `text` among the words of "a|b|c"; -1: it is none of them. */
static int word_index(const char *words, const char *text)
{
    size_t len = strlen(text);

    for (unsigned i = 0; i < word_count(words); i++) {
        const char *at = words;

        for (unsigned skip = 0; skip < i; skip++)
            at = strchr(at, '|') + 1;
        if (strncmp(at, text, len) == 0 && (at[len] == '|' || at[len] == '\0'))
            return (int)i;
    }
    return -1;
}

static int set_value(struct opts *o, unsigned idx, const char *text, struct err *why)
{
    const struct opt *def = o->def[idx];
    char *end = NULL;
    int rc = 0;

    switch (def->type) {
    case OPT_FLAG:
    case OPT_STR:
    case OPT_FILE:
        break;
    case OPT_U64:
        rc = parse_u64(text, &o->v[idx].u64);
        break;
    case OPT_SIZE:
        rc = parse_size(text, &o->v[idx].u64);
        break;
    case OPT_TIME:
        rc = parse_time(text, &o->v[idx].u64);
        break;
    case OPT_F64:
        o->v[idx].f64 = strtod(text, &end);
        rc = end == text || *end != '\0' ? -EINVAL : 0;
        break;
    case OPT_CHOICE:
        rc = word_index(def->value, text);
        o->v[idx].u64 = rc < 0 ? 0 : (uint64_t)rc;
        break;
    }
    if (rc < 0) {
        static const char *const wants[] = {
            [OPT_U64] = "a number",
            [OPT_SIZE] = "a size such as 4096, 64K or 1.5G",
            [OPT_TIME] = "a time such as 10ms, 5s or 2m",
            [OPT_F64] = "a number such as 0.5",
        };
        return err_set(why, -EINVAL, "--%s: '%s' is not %s%s", def->name, text,
                       def->type == OPT_CHOICE ? "one of " : wants[def->type],
                       def->type == OPT_CHOICE ? def->value : "");
    }
    o->v[idx].text = text;
    return 0;
}

static int add_table(struct opts *o, const struct opt *table)
{
    for (; table != NULL && table->name != NULL; table++) {
        must(o->count < OPT_MAX);
        o->def[o->count] = table;
        if (table->default_text != NULL) {
            int rc = set_value(o, o->count, table->default_text, NULL);

            must(rc == 0);
        }
        o->count++;
    }
    return 0;
}

/* An unknown option: names those that there are. */
static int unknown(const struct opts *o, const char *arg, struct err *why)
{
    char list[ERR_TEXT_MAX] = "";
    size_t used = 0;

    for (unsigned i = 0; i < o->count && used < sizeof(list); i++)
        used += (size_t)snprintf(list + used, sizeof(list) - used, "%s--%s", i > 0 ? " " : "",
                                 o->def[i]->name);
    return err_set(why, -EINVAL, "unknown option '%s'; there are: %s", arg, list);
}

static int take(struct opts *o, unsigned idx, const char *text, struct err *why)
{
    const struct opt *def = o->def[idx];
    int rc = set_value(o, idx, text != NULL ? text : "yes", why);

    if (rc < 0)
        return rc;
    o->v[idx].given = true;
    if (!def->repeats)
        return 0;
    if (o->nrepeats == OPT_REPEATS_MAX)
        return err_set(why, -EINVAL, "--%s: given more than %u times", def->name, OPT_REPEATS_MAX);
    o->repeat[o->nrepeats].def = def;
    o->repeat[o->nrepeats++].text = text;
    return 0;
}

static void getopt_tables(const struct opts *o, struct option *longs, char *letters)
{
    *letters++ = ':'; /* tells a missing argument from an unknown option */
    for (unsigned i = 0; i < o->count; i++) {
        bool has_arg = o->def[i]->type != OPT_FLAG;

        longs[i] = (struct option){.name = o->def[i]->name,
                                   .has_arg = has_arg ? required_argument : no_argument,
                                   .val = LONG_ONLY + (int)i};
        if (o->def[i]->letter == 0)
            continue;
        *letters++ = o->def[i]->letter;
        if (has_arg)
            *letters++ = ':';
    }
    *letters = '\0';
    longs[o->count] = (struct option){0};
}

static int index_of_letter(const struct opts *o, int letter)
{
    for (unsigned i = 0; i < o->count; i++) {
        if (o->def[i]->letter != 0 && o->def[i]->letter == letter)
            return (int)i;
    }
    return -1;
}

int opts_parse(struct opts *o, const struct opt *own, const struct opt *common, int argc,
               char **argv, struct err *why)
{
    struct option longs[OPT_MAX + 1];
    char letters[2 * OPT_MAX + 2];
    int val, rc;

    memset(o, 0, sizeof(*o));
    add_table(o, own);
    add_table(o, common);
    getopt_tables(o, longs, letters);
    optind = 0; /* glibc: begin anew */
    opterr = 0;
    while ((val = getopt_long(argc, argv, letters, longs, NULL)) != -1) {
        char letter[3] = {'-', (char)optopt, '\0'};
        int idx;

        if (val == '?')
            return unknown(o, optopt != 0 && optopt < LONG_ONLY ? letter : argv[optind - 1], why);
        if (val == ':')
            return err_set(why, -EINVAL, "%s wants a value", argv[optind - 1]);
        idx = val >= LONG_ONLY ? val - LONG_ONLY : index_of_letter(o, val);
        must(idx >= 0);
        rc = take(o, (unsigned)idx, optarg, why);
        if (rc < 0)
            return rc;
    }
    o->args = argv + optind;
    o->nargs = (unsigned)(argc - optind);
    return 0;
}

static unsigned index_of(const struct opts *o, const char *name)
{
    unsigned i = 0;

    while (i < o->count && strcmp(o->def[i]->name, name) != 0)
        i++;
    must(i < o->count);
    return i;
}

bool opt_given(const struct opts *o, const char *name)
{
    return o->v[index_of(o, name)].given;
}

bool opt_flag(const struct opts *o, const char *name)
{
    return opt_given(o, name);
}

const char *opt_str(const struct opts *o, const char *name)
{
    return o->v[index_of(o, name)].text;
}

uint64_t opt_u64(const struct opts *o, const char *name)
{
    return o->v[index_of(o, name)].u64;
}

double opt_f64(const struct opts *o, const char *name)
{
    return o->v[index_of(o, name)].f64;
}

unsigned opt_choice(const struct opts *o, const char *name)
{
    return (unsigned)opt_u64(o, name);
}

void opt_usage(const struct opt *def, char *out, size_t max)
{
    char letter[6] = "    ";

    if (def->letter != 0)
        snprintf(letter, sizeof(letter), "-%c, ", def->letter);
    snprintf(out, max, "  %s--%s%s%s", letter, def->name, def->value != NULL ? " " : "",
             def->value != NULL ? def->value : "");
}

void opts_print_help(FILE *to, const struct opt *table)
{
    char left[96];

    for (; table != NULL && table->name != NULL; table++) {
        opt_usage(table, left, sizeof(left));
        if (strlen(left) > 28)
            fprintf(to, "%s\n%-30s", left, "");
        else
            fprintf(to, "%-30s", left);
        fputs(table->help, to);
        if (table->default_text != NULL)
            fprintf(to, " (default %s)", table->default_text);
        fputc('\n', to);
    }
}
