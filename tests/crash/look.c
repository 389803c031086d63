/* SPDX-License-Identifier: Apache-2.0 */
#include "walk.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int look_bad(struct look *l, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    if (l->why[0] == '\0')
        vsnprintf(l->why, sizeof(l->why), fmt, ap);
    va_end(ap);
    return -EILSEQ;
}

int look_error(struct look *l, const char *what, int rc)
{
    if (!l->tolerant)
        return look_bad(l, "%s: %d (%s)", what, rc, strerror(-rc));
    l->errors++;
    return 0;
}
