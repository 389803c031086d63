/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/nvme_kv.h"

#include "proto/nvme_kv_vendor.h"
#include "proto/nvme_select.h"

#include <errno.h>

const char *nvme_kv_opcode_name(uint8_t opc)
{
    switch (opc) {
    case NVME_OPC_FLUSH:
        return "flush";
    case NVME_KV_STORE:
        return "store";
    case NVME_KV_RETRIEVE:
        return "retrieve";
    case NVME_KV_LIST:
        return "list";
    case NVME_KV_DELETE:
        return "delete";
    case NVME_KV_EXIST:
        return "exist";
    case NVME_KV_AM_STORE:
        return "store (CSD)";
    case NVME_KV_AM_RETRIEVE:
        return "retrieve (CSD)";
    case NVME_KV_SELECT_SEND:
    case NVME_KV_SELECT_SEND_OLD:
        return "send select";
    case NVME_KV_SELECT_RECEIVE:
    case NVME_KV_SELECT_RECEIVE_OLD:
        return "retrieve select";
    case NVME_SEL_QUERY:
        return "query";
    case NVME_SEL_RESULT:
        return "result";
    case NVME_KVV_CLOSE:
        return "close";
    case NVME_KVV_OPEN:
        return "open";
    case NVME_KVV_READ:
        return "read";
    case NVME_KVV_COMMIT:
        return "commit";
    case NVME_KVV_WRITE:
        return "write";
    case NVME_KVV_INFO:
        return "info";
    case NVME_KVV_BATCH:
        return "batch";
    default:
        return "unknown";
    }
}

static int key_len_get(const struct nvme_sqe *sqe, bool may_be_empty)
{
    unsigned len = nvme_kv_key_len(sqe);

    if (len > NVME_KV_KEY_MAX || (len == 0 && !may_be_empty))
        return -ENAMETOOLONG;
    return (int)len;
}

static void set_key_len(struct nvme_sqe *sqe, size_t len)
{
    sqe->cdw11 = le32_make((le32_get(sqe->cdw11) & 0xffffff00u) | (uint32_t)len);
}

int nvme_kv_key_get(const struct nvme_sqe *sqe, bool may_be_empty, uint8_t out_key[NVME_KV_KEY_MAX])
{
    int len = key_len_get(sqe, may_be_empty);

    if (len < 0)
        return len;
    memcpy(out_key, &sqe->cdw2, 8);
    memcpy(out_key + 8, &sqe->cdw14, 8);
    return len;
}

int nvme_kv_key_put(struct nvme_sqe *sqe, struct bytes key)
{
    uint8_t padded[NVME_KV_KEY_MAX] = {0};

    if (key.len > NVME_KV_KEY_MAX)
        return -ENAMETOOLONG;
    if (key.len > 0)
        memcpy(padded, key.ptr, key.len);
    memcpy(&sqe->cdw2, padded, 8);
    memcpy(&sqe->cdw14, padded + 8, 8);
    set_key_len(sqe, key.len);
    return 0;
}

int nvme_kv_key_get_be(const struct nvme_sqe *sqe, bool may_be_empty,
                       uint8_t out_key[NVME_KV_KEY_MAX])
{
    int len = key_len_get(sqe, may_be_empty);

    if (len < 0)
        return len;
    be32_put(out_key, le32_get(sqe->cdw15));
    be32_put(out_key + 4, le32_get(sqe->cdw14));
    be32_put(out_key + 8, le32_get(sqe->cdw3));
    be32_put(out_key + 12, le32_get(sqe->cdw2));
    return len;
}

int nvme_kv_key_put_be(struct nvme_sqe *sqe, struct bytes key)
{
    uint8_t padded[NVME_KV_KEY_MAX] = {0};

    if (key.len > NVME_KV_KEY_MAX)
        return -ENAMETOOLONG;
    if (key.len > 0)
        memcpy(padded, key.ptr, key.len);
    sqe->cdw15 = le32_make(be32_at(padded));
    sqe->cdw14 = le32_make(be32_at(padded + 4));
    sqe->cdw3 = le32_make(be32_at(padded + 8));
    sqe->cdw2 = le32_make(be32_at(padded + 12));
    set_key_len(sqe, key.len);
    return 0;
}

int nvme_kv_list_init(struct nvme_kv_list_page *page, void *buf, size_t max)
{
    if (max < NVME_KV_LIST_HEAD_BYTES)
        return -EINVAL;
    *page = (struct nvme_kv_list_page){.buf = buf, .max = max, .used = NVME_KV_LIST_HEAD_BYTES};
    le32_put(buf, 0);
    return 0;
}

bool nvme_kv_list_put(struct nvme_kv_list_page *page, struct bytes key)
{
    size_t entry = nvme_kv_list_entry_bytes(key.len);
    uint8_t *at = page->buf + page->used;

    if (key.len > UINT16_MAX || entry > page->max - page->used)
        return false;
    le16_put(at, (uint16_t)key.len);
    if (key.len > 0)
        memcpy(at + 2, key.ptr, key.len);
    memset(at + 2 + key.len, 0, entry - 2 - key.len);
    page->used += entry;
    page->nkeys++;
    le32_put(page->buf, page->nkeys);
    return true;
}

int nvme_kv_list_begin(struct nvme_kv_list_iter *it, const void *page, size_t len)
{
    if (len < NVME_KV_LIST_HEAD_BYTES)
        return -EBADMSG;
    *it = (struct nvme_kv_list_iter){
        .at = (const uint8_t *)page + NVME_KV_LIST_HEAD_BYTES,
        .end = (const uint8_t *)page + len,
        .left = le32_at(page),
    };
    return 0;
}

bool nvme_kv_list_next_padded(struct nvme_kv_list_iter *it, size_t key_max,
                              size_t (*entry_bytes)(size_t key_len), struct bytes *out_key)
{
    size_t room = (size_t)(it->end - it->at);
    size_t len;

    if (it->left == 0 || it->rc < 0)
        return false;
    it->rc = -EBADMSG;
    if (room < 2)
        return false;
    len = le16_at(it->at);
    if (len == 0 || len > key_max || entry_bytes(len) > room)
        return false;
    *out_key = bytes_make(it->at + 2, len);
    it->at += entry_bytes(len);
    it->left--;
    it->rc = 0;
    return true;
}

bool nvme_kv_list_next(struct nvme_kv_list_iter *it, size_t key_max, struct bytes *out_key)
{
    return nvme_kv_list_next_padded(it, key_max, nvme_kv_list_entry_bytes, out_key);
}
