/* SPDX-License-Identifier: Apache-2.0 */
/* The statement filter on trees that the engine's parser would not make. */
#include "fuzz/fuzz.h"

#include "virt/query/worker/filter.h"

#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_len)
{
    static struct filter_result res;
    struct input in = {input, input_len};
    size_t len;
    uint8_t *ast = input_take(&in, in.left, &len);
    int rc = filter_statement((const char *)ast, len, &res);

    must(rc == 0 || rc == -EINVAL || rc == -ENOMEM);
    must(memchr(res.text, '\0', sizeof(res.text)) != NULL);
    must(memchr(res.table, '\0', sizeof(res.table)) != NULL);
    must((rc < 0) == (res.text[0] != '\0'));
    /* Whatever the tree says, these have not passed. */
    if (rc == 0)
        must(!filter_function_allowed("read_text") && !filter_table_function_allowed("read_csv"));
    free(ast);
    return 0;
}
