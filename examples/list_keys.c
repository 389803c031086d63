/* SPDX-License-Identifier: Apache-2.0 */
/* list_keys URI [PREFIX]: the keys of a KV device and the lengths of their values. */
#include <kvasir/kvasir.h>

#include <stdio.h>
#include <string.h>

static int show(void *arg, const void *key, size_t key_len)
{
    struct kvasir_kv *kv = arg;
    uint64_t len;
    int rc = kvasir_kv_stat(kv, key, key_len, &len, NULL);

    if (rc < 0)
        return rc;
    printf("%12llu  %.*s\n", (unsigned long long)len, (int)key_len, (const char *)key);
    return 0;
}

int main(int argc, char **argv)
{
    const char *prefix = argc > 2 ? argv[2] : "";
    struct kvasir_kv *kv;
    int rc;

    if (argc < 2) {
        fprintf(stderr, "list_keys URI [PREFIX]\n");
        return 2;
    }
    rc = kvasir_open_kv(argv[1], &kv);
    if (rc == 0) {
        rc = kvasir_kv_list(kv, prefix, strlen(prefix), NULL, 0, show, kv);
        if (rc < 0)
            fprintf(stderr, "%s\n", kvasir_error());
        kvasir_close_kv(kv);
    } else {
        fprintf(stderr, "%s\n", kvasir_error());
    }
    return rc < 0;
}
