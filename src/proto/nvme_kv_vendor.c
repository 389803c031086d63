/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/nvme_kv_vendor.h"

#include <errno.h>

#define INVALID_FIELD (NVME_SC_INVALID_FIELD | NVME_SC_DNR)
#define INVALID_LENGTH (NVME_SC_SGL_INVALID_LENGTH | NVME_SC_DNR)
#define INVALID_KEY (NVME_SC_KV_INVALID_KEY_SIZE | NVME_SC_DNR)
#define INVALID_VALUE (NVME_SC_KV_INVALID_VALUE_SIZE | NVME_SC_DNR)

int nvme_kvv_errno_of_status(uint16_t status)
{
    switch (status & NVME_SC_CODE_MASK) {
    case NVME_SC_KVV_BAD_HANDLE:
        return -ETIMEDOUT; /* ours are good until they expire */
    case NVME_SC_KVV_NO_HANDLE:
        return -ENOMEM;
    case NVME_SC_KVV_STALE:
        return -ESTALE;
    case NVME_SC_KVV_SEQUENCE:
        return -EPROTO;
    default:
        return nvme_errno_of_status(status);
    }
}

const char *nvme_kvv_status_text(uint16_t status)
{
    switch (status & NVME_SC_CODE_MASK) {
    case NVME_SC_KVV_BAD_HANDLE:
        return "no such handle, or it has expired";
    case NVME_SC_KVV_NO_HANDLE:
        return "all handles of the queue are in use";
    case NVME_SC_KVV_STALE:
        return "the key has another version";
    case NVME_SC_KVV_SEQUENCE:
        return "handle busy or offset not in sequence";
    default:
        return nvme_status_text(status);
    }
}

bool nvme_kvv_id_ok(const struct nvme_kvv_id *id)
{
    return memcmp(id->magic, NVME_KVV_MAGIC, sizeof(id->magic)) == 0 &&
           le32_get(id->version) == NVME_KVV_VERSION;
}

static uint64_t pair_get(le32 low, le32 high)
{
    return le32_get(low) | (uint64_t)le32_get(high) << 32;
}

static void pair_put(le32 *low, le32 *high, uint64_t v)
{
    *low = le32_make((uint32_t)v);
    *high = le32_make((uint32_t)(v >> 32));
}

/* --- OPEN ------------------------------------------------------------------------------------- */

/* What each mode allows. */
static const struct open_spec {
    uint32_t flags;
    bool key_required;
    bool key_allowed;
    bool prefix_allowed;
    bool snapshot_allowed;
    bool len_allowed;
} open_specs[] = {
    [NVME_KVV_MODE_READ] = {.key_required = true, .key_allowed = true, .snapshot_allowed = true},
    [NVME_KVV_MODE_STORE] = {NVME_KVV_F_MUST_EXIST | NVME_KVV_F_MUST_NOT_EXIST |
                                 NVME_KVV_F_IF_VERSION | NVME_KVV_F_APPEND,
                             .key_required = true, .key_allowed = true, .len_allowed = true},
    [NVME_KVV_MODE_LIST] = {NVME_KVV_F_AFTER, .key_allowed = true, .prefix_allowed = true,
                            .snapshot_allowed = true},
    [NVME_KVV_MODE_DELETE] = {NVME_KVV_F_IF_VERSION, .key_required = true, .key_allowed = true},
    [NVME_KVV_MODE_STAT] = {.key_required = true, .key_allowed = true, .snapshot_allowed = true},
    [NVME_KVV_MODE_SNAPSHOT] = {0},
};

static uint16_t check_open(const struct nvme_kvv_open *o, uint32_t key_max)
{
    const struct open_spec *spec = &open_specs[o->mode];
    bool both = (o->flags & NVME_KVV_F_MUST_EXIST) && (o->flags & NVME_KVV_F_MUST_NOT_EXIST);

    if ((o->flags & ~spec->flags) != 0 || both)
        return INVALID_FIELD;
    if (o->version != 0 && (o->flags & NVME_KVV_F_IF_VERSION) == 0)
        return INVALID_FIELD;
    if (o->declared_len != 0 && !spec->len_allowed)
        return INVALID_FIELD;
    if (o->snapshot != 0 && !spec->snapshot_allowed)
        return INVALID_FIELD;
    if (o->prefix.len != 0 && !spec->prefix_allowed)
        return INVALID_FIELD;
    if (o->key.len != 0 && !spec->key_allowed)
        return INVALID_FIELD;
    if (o->key.len == 0 && spec->key_required)
        return INVALID_KEY;
    if (o->key.len > key_max || o->prefix.len > key_max)
        return INVALID_KEY;
    return NVME_SC_SUCCESS;
}

uint16_t nvme_kvv_open_decode(const struct nvme_sqe *sqe, const void *data, size_t len,
                              uint32_t key_max, struct nvme_kvv_open *out)
{
    const struct nvme_kvv_open_head *head = data;
    uint32_t cdw11 = le32_get(sqe->cdw11);
    size_t key_len, prefix_len;
    const uint8_t *key;
    uint16_t status;

    if (len != nvme_kvv_data_len(sqe))
        return INVALID_LENGTH;
    if (len < sizeof(*head) || (cdw11 & 0xff) >= ARRAY_LEN(open_specs))
        return INVALID_FIELD;
    if (le32_get(head->rsvd) != 0 || le32_get(sqe->cdw13) != 0)
        return INVALID_FIELD;
    key_len = le16_get(head->key_len);
    prefix_len = le16_get(head->prefix_len);
    if (key_len + prefix_len != len - sizeof(*head))
        return INVALID_FIELD;
    key = (const uint8_t *)data + sizeof(*head);

    struct nvme_kvv_open open = {
        .mode = (enum nvme_kvv_mode)(cdw11 & 0xff),
        .flags = cdw11 >> 8,
        .declared_len = pair_get(sqe->cdw2, sqe->cdw3),
        .snapshot = le32_get(sqe->cdw12),
        .version = pair_get(sqe->cdw14, sqe->cdw15),
        .key = bytes_make(key, key_len),
        .prefix = bytes_make(key + key_len, prefix_len),
    };
    status = check_open(&open, key_max);
    if (status == NVME_SC_SUCCESS)
        *out = open;
    return status;
}

int nvme_kvv_open_head(struct nvme_sqe *sqe, struct nvme_kvv_open_head *out_head,
                       const struct nvme_kvv_open *open)
{
    size_t len = sizeof(*out_head) + open->key.len + open->prefix.len;

    if (open->key.len > UINT16_MAX || open->prefix.len > UINT16_MAX)
        return -ENAMETOOLONG;
    *out_head = (struct nvme_kvv_open_head){
        .key_len = le16_make((uint16_t)open->key.len),
        .prefix_len = le16_make((uint16_t)open->prefix.len),
    };
    sqe->opc = NVME_KVV_OPEN;
    pair_put(&sqe->cdw2, &sqe->cdw3, open->declared_len);
    sqe->cdw10 = le32_make((uint32_t)len);
    sqe->cdw11 = le32_make((uint32_t)open->mode | open->flags << 8);
    sqe->cdw12 = le32_make(open->snapshot);
    sqe->cdw13 = le32_make(0);
    pair_put(&sqe->cdw14, &sqe->cdw15, open->version);
    return (int)len;
}

int nvme_kvv_open_encode(struct nvme_sqe *sqe, void *data, size_t max,
                         const struct nvme_kvv_open *open)
{
    struct nvme_kvv_open_head head;
    struct nvme_sqe filled = *sqe;
    int len = nvme_kvv_open_head(&filled, &head, open);
    uint8_t *at = data;

    if (len < 0)
        return len;
    if ((size_t)len > max)
        return -E2BIG;
    memcpy(at, &head, sizeof(head));
    at += sizeof(head);
    if (open->key.len > 0)
        memcpy(at, open->key.ptr, open->key.len);
    at += open->key.len;
    if (open->prefix.len > 0)
        memcpy(at, open->prefix.ptr, open->prefix.len);
    *sqe = filled;
    return len;
}

/* --- commands on handles ---------------------------------------------------------------------- */

uint16_t nvme_kvv_io_decode(const struct nvme_sqe *sqe, struct nvme_kvv_io *out)
{
    struct nvme_kvv_io io = {
        .len = le32_get(sqe->cdw10),
        .handle = le32_get(sqe->cdw11),
        .offset = pair_get(sqe->cdw12, sqe->cdw13),
        .flags = le32_get(sqe->cdw14),
    };
    bool moves = sqe->opc == NVME_KVV_READ || sqe->opc == NVME_KVV_WRITE;
    bool data = moves || sqe->opc == NVME_KVV_INFO;

    if ((io.flags & ~(data ? NVME_KVV_IO_CLOSE : 0u)) != 0)
        return INVALID_FIELD;
    if ((!data && io.len != 0) || (!moves && io.offset != 0))
        return INVALID_FIELD;
    if (sqe->opc == NVME_KVV_INFO && io.len < sizeof(struct nvme_kvv_info))
        return INVALID_FIELD;
    if (io.offset > UINT64_MAX - io.len)
        return INVALID_FIELD;
    *out = io;
    return NVME_SC_SUCCESS;
}

void nvme_kvv_io_encode(struct nvme_sqe *sqe, enum nvme_kvv_opcode opc,
                        const struct nvme_kvv_io *io)
{
    sqe->opc = (uint8_t)opc;
    sqe->cdw10 = le32_make(io->len);
    sqe->cdw11 = le32_make(io->handle);
    pair_put(&sqe->cdw12, &sqe->cdw13, io->offset);
    sqe->cdw14 = le32_make(io->flags);
}

/* --- BATCH ------------------------------------------------------------------------------------ */

uint16_t nvme_kvv_batch_check(const struct nvme_sqe *sqe, size_t len,
                              const struct nvme_kvv_batch_limits *limits)
{
    uint32_t nitems = le32_get(sqe->cdw11);

    if (nvme_kvv_data_len(sqe) > limits->bytes_max || nitems == 0 || nitems > limits->items_max)
        return INVALID_FIELD;
    return len == nvme_kvv_data_len(sqe) ? NVME_SC_SUCCESS : INVALID_LENGTH;
}

/* Takes one record off [*at, *at + *left). */
static uint16_t take_record(const uint8_t **at, size_t *left,
                            const struct nvme_kvv_batch_limits *limits, struct nvme_kvv_item *out)
{
    const struct nvme_kvv_record *r = (const void *)*at;
    size_t key_len, val_len;

    if (*left < sizeof(*r) || r->op > NVME_KVV_DELETE || r->rsvd != 0)
        return INVALID_FIELD;
    key_len = le16_get(r->key_len);
    val_len = le32_get(r->val_len);
    if (key_len + val_len > *left - sizeof(*r))
        return INVALID_FIELD;
    if (key_len == 0 || key_len > limits->key_max)
        return INVALID_KEY;
    if (val_len > limits->val_max)
        return INVALID_VALUE;
    if (r->op == NVME_KVV_DELETE && val_len != 0)
        return INVALID_FIELD;
    *out = (struct nvme_kvv_item){
        .is_delete = r->op == NVME_KVV_DELETE,
        .key = bytes_make(*at + sizeof(*r), key_len),
        .val = bytes_make(*at + sizeof(*r) + key_len, val_len),
    };
    *at += sizeof(*r) + key_len + val_len;
    *left -= sizeof(*r) + key_len + val_len;
    return NVME_SC_SUCCESS;
}

uint16_t nvme_kvv_batch_decode(const struct nvme_sqe *sqe, const void *data, size_t len,
                               const struct nvme_kvv_batch_limits *limits,
                               struct nvme_kvv_item *items, uint32_t items_max,
                               uint32_t *out_nitems)
{
    uint32_t nitems = le32_get(sqe->cdw11);
    const uint8_t *at = data;
    uint16_t status = nvme_kvv_batch_check(sqe, len, limits);

    *out_nitems = 0;
    if (status != NVME_SC_SUCCESS)
        return status;
    if (nitems > items_max)
        return INVALID_FIELD;
    for (uint32_t i = 0; i < nitems; i++) {
        *out_nitems = i;
        status = take_record(&at, &len, limits, &items[i]);
        if (status != NVME_SC_SUCCESS)
            return status;
    }
    *out_nitems = nitems;
    return len == 0 ? NVME_SC_SUCCESS : INVALID_FIELD;
}

bool nvme_kvv_batch_put(void *data, size_t max, size_t *used, const struct nvme_kvv_item *item)
{
    size_t val_len = item->is_delete ? 0 : item->val.len;
    size_t room = max - *used;
    uint8_t *at = (uint8_t *)data + *used;
    struct nvme_kvv_record r;

    if (item->key.len > UINT16_MAX || val_len > UINT32_MAX ||
        sizeof(r) + item->key.len + val_len > room)
        return false;
    r = (struct nvme_kvv_record){
        .op = item->is_delete ? NVME_KVV_DELETE : NVME_KVV_PUT,
        .key_len = le16_make((uint16_t)item->key.len),
        .val_len = le32_make((uint32_t)val_len),
    };
    memcpy(at, &r, sizeof(r));
    if (item->key.len > 0)
        memcpy(at + sizeof(r), item->key.ptr, item->key.len);
    if (val_len > 0)
        memcpy(at + sizeof(r) + item->key.len, item->val.ptr, val_len);
    *used += sizeof(r) + item->key.len + val_len;
    return true;
}

void nvme_kvv_batch_encode(struct nvme_sqe *sqe, uint32_t bytes, uint32_t nitems)
{
    sqe->opc = NVME_KVV_BATCH;
    sqe->cdw10 = le32_make(bytes);
    sqe->cdw11 = le32_make(nitems);
}
