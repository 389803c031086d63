/* SPDX-License-Identifier: Apache-2.0 */
/* Queries that our own initiator pushes to the target, by both forms: drivers/nvme_tcp/select.c. */
#include "front/nvmf/test_select.h"

#include <setjmp.h>
#include <stdarg.h>
#include <cmocka.h>

struct taken {
    uint8_t *buf;
    size_t len, max;
    unsigned calls;
};

static int take_answer(struct rt_task *t, void *arg, const void *buf, size_t len)
{
    struct taken *k = arg;

    if (len > k->max - k->len)
        return -ENOSPC;
    memcpy(k->buf + k->len, buf, len);
    k->len += len;
    k->calls++;
    return 0;
}

struct pushing {
    struct kv_dev *dev;
    struct kv_chan *chan;
    struct taken got;
    struct kv_select_result res;
    struct err why;
};

static int push(struct rt_task *t, struct pushing *p, const struct kv_select *q)
{
    p->got.len = p->got.calls = 0;
    p->res = (struct kv_select_result){.data = take_answer, .arg = &p->got};
    p->why.text[0] = '\0';
    return kv_select_push(t, p->chan, q, &p->res, &p->why);
}

static int pushing_open(struct rt_task *t, struct env *e, struct pushing *p, const char *more)
{
    char uri[2 * NET_ADDR_TEXT_MAX], addr[NET_ADDR_TEXT_MAX];

    net_addr_text(&e->addr, addr);
    snprintf(uri, sizeof(uri), "nvme+tcp://%s/%s?nsid=2%s", addr, NQN, more);
    OK(kv_open(t, uri, &p->dev, &p->why));
    OK(kv_chan_get(t, p->dev, &p->chan));
    p->got.max = 2000000;
    p->got.buf = malloc(p->got.max);
    return 0;
}

static void pushing_close(struct rt_task *t, struct pushing *p)
{
    free(p->got.buf);
    if (p->chan != NULL)
        kv_chan_put(t, p->chan);
    if (p->dev != NULL)
        kv_close(t, p->dev);
}

static int cancel_soon(struct rt_task *t, void *arg)
{
    rt_sleep(t, 20 * NS_PER_MS);
    rt_task_cancel(arg);
    return 0;
}

static int pushed(struct rt_task *t, struct fake *f, struct pushing *p, bool extended)
{
    CLEANUP(free_p) uint8_t *want = malloc(1000001);
    struct bytes keys[] = {bytes_of_str("key"), bytes_of_str("a key of more than 16 bytes")};
    struct kv_select q = {.keys = keys, .nkeys = 1, .sql = bytes_of_str("select 1")};
    uint64_t began;

    q.input = KV_SELECT_CSV;
    q.output = KV_SELECT_CSV;
    q.header = KV_SELECT_HEADER_NO;
    q.header_out = true;
    OK(push(t, p, &q));
    CHECK(p->res.pushed && p->res.result_bytes == p->got.len);
    CHECK(memcmp(p->got.buf, "select 1|csv|csv|h21|---|||", 27) == 0);
    CHECK(p->got.len > 4 && memcmp(p->got.buf + p->got.len - 4, "key,", 4) == 0);
    CHECK(!extended || (p->res.object_bytes == 1000 && p->res.read_bytes == 10));
    CHECK(p->res.rows == (extended ? 3 : UINT64_MAX));
    q.sql = bytes_of_str("size 1000001");
    OK(push(t, p, &q));
    pattern(want, 1000001, 9);
    CHECK(p->got.len == 1000001 && memcmp(p->got.buf, want, 1000001) == 0);
    q.sql = bytes_of_str("size 0");
    OK(push(t, p, &q));
    CHECK(p->got.len == 0);
    /* What one of the two forms cannot say. */
    q.sql = bytes_of_str("select 2");
    q.output = KV_SELECT_ARROW;
    q.nkeys = 2;
    CHECK(push(t, p, &q) == (extended ? 0 : -ENOTSUP));
    CHECK(!extended || memcmp(p->got.buf, "select 2|csv|arrow|h21|", 23) == 0);
    /* Errors, with what the target says of them. */
    q.output = KV_SELECT_JSONL;
    q.nkeys = 1;
    q.sql = bytes_of_str("fail 22");
    CHECK(push(t, p, &q) == (extended ? -EINVAL : -EBADMSG));
    CHECK(strcmp(p->why.text, "it failed as it was told") == 0);
    q.sql = bytes_of_str("fail 110");
    CHECK(push(t, p, &q) == -ETIMEDOUT);
    CHECK(strncmp(p->why.text, "it failed as it was told", 24) == 0);
    /* The caller has no room: nothing is left at the target, which has other things to do. */
    q.sql = bytes_of_str("size 2500000");
    CHECK(push(t, p, &q) == -ENOSPC);
    /* Cancelled: the target is told, and ends it. */
    q.sql = bytes_of_str("sleep");
    f->cancelled = 0;
    began = rt_now_exact();
    OK(rt_task_start("cancel", cancel_soon, t, NULL, NULL));
    CHECK(push(t, p, &q) == -ECANCELED);
    CHECK(f->cancelled == 1 && rt_now_exact() - began < 5 * NS_PER_S);
    return 0;
}

struct push_call {
    struct env *e;
    struct fake *f;
    const char *more;
};

/* In a task of its own: it is cancelled in the end. */
static int push_main(struct rt_task *t, void *arg)
{
    struct push_call *c = arg;
    struct pushing p = {0};
    int rc = pushing_open(t, c->e, &p, c->more);

    if (rc == 0)
        rc = pushed(t, c->f, &p, c->more[0] == '\0');
    rt_task_shield(t, true);
    pushing_close(t, &p);
    return rc;
}

static int push_from_here_body(struct rt_task *t, struct env *e)
{
    struct fake f = {0};
    struct push_call c = {.e = e, .f = &f, .more = ""};
    struct query_results_stats st;
    struct rt_req done;

    nvmf_set_select(e->tgt, fake_select, &f);
    for (int basic = 0; basic < 2; basic++) {
        c.more = basic ? "&vendor=no" : "";
        rt_req_init_task(&done, t);
        OK(rt_task_start("push", push_main, &c, &done, NULL));
        OK(rt_wait(t, &done));
    }
    nvmf_result_stats(e->tgt, &st);
    CHECK(st.results == 0 && st.bytes == 0);
    return 0;
}
TEST_ENV(push_from_here, 2, 8 * MIB)

/* A query that says how long it may take is waited for, beyond what other commands may take. */
static int push_long_body(struct rt_task *t, struct env *e)
{
    struct bytes key = bytes_of_str("key");
    struct kv_select q = {.keys = &key, .nkeys = 1, .sql = bytes_of_str("sleep")};
    struct fake f = {0};
    struct pushing p = {0};
    int rc, usual_rc;

    nvmf_set_select(e->tgt, fake_select, &f);
    q.input = q.output = KV_SELECT_PARQUET;
    OK(pushing_open(t, e, &p, "&timeout=1s"));
    usual_rc = push(t, &p, &q);
    CHECK(strstr(p.why.text, "its time is over; say how long") != NULL);
    q.timeout_ns = 2500 * NS_PER_MS; /* late commands are looked for once a second */
    rc = push(t, &p, &q);
    pushing_close(t, &p);
    CHECK(usual_rc == -ETIMEDOUT && rc == -ETIMEDOUT);
    CHECK(strcmp(p.why.text, "its time is over") == 0);
    CHECK(f.cancelled == 0); /* the connection stayed */
    return 0;
}
TEST_ENV(push_long, 1, 8 * MIB)

/* A target without queries: the caller is told to run it himself. */
static int push_nowhere_body(struct rt_task *t, struct env *e)
{
    struct bytes key = bytes_of_str("key");
    struct kv_select q = {.keys = &key, .nkeys = 1, .sql = bytes_of_str("select 1")};
    struct pushing p = {0};
    int rc;

    q.input = q.output = KV_SELECT_PARQUET;
    OK(pushing_open(t, e, &p, ""));
    rc = push(t, &p, &q);
    pushing_close(t, &p);
    CHECK(rc == -ENOTSUP && p.why.text[0] != '\0');
    return 0;
}
TEST_ENV(push_nowhere, 1, 8 * MIB)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(push_from_here),
        cmocka_unit_test(push_long),
        cmocka_unit_test(push_nowhere),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
