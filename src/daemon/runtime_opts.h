/* SPDX-License-Identifier: Apache-2.0 */
/* How a program's reactors run: the same options for `kvasird` and the verbs of `kvasir`. */
#ifndef KVASIR_DAEMON_RUNTIME_OPTS_H
#define KVASIR_DAEMON_RUNTIME_OPTS_H

#include "base/opt.h"
#include "rt/rt.h"

/* For an option table. */
#define RUNTIME_OPTS                                                                               \
    RUNTIME_OPT("cores", OPT_STR, "N|LIST", NULL,                                                  \
                "reactors: a number, or the CPUs to pin them to (0-1,4); one without it"),         \
        RUNTIME_OPT("poll", OPT_CHOICE, "adaptive|always|never", "adaptive",                       \
                    "how reactors wait: spin a little, spin for ever, sleep at once"),             \
        RUNTIME_OPT("backend", OPT_CHOICE, "auto|uring|epoll", "auto",                             \
                    "what carries I/O; auto takes epoll where the kernel refuses io_uring"),       \
        RUNTIME_OPT("trace", OPT_U64, "EVENTS", "0",                                               \
                    "keep the last events of each reactor; a daemon prints them on SIGUSR2"),      \
        RUNTIME_OPT("mem", OPT_SIZE, "SIZE", "64M", "data buffers of each reactor")
#define RUNTIME_OPT(name, type, value, default_text, help)                                         \
    {                                                                                              \
        name, 0, type, false, value, default_text, help                                            \
    }

/** Fills in a configuration. It points to static memory. 0, or -EINVAL with text. */
int runtime_opts(const struct opts *o, struct rt_config *cfg, struct err *why);

/**
 * SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 come by signalfd, SIGPIPE not at all. Before threads are
 * started.
 */
void runtime_block_signals(void);

/** A descriptor from which SIGINT and SIGTERM come, and with `users` the other two. -errno. */
int runtime_signals_open(bool users);
/** Waits for the next one and returns its number; -ECANCELED. */
int runtime_signals_next(struct rt_task *t, int fd);

#endif
