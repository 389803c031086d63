/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A line typed at a terminal: edited with the keys that shells have, with history and completion.
 * Between lines the terminal is as it was. Waits in tasks; the reactor goes on.
 */
#ifndef KVASIR_CLI_EDIT_H
#define KVASIR_CLI_EDIT_H

#include "rt/rt.h"

#include <stdbool.h>
#include <stddef.h>

struct edit;

/** What may stand in place of [from, cursor): whole words, each replaces all of it. */
struct edit_words {
    char **word;
    unsigned n, cap;
    size_t from;
};
/** Adds a copy, unless it is there already. */
void edit_word_add(struct edit_words *w, const char *text, size_t len);

struct edit_config {
    int in, out;
    const char *history; /* the file; NULL: none. Made with its directories, 0600 */
    /* Completion; may wait. NULL: none. */
    void (*complete)(struct rt_task *t, void *arg, const char *line, size_t cursor,
                     struct edit_words *out);
    void *arg;
};
/** `history` stays the caller's. Loads the history. NULL: no memory. */
struct edit *edit_new(const struct edit_config *cfg);
void edit_free(struct edit *e);

/**
 * Waits for a line: 1, *out_line is ours to free; 0 at the end of input (Ctrl-D on an empty line);
 * -EINTR Ctrl-C; -ECANCELED; what reading said.
 */
int edit_line(struct rt_task *t, struct edit *e, const char *prompt, char **out_line);
/** Remembers a line, also in the file. */
void edit_remember(struct edit *e, const char *line);

/* history.c */
struct history {
    char **line;
    unsigned n;
    const char *path;
};
void history_load(struct history *h);
void history_add(struct history *h, const char *line);
void history_free(struct history *h);
/** "sql_history" of the user's state directory, or NULL; ours to free. */
char *history_path(const char *name);

#endif
