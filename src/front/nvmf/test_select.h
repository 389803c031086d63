/* SPDX-License-Identifier: Apache-2.0 */
/* For tests: a query service that does as its statement says: "size N" answers N bytes of
 * pattern(.., 9), "object" the value, "fail ERRNO" fails, "sleep" takes all its time, anything else
 * is answered with all that came with the query. */
#ifndef KVASIR_FRONT_NVMF_TEST_SELECT_H
#define KVASIR_FRONT_NVMF_TEST_SELECT_H

#include "front/nvmf/test_env.h"

struct fake {
    unsigned running, peak, cancelled;
};

/** For nvmf_set_select(); arg: a struct fake. */
int fake_select(struct rt_task *t, void *arg, struct kv_chan *chan, const struct kv_select *q,
                struct kv_select_result *res, struct err *why);

#endif
