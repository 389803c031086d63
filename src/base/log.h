/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Messages for the operator. Whoever decides what happens next logs once, naming the object and
 * the number; never on the data path, never a secret. base has no clock and no I/O of its own:
 * the program installs the sink.
 */
#ifndef KVASIR_BASE_LOG_H
#define KVASIR_BASE_LOG_H

#include "base/util.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

/** Gets each line, without a line end. May be called from any thread. */
typedef void (*log_sink_fn)(enum log_level level, const char *text, void *arg);

/** Lines above `max_level` are dropped before they are formatted. sink NULL: all are. */
void log_set_sink(log_sink_fn sink, void *arg, enum log_level max_level);

/** The sink of programs: "kvasird: warning: text" on standard error. */
void log_to_stderr(enum log_level level, const char *text, void *progname);

const char *log_level_name(enum log_level level);

void log_write(enum log_level level, const char *fmt, ...) PRINTF_LIKE(2, 3);

#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)

#endif
