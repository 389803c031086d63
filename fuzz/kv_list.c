/* SPDX-License-Identifier: Apache-2.0 */
/* A List page as an initiator gets it from a target it does not know. */
#include "fuzz/fuzz.h"

#include "proto/nvme_select.h"

/* The CSD dialect's form of it. */
static void check_csd(const uint8_t *page, size_t len, uint8_t *again)
{
    struct nvme_kv_list_page made;
    struct nvme_kv_list_iter it;
    struct bytes key;
    uint32_t n = 0;

    must(nvme_kv_list_init(&made, again, len + NVME_KV_LIST_HEAD_BYTES) == 0);
    if (nvme_kv_list_begin(&it, page, len) < 0)
        return;
    for (; nvme_csd_list_next(&it, &key); n++) {
        must(key.len >= 1);
        must(key.len <= NVME_KV_KEY_MAX);
        must(key.ptr >= page);
        must(key.ptr + key.len <= page + len);
        must(nvme_csd_list_put(&made, key));
    }
    must(made.nkeys == n);
    must(it.rc < 0 || n == le32_at(page));
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_len)
{
    struct input in = {input, input_len};
    size_t key_max = input_u8(&in) & 1 ? NVME_KV_KEY_MAX : 2048;
    size_t len;
    uint8_t *page = input_take(&in, in.left, &len);
    uint8_t *again = malloc(len + NVME_KV_LIST_HEAD_BYTES);
    struct nvme_kv_list_page made;
    struct nvme_kv_list_iter it;
    struct bytes key;
    uint32_t n = 0;

    must(again != NULL);
    must(nvme_kv_list_init(&made, again, len + NVME_KV_LIST_HEAD_BYTES) == 0);
    if (nvme_kv_list_begin(&it, page, len) == 0) {
        while (nvme_kv_list_next(&it, key_max, &key)) {
            must(key.len >= 1);
            must(key.len <= key_max);
            must(key.ptr >= page);
            must(key.ptr + key.len <= page + len);
            must(nvme_kv_list_put(&made, key));
            n++;
        }
        must(made.nkeys == n);
        must(made.used <= len);
        must(it.rc < 0 || n == le32_at(page));
        /* A page written from what was read reads the same. */
        must(nvme_kv_list_begin(&it, again, made.used) == 0);
        while (nvme_kv_list_next(&it, key_max, &key))
            n--;
        must(it.rc == 0);
        must(n == 0);
    }
    check_csd(page, len, again);
    free(again);
    free(page);
    return 0;
}
