/* SPDX-License-Identifier: Apache-2.0 */
/* Built where liburing is absent: the backend that is never there, so the epoll one serves. */
#include "rt/internal.h"

static int none_init(struct rt_reactor *r, struct err *why)
{
    (void)r;
    return err_set(why, -ENOTSUP, "this build has no io_uring: liburing was absent");
}

const struct rt_backend_ops rt_uring_ops = {.name = "io_uring", .init = none_init};
