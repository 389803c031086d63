/* SPDX-License-Identifier: Apache-2.0 */
#include "virt/query/worker/worker.h"

#include <stdarg.h>
#include <stdio.h>

int qw_fail(struct qw_text *why, int rc, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(why->s, sizeof(why->s), fmt, ap);
    va_end(ap);
    return rc;
}
