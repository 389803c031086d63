/* SPDX-License-Identifier: Apache-2.0 */
/* copy_value URI KEY URI KEY: copies one value, in pieces, whatever its size. */
#include <kvasir/kvasir.h>

#include <stdio.h>
#include <string.h>

static int copy(struct kvasir_get *get, struct kvasir_put *put, uint64_t len)
{
    static char buf[256 * 1024];

    for (uint64_t off = 0; off < len;) {
        size_t n;
        int rc = kvasir_get_data(get, off, buf, sizeof(buf), &n);

        if (rc == 0)
            rc = kvasir_put_data(put, buf, n);
        if (rc < 0)
            return rc;
        off += n;
    }
    return 0;
}

static int copy_value(struct kvasir_kv *from, const char *from_key, struct kvasir_kv *to,
                      const char *to_key)
{
    struct kvasir_get *get;
    struct kvasir_put *put;
    uint64_t len;
    int rc = kvasir_get_begin(from, from_key, strlen(from_key), &get, &len, NULL);

    if (rc < 0)
        return rc;
    rc = kvasir_put_begin(to, to_key, strlen(to_key), len, 0, 0, &put);
    if (rc == 0) {
        rc = copy(get, put, len);
        if (rc == 0)
            rc = kvasir_put_commit(put, NULL);
        else
            kvasir_put_abort(put);
    }
    kvasir_get_end(get);
    return rc;
}

int main(int argc, char **argv)
{
    struct kvasir_kv *from = NULL, *to = NULL;
    int rc;

    if (argc != 5) {
        fprintf(stderr, "copy_value URI KEY URI KEY\n");
        return 2;
    }
    rc = kvasir_open_kv(argv[1], &from);
    if (rc == 0)
        rc = kvasir_open_kv(argv[3], &to);
    if (rc == 0)
        rc = copy_value(from, argv[2], to, argv[4]);
    if (rc < 0)
        fprintf(stderr, "%s\n", kvasir_error());
    kvasir_close_kv(to);
    kvasir_close_kv(from);
    return rc < 0;
}
