/* SPDX-License-Identifier: Apache-2.0 */
/* How a program's reactors run: the same options for `kvasird` and the verbs of `kvasir`. */
#ifndef KVASIR_DAEMON_RUNTIME_OPTS_H
#define KVASIR_DAEMON_RUNTIME_OPTS_H

#include "base/opt.h"
#include "rt/rt.h"

/* For an option table. */
#define RUNTIME_OPTS                                                                               \
    {"cores", 0, OPT_STR, false, "N|LIST", NULL,                                                   \
     "reactors: a number, or the CPUs to pin them to (0-1,4); one without it"},                    \
        {"poll", 0, OPT_CHOICE, false, "adaptive|always|never", "adaptive",                        \
         "how reactors wait: spin a little, spin for ever, sleep at once"},                        \
        {"backend", 0, OPT_CHOICE, false, "auto|uring|epoll", "auto",                              \
         "what carries I/O; auto takes epoll where the kernel refuses io_uring"},                  \
        {"trace", 0, OPT_U64, false, "EVENTS", "0",                                                \
         "keep the last events of each reactor; a daemon prints them on SIGUSR2"},                 \
    {                                                                                              \
        "mem", 0, OPT_SIZE, false, "SIZE", "64M", "data buffers of each reactor"                   \
    }

/** Fills in a configuration. It points to static memory. 0, or -EINVAL with text. */
int runtime_opts(const struct opts *o, struct rt_config *cfg, struct err *why);

/** SIGINT, SIGTERM, SIGUSR1 and SIGUSR2 come by signalfd, SIGPIPE not at all. Before threads are started. */
void runtime_block_signals(void);

#endif
