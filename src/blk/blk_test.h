/* SPDX-License-Identifier: Apache-2.0 */
/* What the unit tests of src/blk share: checks inside tasks, and a runtime around them. */
#ifndef KVASIR_BLK_BLK_TEST_H
#define KVASIR_BLK_BLK_TEST_H

#include "blk/blk.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <cmocka.h>

/* The number of the line that failed goes back to the main stack. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #cond);                             \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)

static inline void run_task(unsigned reactors, rt_task_fn fn, void *arg)
{
    struct rt_config cfg = {.reactors = reactors, .poll = RT_POLL_NEVER, .buf_bytes = MIB};
    struct err why = {""};
    int rc = rt_run(&cfg, fn, arg, &why);

    if (rc < 0)
        print_error("line %d (%s)\n", -rc, why.text);
    assert_int_equal(rc, 0);
}

#define TEST(name, reactors)                                                                       \
    static void name##_test(void **state)                                                          \
    {                                                                                              \
        (void)state;                                                                               \
        run_task(reactors, name, NULL);                                                            \
    }

/* A device with a channel on this reactor. */
static inline int dev_open(struct rt_task *t, const char *uri, struct blk_dev **dev,
                           struct blk_chan **chan)
{
    struct err why = {""};
    int rc = blk_open(t, uri, dev, &why);

    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", uri, why.text);
        return rc;
    }
    return blk_chan_get(t, *dev, chan);
}

static inline void dev_close(struct rt_task *t, struct blk_dev *dev, struct blk_chan *chan)
{
    blk_chan_put(t, chan);
    blk_close(t, dev);
}

#endif
