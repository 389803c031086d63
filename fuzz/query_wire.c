/* SPDX-License-Identifier: Apache-2.0 */
/* What the daemon and its query workers say to each other: heads in both directions, and the
 * query as the worker takes it apart. */
#include "fuzz/fuzz.h"

#include "virt/query/wire.h"
#include "virt/query/worker/query.h"
#include "virt/query/worker/schema.h"

static void check_head(const struct qw_head *h, bool from_worker)
{
    uint32_t type = le32_get(h->type), len = le32_get(h->len);

    if (!qw_head_ok(h, from_worker))
        return;
    must(len <= QW_JSON_BYTES);
    must(type != QW_RESULT || (len > 0 && len <= QW_RESULT_BYTES));
    must(type != QW_READ || (le32_get(h->slot) < QW_SLOTS && le32_get(h->want) <= QW_SLOT_BYTES));
    must(type != QW_DATA || le32_get(h->slot) < QW_SLOTS);
    must(from_worker == (type == QW_READ || type >= QW_RESULT));
}

static void check_schema(const char *text)
{
    static struct qw_text why;
    json_t *columns = NULL;

    if (qw_schema_columns(text, &columns, &why) == 0)
        must(json_array_size(columns) > 0);
    json_decref(columns);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_len)
{
    static struct qw_text why;
    struct input in = {input, input_len};
    struct qw_query q;
    struct qw_head h;
    uint8_t *text;
    size_t len;
    int rc;

    input_fill(&in, &h, sizeof(h));
    check_head(&h, true);
    check_head(&h, false);
    text = input_take(&in, in.left, &len);
    why.s[0] = '\0';
    rc = qw_query_parse((const char *)text, len, &q, &why);
    must((rc < 0) == (why.s[0] != '\0'));
    if (rc == 0) {
        must(q.sql);
        must(q.nobjects == 0 || q.objects);
        if (q.known)
            qw_schema_ok(q.known);
        check_schema(q.schema);
        json_decref(q.root);
        free(q.objects);
    }
    free(text);
    return 0;
}
