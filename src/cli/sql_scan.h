/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of SQL as the prompt has to understand: where a statement ends, and which name after
 * FROM is an object's key. Everything else is the engine's to judge.
 */
#ifndef KVASIR_CLI_SQL_SCAN_H
#define KVASIR_CLI_SQL_SCAN_H

#include "base/err.h"

#include <stddef.h>

/** Bytes of the first statement with its ';', which is in no string and no comment; 0: not yet. */
size_t sql_scan_end(const char *sql, size_t len);
/** Whether there is nothing but white space, comments and ';'. */
bool sql_scan_blank(const char *sql, size_t len);

struct sql_name {
    size_t at, len;  /* where in the statement, quotes included; len 0: it names none */
    bool bare;       /* without quotes, but no identifier: dir/key.csv */
    char *text;      /* what is meant; ours to free */
    size_t text_len;
};
/**
 * The one object that a statement asks: what stands after FROM or JOIN and is no WITH query, no
 * function, no query in parentheses. It may stand there several times. 0; -EINVAL with text when
 * there are different ones; -ENOMEM.
 */
int sql_scan_name(const char *sql, size_t len, struct sql_name *out, struct err *why);
void sql_name_free(struct sql_name *n);

/**
 * What is being written at the end of a statement that is not finished: the begin of the last word
 * (after the quote, if one is open), and whether it is the name after FROM.
 */
struct sql_tail {
    size_t at;
    char quote;  /* 0, ' or " */
    bool table;
};
struct sql_tail sql_scan_tail(const char *sql, size_t len);

#endif
