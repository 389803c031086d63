/* SPDX-License-Identifier: Apache-2.0 */
#include "base/log.h"

#include <stdarg.h>
#include <stdio.h>

static log_sink_fn log_sink;
static void *log_sink_arg;
static enum log_level log_max_level;

void log_set_sink(log_sink_fn sink, void *arg, enum log_level max_level)
{
    log_sink_arg = arg;
    log_max_level = max_level;
    log_sink = sink;
}

const char *log_level_name(enum log_level level)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};

    return names[level];
}

void log_to_stderr(enum log_level level, const char *text, void *progname)
{
    fprintf(stderr, "%s: %s: %s\n", (const char *)progname, log_level_name(level), text);
}

void log_write(enum log_level level, const char *fmt, ...)
{
    char text[512];
    va_list args;

    if (log_sink == NULL || level > log_max_level)
        return;
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    log_sink(level, text, log_sink_arg);
}
