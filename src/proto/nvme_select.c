/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/nvme_select.h"

#include <errno.h>

#define INVALID_FIELD (NVME_SC_INVALID_FIELD | NVME_SC_DNR)
#define INVALID_LENGTH (NVME_SC_SGL_INVALID_LENGTH | NVME_SC_DNR)
#define INVALID_KEY (NVME_SC_KV_INVALID_KEY_SIZE | NVME_SC_DNR)
#define INVALID_PARAMETER (NVME_SC_SELECT_INVALID | NVME_SC_DNR)

/* --- statuses --------------------------------------------------------------------------------- */

static const struct sel_meaning {
    uint16_t code;
    int errnum;
    const char *text;
} meanings[] = {
    {NVME_SC_SEL_STATEMENT, EINVAL, "the statement is wrong or not allowed"},
    {NVME_SC_SEL_OBJECT, EBADMSG, "the object is not in the format that was said"},
    {NVME_SC_SEL_MEMORY, ENOMEM, "the query needs more memory than it may have"},
    {NVME_SC_SEL_TIME, ETIMEDOUT, "the query was ended: it takes longer than it may"},
    {NVME_SC_SEL_QUOTA, EDQUOT, "the result is larger than the target holds for one host"},
    {NVME_SC_SEL_BUSY, EAGAIN, "too many queries at a time"},
    {NVME_SC_SEL_WORKER, EPIPE, "the process of the query died"},
    {NVME_SC_SEL_CHANGED, ESTALE, "an object changed while it was read"},
};

int nvme_sel_errno_of_status(uint16_t status)
{
    for (size_t i = 0; i < ARRAY_LEN(meanings); i++) {
        if (meanings[i].code == (status & NVME_SC_CODE_MASK))
            return -meanings[i].errnum;
    }
    return nvme_errno_of_status(status);
}

const char *nvme_sel_status_text(uint16_t status)
{
    if ((status & NVME_SC_CODE_MASK) == NVME_SC_SELECT_INVALID)
        return "invalid parameter";
    for (size_t i = 0; i < ARRAY_LEN(meanings); i++) {
        if (meanings[i].code == (status & NVME_SC_CODE_MASK))
            return meanings[i].text;
    }
    return nvme_status_text(status);
}

/* Limits have codes of their own everywhere; the dialect says 88h of all else. */
static bool is_limit(uint16_t code)
{
    return code >= NVME_SC_SEL_MEMORY && code <= NVME_SC_SEL_BUSY;
}

uint16_t nvme_sel_status_of_errno(int rc, bool extended)
{
    for (size_t i = 0; i < ARRAY_LEN(meanings) && rc < 0; i++) {
        uint16_t code = meanings[i].code;

        if (meanings[i].errnum != -rc)
            continue;
        if (!extended && !is_limit(code))
            return NVME_SC_KV_UNRECOVERED | NVME_SC_DNR;
        return code == NVME_SC_SEL_BUSY ? code : code | NVME_SC_DNR;
    }
    switch (rc) {
    case -ENOENT:
        return NVME_SC_KV_KEY_NOT_EXIST | NVME_SC_DNR;
    case -ENAMETOOLONG:
        return INVALID_KEY;
    case -ENOSPC: /* of the results */
        return NVME_SC_CAPACITY_EXCEEDED | NVME_SC_DNR;
    case -ENOTSUP:
        return NVME_SC_INVALID_OPCODE | NVME_SC_DNR;
    case -ECANCELED:
        return NVME_SC_ABORT_REQ | NVME_SC_DNR;
    default:
        if (rc >= 0)
            return NVME_SC_SUCCESS;
        return (extended ? NVME_SC_INTERNAL : NVME_SC_KV_UNRECOVERED) | NVME_SC_DNR;
    }
}

/* --- SEND SELECT, RETRIEVE SELECT ------------------------------------------------------------- */

uint16_t nvme_sel_send_decode(const struct nvme_sqe *sqe, bool csd, struct nvme_sel_send *out)
{
    uint32_t cdw11 = le32_get(sqe->cdw11);
    uint8_t key[NVME_KV_KEY_MAX];
    int n = csd ? nvme_kv_key_get_be(sqe, false, key) : nvme_kv_key_get(sqe, false, key);

    if (n < 0)
        return INVALID_KEY;
    if ((cdw11 >> 16 & 0xff) >= NVME_SEL_TYPES || cdw11 >> 24 >= NVME_SEL_TYPES)
        return INVALID_PARAMETER;
    *out = (struct nvme_sel_send){
        .sql_len = le32_get(sqe->cdw10),
        .key_len = (uint8_t)n,
        .options = nvme_kv_options(sqe),
        .input = (enum nvme_sel_type)(cdw11 >> 16 & 0xff),
        .output = (enum nvme_sel_type)(cdw11 >> 24),
    };
    memcpy(out->key, key, sizeof(key));
    return NVME_SC_SUCCESS;
}

int nvme_sel_send_encode(struct nvme_sqe *sqe, bool csd, const struct nvme_sel_send *s)
{
    struct bytes key = bytes_make(s->key, s->key_len);
    int rc = csd ? nvme_kv_key_put_be(sqe, key) : nvme_kv_key_put(sqe, key);

    if (rc < 0)
        return rc;
    sqe->opc = NVME_KV_SELECT_SEND;
    sqe->cdw10 = le32_make(s->sql_len);
    sqe->cdw11 = le32_make(s->key_len | (uint32_t)s->options << 8 | (uint32_t)s->input << 16 |
                           (uint32_t)s->output << 24);
    return 0;
}

void nvme_sel_receive_decode(const struct nvme_sqe *sqe, struct nvme_sel_receive *out)
{
    *out = (struct nvme_sel_receive){
        .len = le32_get(sqe->cdw10),
        .options = (uint8_t)le32_get(sqe->cdw11),
        .off = le32_get(sqe->cdw12),
        .id = le32_get(sqe->cdw13),
    };
}

void nvme_sel_receive_encode(struct nvme_sqe *sqe, const struct nvme_sel_receive *r)
{
    sqe->opc = NVME_KV_SELECT_RECEIVE;
    sqe->cdw10 = le32_make(r->len);
    sqe->cdw11 = le32_make(r->options);
    sqe->cdw12 = le32_make((uint32_t)r->off);
    sqe->cdw13 = le32_make(r->id);
}

bool nvme_sel_receive_frees(const struct nvme_sel_receive *r, uint64_t result_bytes)
{
    if (r->options & NVME_SEL_KEEP)
        return false;
    return (r->options & NVME_SEL_KEEP_UNREAD) == 0 || r->off + r->len >= result_bytes;
}

/* --- List of the CSD dialect ------------------------------------------------------------------ */

bool nvme_csd_list_put(struct nvme_kv_list_page *page, struct bytes key)
{
    size_t entry = nvme_csd_list_entry_bytes(key.len);
    uint8_t *at = page->buf + page->used;

    if (key.len > NVME_KV_KEY_MAX || entry > page->max - page->used)
        return false;
    memset(at, 0, entry);
    le16_put(at, (uint16_t)key.len);
    if (key.len > 0)
        memcpy(at + 2, key.ptr, key.len);
    page->used += entry;
    page->nkeys++;
    le32_put(page->buf, page->nkeys);
    return true;
}

bool nvme_csd_list_next(struct nvme_kv_list_iter *it, struct bytes *out_key)
{
    return nvme_kv_list_next_padded(it, NVME_KV_KEY_MAX, nvme_csd_list_entry_bytes, out_key);
}

/* --- the extended form ------------------------------------------------------------------------ */

bool nvme_sel_id_ok(const struct nvme_sel_id *id)
{
    return memcmp(id->magic, NVME_SEL_MAGIC, sizeof(id->magic)) == 0 &&
           le32_get(id->version) == NVME_SEL_VERSION;
}

bool nvme_sel_key_next(struct bytes *keys, struct bytes *out_key)
{
    size_t len;

    if (keys->len < 2)
        return false;
    len = le16_at(keys->ptr);
    if (len > keys->len - 2)
        return false;
    *out_key = bytes_make(keys->ptr + 2, len);
    *keys = bytes_make(keys->ptr + 2 + len, keys->len - 2 - len);
    return true;
}

static uint16_t check_keys(const struct nvme_sel_query *q, uint32_t key_max)
{
    struct bytes left = q->keys, key;
    uint32_t n = 0;

    if (q->prefix.len > key_max)
        return INVALID_KEY;
    if (q->nkeys > NVME_SEL_KEYS_MAX || (q->nkeys > 0 && q->prefix.len > 0))
        return INVALID_FIELD;
    while (nvme_sel_key_next(&left, &key)) {
        n++;
        if (key.len == 0 || key.len > key_max)
            return INVALID_KEY;
    }
    return n == q->nkeys && left.len == 0 ? NVME_SC_SUCCESS : INVALID_FIELD;
}

static bool head_ok(const struct nvme_sel_head *h)
{
    return h->version == NVME_SEL_VERSION && h->input < NVME_SEL_FORMATS &&
           h->input != NVME_SEL_F_ARROW && h->output < NVME_SEL_FORMATS &&
           h->output != NVME_SEL_F_AUTO && h->header <= 2 && h->rsvd11 == 0 &&
           (le32_get(h->flags) & ~NVME_SEL_Q_HEADER_OUT) == 0 &&
           bytes_are_zero(h->rsvd36, sizeof(h->rsvd36));
}

static struct bytes take(const uint8_t **at, le32 len)
{
    struct bytes b = bytes_make(*at, le32_get(len));

    *at += b.len;
    return b;
}

uint16_t nvme_sel_query_decode(const struct nvme_sqe *sqe, const void *data, size_t len,
                               uint32_t key_max, struct nvme_sel_query *out)
{
    const struct nvme_sel_head *h = data;
    const uint8_t *at = (const uint8_t *)data + sizeof(*h);
    uint64_t parts;
    uint16_t status;

    if (len != le32_get(sqe->cdw10))
        return INVALID_LENGTH;
    if (len < sizeof(*h) || len > NVME_SEL_DATA_MAX || le32_get(sqe->cdw11) != 0 ||
        le32_get(sqe->cdw12) != 0 || le32_get(sqe->cdw13) != 0 || !head_ok(h))
        return INVALID_FIELD;
    parts = (uint64_t)le32_get(h->sql_len) + le32_get(h->schema_len) + le32_get(h->prefix_len) +
            le32_get(h->keys_len);
    if (parts != len - sizeof(*h) || le32_get(h->sql_len) == 0 ||
        le32_get(h->sql_len) > NVME_SEL_SQL_MAX || le32_get(h->schema_len) > NVME_SEL_SCHEMA_MAX)
        return INVALID_FIELD;

    struct nvme_sel_query q = {
        .input = (enum nvme_sel_format)h->input,
        .output = (enum nvme_sel_format)h->output,
        .header = h->header,
        .flags = le32_get(h->flags),
        .delim = (char)h->delim,
        .quote = (char)h->quote,
        .escape = (char)h->escape,
        .nkeys = le32_get(h->nkeys),
        .timeout_ms = le32_get(h->timeout_ms),
    };
    q.sql = take(&at, h->sql_len);
    q.schema = take(&at, h->schema_len);
    q.prefix = take(&at, h->prefix_len);
    q.keys = take(&at, h->keys_len);
    status = check_keys(&q, key_max);
    if (status == NVME_SC_SUCCESS)
        *out = q;
    return status;
}

static size_t keys_bytes(const struct nvme_sel_query *q, const struct bytes *keys)
{
    size_t n = 0;

    for (uint32_t i = 0; i < q->nkeys; i++)
        n += 2 + keys[i].len;
    return n;
}

size_t nvme_sel_query_bytes(const struct nvme_sel_query *q, const struct bytes *keys)
{
    return sizeof(struct nvme_sel_head) + q->sql.len + q->schema.len + q->prefix.len +
           keys_bytes(q, keys);
}

static uint8_t *put(uint8_t *at, struct bytes b)
{
    if (b.len > 0)
        memcpy(at, b.ptr, b.len);
    return at + b.len;
}

int nvme_sel_query_encode(struct nvme_sqe *sqe, void *data, const struct nvme_sel_query *q,
                          const struct bytes *keys)
{
    size_t len = nvme_sel_query_bytes(q, keys);
    struct nvme_sel_head *h = data;
    uint8_t *at = (uint8_t *)data + sizeof(*h);

    if (len > NVME_SEL_DATA_MAX || q->sql.len > NVME_SEL_SQL_MAX ||
        q->schema.len > NVME_SEL_SCHEMA_MAX || q->nkeys > NVME_SEL_KEYS_MAX)
        return -E2BIG;
    *h = (struct nvme_sel_head){
        .version = NVME_SEL_VERSION,
        .input = (uint8_t)q->input,
        .output = (uint8_t)q->output,
        .header = q->header,
        .flags = le32_make(q->flags),
        .delim = (uint8_t)q->delim,
        .quote = (uint8_t)q->quote,
        .escape = (uint8_t)q->escape,
        .nkeys = le32_make(q->nkeys),
        .sql_len = le32_make((uint32_t)q->sql.len),
        .schema_len = le32_make((uint32_t)q->schema.len),
        .prefix_len = le32_make((uint32_t)q->prefix.len),
        .keys_len = le32_make((uint32_t)keys_bytes(q, keys)),
        .timeout_ms = le32_make(q->timeout_ms),
    };
    at = put(at, q->sql);
    at = put(at, q->schema);
    at = put(at, q->prefix);
    for (uint32_t i = 0; i < q->nkeys; i++) {
        if (keys[i].len == 0 || keys[i].len > UINT16_MAX)
            return -EINVAL;
        le16_put(at, (uint16_t)keys[i].len);
        at = put(at + 2, keys[i]);
    }
    sqe->opc = NVME_SEL_QUERY;
    sqe->cdw10 = le32_make((uint32_t)len);
    return 0;
}

uint16_t nvme_sel_get_decode(const struct nvme_sqe *sqe, struct nvme_sel_get *out)
{
    struct nvme_sel_get g = {
        .len = le32_get(sqe->cdw10),
        .id = le32_get(sqe->cdw11),
        .off = le32_get(sqe->cdw12) | (uint64_t)le32_get(sqe->cdw13) << 32,
        .flags = le32_get(sqe->cdw14),
    };

    if ((g.flags & ~(NVME_SEL_R_FREE | NVME_SEL_R_DROP | NVME_SEL_R_INFO)) != 0)
        return INVALID_FIELD;
    if ((g.flags & NVME_SEL_R_INFO) && g.len < sizeof(struct nvme_sel_info))
        return INVALID_FIELD;
    *out = g;
    return NVME_SC_SUCCESS;
}

void nvme_sel_get_encode(struct nvme_sqe *sqe, const struct nvme_sel_get *g)
{
    sqe->opc = NVME_SEL_RESULT;
    sqe->cdw10 = le32_make(g->len);
    sqe->cdw11 = le32_make(g->id);
    sqe->cdw12 = le32_make((uint32_t)g->off);
    sqe->cdw13 = le32_make((uint32_t)(g->off >> 32));
    sqe->cdw14 = le32_make(g->flags);
}
