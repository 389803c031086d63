/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Several tasks that share one piece of work, on this reactor: each takes the next part until
 * there is none. The first failure, or a cancel of the caller, cancels the others.
 */
#ifndef KVASIR_CLI_LANES_H
#define KVASIR_CLI_LANES_H

#include "rt/rt.h"

#define LANES_MAX 256

/**
 * Runs fn(t, arg, i) in `n` tasks and waits for all. 0, or what the first that failed returned.
 * `arg` is shared: tasks of one reactor do not run at the same time, only between waits.
 */
int lanes_run(struct rt_task *t, unsigned n,
              int (*fn)(struct rt_task *t, void *arg, unsigned lane), void *arg);

#endif
