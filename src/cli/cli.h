/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the verbs of `kvasir` share: their description, the context of one run, output, errors.
 *
 * A verb is one file with one struct cli_verb; verbs.c lists them. Everything about a verb that a
 * person sees (help, man page, completion) comes from that struct and its option table.
 */
#ifndef KVASIR_CLI_CLI_H
#define KVASIR_CLI_CLI_H

#include "base/opt.h"
#include "base/param.h"
#include "rt/rt.h"

#include <jansson.h>

/* Exit codes: part of the interface, listed in kvasir(1). */
enum cli_exit {
    CLI_EXIT_OK = 0,
    CLI_EXIT_FAILURE = 1,     /* what is none of the others */
    CLI_EXIT_USAGE = 2,       /* the command line or a URI makes no sense */
    CLI_EXIT_NOT_FOUND = 3,   /* no such key, file, device */
    CLI_EXIT_EXISTS = 4,      /* it is there and must not be, or has another version */
    CLI_EXIT_NO_SPACE = 5,
    CLI_EXIT_PERMISSION = 6,  /* refused, or read-only */
    CLI_EXIT_CORRUPT = 7,     /* checksum, format or comparison */
    CLI_EXIT_CONNECTION = 8,  /* no connection, or the device has gone */
    CLI_EXIT_TIMEOUT = 9,
    CLI_EXIT_BUSY = 10,       /* another process or user holds it */
    CLI_EXIT_UNSUPPORTED = 11, /* the device cannot do this */
    CLI_EXIT_TOO_LARGE = 12,  /* key, value or range larger than the device takes */
    CLI_EXIT_SIGNAL = 128,    /* plus the signal's number: interrupted */
};

#define CLI_KV 1u
#define CLI_BLK 2u

struct cli;

struct cli_verb {
    const char *name;
    const char *args;     /* "URI KEY [FILE]" */
    const char *commands; /* what the first argument is one of, between |; NULL: no such words */
    const char *summary;  /* one line, without a full stop */
    const char *about;    /* paragraphs, separated by an empty line */
    const char *examples; /* lines of shell */
    const struct opt *opts;
    unsigned args_min, args_max;
    unsigned drivers;     /* help lists the URIs of these: CLI_KV, CLI_BLK */
    bool own_signals;     /* `run` sees to SIGINT and SIGTERM itself */
    /* Exactly one of the two. `run` is a task of the runtime, `plain` needs none. Both return 0 or
     * a negative errno, after telling the user by cli_fail(). */
    int (*run)(struct rt_task *t, struct cli *c);
    int (*plain)(struct cli *c);
    /* Before `run`, to find mistakes of usage and to adapt the runtime; may be NULL. */
    int (*prepare)(struct cli *c, struct rt_config *cfg);
};

extern const struct cli_verb *const cli_verbs[]; /* NULL ends */
const struct cli_verb *cli_verb_find(const char *name);
/** Options that every verb with a runtime takes. */
extern const struct opt cli_common_opts[];
/** And those of verbs without. */
extern const struct opt cli_plain_opts[];
const struct opt *cli_verb_common(const struct cli_verb *v);

/** Writes the help of one verb to standard output. */
void cli_help_verb(struct cli *c, const struct cli_verb *v);

/** Text that waits to be written to standard output. */
struct cli_out {
    char *buf;
    size_t len, cap;
    int rc; /* -EPIPE and so on: nobody reads any more */
};

/** One run of one verb. */
struct cli {
    const struct cli_verb *verb;
    struct opts opts;
    bool json;
    bool quiet;
    int verbosity;
    int signal; /* the one that interrupted us */
    bool told;  /* cli_fail() has been called, or the exit code says it all */
    struct rt_task *main_task;
    struct cli_out out;
};

static inline const char *cli_arg(const struct cli *c, unsigned i)
{
    return i < c->opts.nargs ? c->opts.args[i] : NULL;
}

/** The exit code for a result. */
enum cli_exit cli_exit_of(int rc);
/** A line about an exit code, for the man page. */
const char *cli_exit_text(enum cli_exit code);

/**
 * Tells the user on standard error what went wrong and, where it is known, what to do about it:
 * "kvasir get: ...". With --json one object a line. Returns rc. Never waits.
 */
int cli_fail(struct cli *c, int rc, const char *fmt, ...) PRINTF_LIKE(3, 4);
/** The same for a mistake on the command line; returns -EINVAL, and the program ends with 2. */
int cli_usage(struct cli *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
/** A remark on standard error for who sits there (or asked by -v), unless --quiet or --json. */
void cli_note(struct cli *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* Standard output: collected in memory; written by cli_flush() without blocking the reactor, and
 * at the end of the program. */
void cli_print(struct cli *c, const char *fmt, ...) PRINTF_LIKE(2, 3);
void cli_put(struct cli *c, const void *bytes, size_t len);
/** One JSON object on a line; takes the reference. NULL (json_pack() refuses what is no UTF-8) is
 * told as such. */
void cli_json(struct cli *c, json_t *obj);
/** Writes out what has been collected, if that is much or `all`. 0, -EPIPE, ... */
int cli_flush(struct rt_task *t, struct cli *c, bool all);
int cli_flush_now(struct cli *c); /* outside the runtime */

/** "3.2 MiB" into out (CLI_SIZE_TEXT). */
#define CLI_SIZE_TEXT 24
const char *cli_size_text(uint64_t bytes, char *out);

/** Rate and time left of long work on a terminal; silent otherwise. */
struct cli_progress {
    struct cli *c;
    const char *what;
    uint64_t total_bytes; /* 0: not known */
    uint64_t done_bytes;
    uint64_t items;       /* things done, shown when not 0 */
    uint64_t start_ns, shown_ns;
    bool on, shown;
};
void cli_progress_start(struct cli_progress *p, struct cli *c, const char *what,
                        uint64_t total_bytes);
void cli_progress_add(struct cli_progress *p, uint64_t bytes);
/** Takes the line away. */
void cli_progress_stop(struct cli_progress *p);
/** "64.0 MiB in 0.21 s, 305 MiB/s", for the closing remark. */
#define CLI_RATE_TEXT 80
const char *cli_rate_text(const struct cli_progress *p, char *out);
uint64_t cli_progress_ns(const struct cli_progress *p);

#endif
