/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One command, 64 bytes, and the data that came with it, through every decoder of a target:
 * standard and vendor KV commands, SELECT, NVM, fabrics. What decodes has to lie inside the data
 * and to encode to the same bytes again.
 */
#include "fuzz/fuzz.h"

#include "proto/nvme_admin.h"
#include "proto/nvme_fabrics.h"
#include "proto/nvme_kv_vendor.h"
#include "proto/nvme_select.h"

#define KEY_MAX 2048

static bool inside(struct bytes b, const uint8_t *data, size_t len)
{
    return b.len == 0 || (b.ptr >= data && b.len <= len && b.ptr + b.len <= data + len);
}

static void check_keys(const struct nvme_sqe *sqe)
{
    uint8_t key[NVME_KV_KEY_MAX], again[NVME_KV_KEY_MAX];
    struct nvme_sqe made = *sqe;
    int len = nvme_kv_key_get(sqe, true, key);

    if (len >= 0) {
        must(nvme_kv_key_put(&made, bytes_make(key, (size_t)len)) == 0);
        must(nvme_kv_key_get(&made, true, again) == len);
        must(memcmp(key, again, (size_t)len) == 0);
        must(nvme_kv_options(&made) == nvme_kv_options(sqe));
    }
    len = nvme_kv_key_get_be(sqe, false, key);
    if (len >= 0) {
        must(len > 0);
        must(nvme_kv_key_put_be(&made, bytes_make(key, (size_t)len)) == 0);
        must(nvme_kv_key_get_be(&made, false, again) == len);
        must(memcmp(key, again, (size_t)len) == 0);
    }
}

static void check_open(const struct nvme_sqe *sqe, const uint8_t *data, size_t len)
{
    struct nvme_kvv_open open;
    struct nvme_sqe made = {0};
    uint8_t *again;
    uint16_t status = nvme_kvv_open_decode(sqe, data, len, KEY_MAX, &open);

    if (status != NVME_SC_SUCCESS) {
        must(status & NVME_SC_DNR);
        return;
    }
    must(inside(open.key, data, len));
    must(inside(open.prefix, data, len));
    must(open.key.len <= KEY_MAX);
    must(open.prefix.len <= KEY_MAX);
    again = malloc(len);
    must(again != NULL);
    must(nvme_kvv_open_encode(&made, again, len, &open) == (int)len);
    must(memcmp(again, data, len) == 0);
    must(memcmp(&made.cdw10, &sqe->cdw10, 24) == 0);
    must(memcmp(&made.cdw2, &sqe->cdw2, 8) == 0);
    free(again);
}

static void check_batch(const struct nvme_sqe *sqe, const uint8_t *data, size_t len)
{
    static const struct nvme_kvv_batch_limits limits = {
        .key_max = KEY_MAX, .val_max = 65536, .bytes_max = 1u << 20, .items_max = 64};
    struct nvme_kvv_item items[64];
    uint32_t nitems = 0;
    uint16_t status = nvme_kvv_batch_decode(sqe, data, len, &limits, items, 64, &nitems);
    size_t used = 0;
    uint8_t *again;

    must(nitems <= 64);
    if (status != NVME_SC_SUCCESS) {
        must(status & NVME_SC_DNR);
        return;
    }
    again = malloc(len);
    must(again != NULL);
    for (uint32_t i = 0; i < nitems; i++) {
        must(inside(items[i].key, data, len));
        must(inside(items[i].val, data, len));
        must(nvme_kvv_batch_put(again, len, &used, &items[i]));
    }
    must(used == len);
    must(memcmp(again, data, len) == 0);
    free(again);
}

static void check_io(const struct nvme_sqe *sqe)
{
    struct nvme_kvv_io io, io2;
    struct nvme_sqe made = {0};

    if (nvme_kvv_io_decode(sqe, &io) != NVME_SC_SUCCESS)
        return;
    nvme_kvv_io_encode(&made, (enum nvme_kvv_opcode)sqe->opc, &io);
    must(nvme_kvv_io_decode(&made, &io2) == NVME_SC_SUCCESS);
    must(io.len == io2.len);
    must(io.handle == io2.handle);
    must(io.offset == io2.offset);
    must(io.flags == io2.flags);
}

static void check_select(const struct nvme_sqe *sqe)
{
    struct nvme_sel_send s, s2;
    struct nvme_sel_receive r, r2;
    struct nvme_sel_get g, g2;
    struct nvme_sqe made = {0};

    for (int csd = 0; csd < 2; csd++) {
        uint16_t status = nvme_sel_send_decode(sqe, csd, &s);

        if (status != NVME_SC_SUCCESS) {
            must(status & NVME_SC_DNR);
            continue;
        }
        must(nvme_sel_send_encode(&made, csd, &s) == 0);
        must(nvme_sel_send_decode(&made, csd, &s2) == NVME_SC_SUCCESS);
        must(s2.sql_len == s.sql_len);
        must(s2.options == s.options);
        must(s2.key_len == s.key_len);
        must(memcmp(s2.key, s.key, s.key_len) == 0);
        must(s2.input == s.input);
        must(s2.output == s.output);
    }
    nvme_sel_receive_decode(sqe, &r);
    nvme_sel_receive_encode(&made, &r);
    nvme_sel_receive_decode(&made, &r2);
    must(r2.len == r.len);
    must(r2.off == r.off);
    must(r2.id == r.id);
    must(r2.options == r.options);
    if (nvme_sel_receive_frees(&r, r.off + r.len))
        must((r.options & NVME_SEL_KEEP) == 0);
    if (nvme_sel_get_decode(sqe, &g) == NVME_SC_SUCCESS) {
        nvme_sel_get_encode(&made, &g);
        must(nvme_sel_get_decode(&made, &g2) == NVME_SC_SUCCESS);
        must(g2.len == g.len);
        must(g2.off == g.off);
        must(g2.id == g.id);
        must(g2.flags == g.flags);
    }
}

static void check_query(const struct nvme_sqe *sqe, const uint8_t *data, size_t len)
{
    struct nvme_sel_query q;
    struct nvme_sqe made = {0};
    struct bytes *keys, left;
    uint8_t *again;
    uint32_t n = 0;
    uint16_t status = nvme_sel_query_decode(sqe, data, len, KEY_MAX, &q);

    if (status != NVME_SC_SUCCESS) {
        must(status & NVME_SC_DNR);
        return;
    }
    must(inside(q.sql, data, len));
    must(inside(q.schema, data, len));
    must(inside(q.prefix, data, len));
    must(q.sql.len > 0);
    keys = calloc(q.nkeys + 1, sizeof(*keys));
    again = malloc(len);
    must(keys != NULL);
    must(again != NULL);
    for (left = q.keys; nvme_sel_key_next(&left, &keys[n]); n++) {
        must(n < q.nkeys);
        must(inside(keys[n], data, len));
        must(keys[n].len > 0);
        must(keys[n].len <= KEY_MAX);
    }
    must(n == q.nkeys);
    must(left.len == 0);
    must(nvme_sel_query_bytes(&q, keys) == len);
    must(nvme_sel_query_encode(&made, again, &q, keys) == 0);
    must(memcmp(again, data, len) == 0);
    free(again);
    free(keys);
}

static void check_admin(const struct nvme_sqe *sqe, const uint8_t *data, size_t len)
{
    struct nvme_ns_ids ids;
    uint32_t dw0;

    must(nvme_log_len(sqe) % 4 == 0);
    must(nvme_nlb(sqe) >= 1);
    must(nvme_fid_name((uint8_t)le32_get(sqe->cdw10)) != NULL);
    must(nvme_lid_name(nvme_log_lid(sqe)) != NULL);
    must(nvme_cns_name(nvme_identify_cns(sqe)) != NULL);
    must(nvme_kv_opcode_name(sqe->opc) != NULL);
    must(nvme_admin_opcode_name(sqe->opc) != NULL);
    must(nvme_nvm_opcode_name(sqe->opc) != NULL);
    nvme_connect_check((const void *)sqe, data, len, &dw0);
    if (nvme_ns_desc_decode(data, len, &ids) == 0) {
        uint8_t page[64] = {0};
        struct nvme_ns_ids again;
        int n = nvme_ns_desc_encode(page, sizeof(page), &ids);

        must(n >= 0);
        must(nvme_ns_desc_decode(page, sizeof(page), &again) == 0);
        must(again.have == ids.have);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_len)
{
    struct input in = {input, input_len};
    struct nvme_sqe sqe;
    size_t len;
    uint8_t *data;

    input_fill(&in, &sqe, sizeof(sqe));
    data = input_take(&in, in.left, &len);
    check_keys(&sqe);
    check_open(&sqe, data, len);
    check_batch(&sqe, data, len);
    check_io(&sqe);
    check_select(&sqe);
    check_query(&sqe, data, len);
    check_admin(&sqe, data, len);
    /* The same with the length that the data has, which an honest host would have put there. */
    sqe.cdw10 = le32_make((uint32_t)len);
    check_open(&sqe, data, len);
    check_batch(&sqe, data, len);
    sqe.cdw11 = sqe.cdw12 = sqe.cdw13 = le32_make(0);
    check_query(&sqe, data, len);
    free(data);
    return 0;
}
