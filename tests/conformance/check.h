/* SPDX-License-Identifier: Apache-2.0 */
/* What a test of a suite expects, in functions that return 0 or an errno. */
#ifndef KVASIR_TESTS_CHECK_H
#define KVASIR_TESTS_CHECK_H

#include "base/err.h"

#include <stdio.h>

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            return -EPROTO;                                                                        \
        }                                                                                          \
    } while (0)

/** CHECK that a call returned what it should, telling what it did. */
#define CHECK_RC(call, wanted)                                                                     \
    do {                                                                                           \
        int got_ = (call);                                                                         \
        int wanted_ = (wanted);                                                                    \
        if (got_ != wanted_) {                                                                     \
            fprintf(stderr, "%s:%d: %s is %d (%s), not %d\n", __FILE__, __LINE__, #call, got_,     \
                    got_ < 0 ? err_str(got_) : "", wanted_);                                       \
            return -EPROTO;                                                                        \
        }                                                                                          \
    } while (0)

#endif
