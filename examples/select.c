/* SPDX-License-Identifier: Apache-2.0 */
/* Asks an object in SQL: select URI KEY "select ... from s3object ..." */
#include <kvasir/kvasir.h>

#include <stdio.h>
#include <string.h>

static int print(void *arg, const void *buf, size_t len)
{
    (void)arg;
    return fwrite(buf, 1, len, stdout) == len ? 0 : -1;
}

int main(int argc, char **argv)
{
    struct kvasir_select question = {.nkeys = 1, .output = "csv", .header_out = 1};
    struct kvasir_select_result result;
    struct kvasir_key key;
    struct kvasir_kv *kv;
    int rc;

    if (argc != 4) {
        fprintf(stderr, "usage: select URI KEY SQL\n");
        return 2;
    }
    rc = kvasir_open_kv(argv[1], &kv);
    if (rc < 0) {
        fprintf(stderr, "%s\n", kvasir_error());
        return 1;
    }
    key = (struct kvasir_key){argv[2], strlen(argv[2])};
    question.keys = &key;
    question.sql = argv[3];
    rc = kvasir_kv_select(kv, &question, print, NULL, &result);
    if (rc < 0)
        fprintf(stderr, "%s\n", kvasir_error());
    else
        fprintf(stderr, "%llu rows; read %llu of %llu bytes\n", (unsigned long long)result.rows,
                (unsigned long long)result.read_bytes, (unsigned long long)result.object_bytes);
    kvasir_close_kv(kv);
    return rc < 0;
}
