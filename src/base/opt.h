/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Options of a command, from tables: one table feeds the parser, --help, the shell completions and
 * the man page. Long options with an optional letter, as getopt_long takes them.
 */
#ifndef KVASIR_BASE_OPT_H
#define KVASIR_BASE_OPT_H

#include "base/err.h"

#include <stdint.h>
#include <stdio.h>

enum opt_type {
    OPT_FLAG,
    OPT_STR,
    OPT_FILE,   /* a string; completed as a path */
    OPT_U64,    /* decimal or 0x */
    OPT_SIZE,   /* bytes: 4096, 64K, 1M */
    OPT_TIME,   /* ns: 10ms, 5s */
    OPT_F64,
    OPT_CHOICE, /* one of the words in `value`, separated by | */
};

struct opt {
    const char *name;         /* NULL ends a table */
    char letter;              /* 0: none */
    enum opt_type type;
    bool repeats;             /* OPT_STR only: may be given many times (opt_list) */
    const char *value;        /* "FILE", "a|b|c"; NULL for flags */
    const char *default_text; /* NULL: absent */
    const char *help;
};

#define OPT_MAX 48        /* options of one command, the common ones included */
#define OPT_REPEATS_MAX 256

/** Values by option, for the tables given to opts_parse(). */
struct opts {
    const struct opt *def[OPT_MAX];
    unsigned count;
    struct {
        bool given;
        const char *text; /* as written, or the default; NULL absent */
        uint64_t u64;
        double f64;
    } v[OPT_MAX];
    unsigned nrepeats;
    struct {
        const struct opt *def;
        const char *text;
    } repeat[OPT_REPEATS_MAX]; /* in the order of the command line */
    char **args; /* what is no option */
    unsigned nargs;
};

/**
 * Takes a command line apart: argv[0] is skipped, options may stand anywhere, "--" ends them.
 * Both tables may be NULL. Pointers into argv are kept. 0, or -EINVAL with a text that names the
 * option and says what would be right.
 */
int opts_parse(struct opts *o, const struct opt *own, const struct opt *common, int argc,
               char **argv, struct err *why);

/* Values; the name has to be in a table. */
bool opt_given(const struct opts *o, const char *name);
bool opt_flag(const struct opts *o, const char *name);
const char *opt_str(const struct opts *o, const char *name);
uint64_t opt_u64(const struct opts *o, const char *name); /* U64, SIZE, TIME; 0 when absent */
double opt_f64(const struct opts *o, const char *name);
/** The index of the word in `value` that was chosen. */
unsigned opt_choice(const struct opts *o, const char *name);

/** Lists a table for a person. */
void opts_print_help(FILE *to, const struct opt *table);
/** "  -o, --output FILE": the left half of a line of help. */
void opt_usage(const struct opt *def, char *out, size_t max);

#endif
