/* SPDX-License-Identifier: Apache-2.0 */
/* In the place of worker/filter.c, for tests: lets every statement pass. */
#include "virt/query/worker/filter.h"

int filter_statement(const char *ast, size_t len, struct filter_result *out)
{
    (void)ast;
    (void)len;
    *out = (struct filter_result){.at = -1};
    return 0;
}
