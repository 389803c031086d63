/* SPDX-License-Identifier: Apache-2.0 */
#include "base/must.h"

#include <stdio.h>
#include <stdlib.h>

void must_fail(const char *cond, const char *file, int line, const char *func)
{
    fprintf(stderr, "kvasir: broken invariant: %s (%s:%d, %s)\n", cond, file, line, func);
    abort();
}
