/* SPDX-License-Identifier: Apache-2.0 */
#include "front/nvmf/test_select.h"

#define PATTERN_STEP 100000u

static int say(struct rt_task *t, struct kv_select_result *res, const char *text)
{
    return res->data(t, res->arg, text, strlen(text));
}

/* All that came with the query, as text. */
static int echo(struct rt_task *t, const struct kv_select *q, struct kv_select_result *res)
{
    char text[600];
    int n = snprintf(
        text, sizeof(text), "%.*s|%s|%s|h%d%d|%c%c%c|%.*s|%.*s|%.*s|", (int)q->sql.len,
        (const char *)q->sql.ptr, kv_select_format_name(q->input), kv_select_format_name(q->output),
        q->header, q->header_out, q->delim ? q->delim : '-', q->quote ? q->quote : '-',
        q->escape ? q->escape : '-', (int)q->schema.len, (const char *)q->schema.ptr,
        (int)q->prefix.len, (const char *)q->prefix.ptr, (int)q->who.len, (const char *)q->who.ptr);

    for (unsigned i = 0; i < q->nkeys; i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "%.*s,", (int)q->keys[i].len,
                      (const char *)q->keys[i].ptr);
    return say(t, res, text);
}

static int many(struct rt_task *t, struct kv_select_result *res, uint64_t len)
{
    CLEANUP(free_p) uint8_t *buf = malloc(len + 1);
    int rc = 0;

    pattern(buf, len, 9);
    for (uint64_t off = 0; off < len && rc == 0; off += PATTERN_STEP)
        rc = res->data(t, res->arg, buf + off, MIN((uint64_t)PATTERN_STEP, len - off));
    return rc;
}

/* The value itself: through the channel that the target handed over. */
static int whole(struct rt_task *t, struct kv_chan *chan, const struct kv_select *q,
                 struct kv_select_result *res)
{
    uint8_t buf[64];
    uint64_t len;
    int rc = kv_retrieve(t, chan, q->keys[0], buf, sizeof(buf), &len);

    return rc < 0 ? rc : res->data(t, res->arg, buf, len);
}

static int answer(struct rt_task *t, struct kv_chan *chan, const struct kv_select *q,
                  struct kv_select_result *res, struct err *why)
{
    char sql[64] = "";
    int rc;

    memcpy(sql, q->sql.ptr, MIN(q->sql.len, sizeof(sql) - 1));
    if (strncmp(sql, "size ", 5) == 0)
        return many(t, res, (uint64_t)atoll(sql + 5));
    if (strcmp(sql, "object") == 0)
        return whole(t, chan, q, res);
    if (strncmp(sql, "fail ", 5) == 0) {
        say(t, res, "half an answer");
        return err_set(why, -atoi(sql + 5), "it failed as it was told");
    }
    if (strcmp(sql, "sleep") == 0) {
        rc = rt_sleep(t, MIN(q->timeout_ns, 60 * NS_PER_S));
        return rc < 0 ? rc : err_set(why, -ETIMEDOUT, "its time is over");
    }
    return echo(t, q, res);
}

int fake_select(struct rt_task *t, void *arg, struct kv_chan *chan, const struct kv_select *q,
                struct kv_select_result *res, struct err *why)
{
    struct fake *f = arg;
    int rc;

    f->running++;
    f->peak = MAX(f->peak, f->running);
    res->object_bytes = 1000;
    res->read_bytes = 10;
    res->rows = 3;
    rc = answer(t, chan, q, res, why);
    f->running--;
    f->cancelled += rc == -ECANCELED;
    return rc;
}
