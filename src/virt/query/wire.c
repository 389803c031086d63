/* SPDX-License-Identifier: Apache-2.0 */
#include "virt/query/wire.h"

static bool from_worker_ok(const struct qw_head *h)
{
    uint32_t len = le32_get(h->len);

    switch (le32_get(h->type)) {
    case QW_READ:
        return len == 0 && le32_get(h->slot) < QW_SLOTS && le32_get(h->want) > 0 &&
               le32_get(h->want) <= QW_SLOT_BYTES;
    case QW_RESULT:
        return len > 0 && len <= QW_RESULT_BYTES;
    case QW_SCHEMA:
    case QW_DONE:
        return len > 0 && len <= QW_JSON_BYTES;
    default:
        return false;
    }
}

bool qw_head_ok(const struct qw_head *h, bool from_worker)
{
    if (from_worker)
        return from_worker_ok(h);
    switch (le32_get(h->type)) {
    case QW_QUERY:
        return le32_get(h->len) > 0 && le32_get(h->len) <= QW_JSON_BYTES;
    case QW_DATA:
        return le32_get(h->len) == 0 && le32_get(h->slot) < QW_SLOTS &&
               ((int64_t)le64_get(h->a) < 0 || le64_get(h->a) <= QW_SLOT_BYTES);
    default:
        return false;
    }
}
