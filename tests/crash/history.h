/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVASIR_CRASH_HISTORY_H
#define KVASIR_CRASH_HISTORY_H

#include <stdbool.h>
#include <stdint.h>

struct history_opts {
    const char *uri;
    const char *hold; /* a block device that stays open all the while: one in memory; or NULL */
    uint64_t seed, ops;
    unsigned round; /* operations of each worker until everything is compared */
    unsigned reactors;
    bool keeps;     /* the store is closed and opened again after each round */
    bool churn;     /* of values that nearly fill it: kv_work.churn */
};
int history(const struct history_opts *o);

#endif
