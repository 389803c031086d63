/* SPDX-License-Identifier: Apache-2.0 */
/* Errors, delays and cancels of the filter, and the written ways that hidden capabilities need. */
#include "kv/kv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "line %d: %s\n", __LINE__, #cond);                                     \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)

#define BASE "fault:?base=mem%3A%3Fsize%3D32M&"

static int submit(struct rt_task *t, struct kv_chan *chan, struct kv_req *req)
{
    rt_req_init_task(&req->req, t);
    kv_submit(chan, req);
    return rt_wait(t, &req->req);
}

struct with_chan {
    const char *uri;
    int (*fn)(struct rt_task *t, struct kv_chan *ch);
};

static int with_chan(struct rt_task *t, void *arg)
{
    const struct with_chan *w = arg;
    struct kv_dev *dev;
    struct kv_chan *ch;
    struct err why = {""};
    int rc;

    if (kv_open(t, w->uri, &dev, &why) < 0) {
        fprintf(stderr, "%s\n", why.text);
        return -1;
    }
    CHECK(kv_chan_get(t, dev, &ch) == 0);
    rc = w->fn(t, ch);
    kv_chan_put(t, ch);
    kv_close(t, dev);
    return rc;
}

static void run(const char *uri, int (*fn)(struct rt_task *, struct kv_chan *))
{
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = MIB};
    struct with_chan w = {.uri = uri, .fn = fn};

    assert_int_equal(rt_run(&cfg, with_chan, &w, NULL), 0);
}

static int nth(struct rt_task *t, struct kv_chan *ch)
{
    unsigned failed = 0;

    for (int i = 1; i <= 30; i++) {
        int rc = kv_store(t, ch, bytes_of_str("k"), bytes_of_str("v"), 0);

        CHECK(rc == (i % 10 == 0 ? -EIO : 0));
        failed += rc < 0;
    }
    CHECK(failed == 3);
    return 0;
}

static void test_nth(void **state)
{
    run(BASE "nth=10", nth);
}

static int shares(struct rt_task *t, struct kv_chan *ch)
{
    unsigned failed = 0, kept = 0;
    char key[16];

    for (int i = 0; i < 1000; i++) {
        int rc;

        snprintf(key, sizeof(key), "%d", i);
        rc = kv_store(t, ch, bytes_of_str(key), bytes_of_str("v"), 0);
        CHECK(rc == 0 || rc == -EIO);
        failed += rc < 0;
        kept += rc < 0 && kv_stat(t, ch, bytes_of_str(key), NULL, NULL) == 0;
    }
    CHECK(failed > 200 && failed < 400);
    CHECK(kept > failed / 4 && kept < failed / 4 * 3); /* old or new */
    return 0;
}

static void test_shares(void **state)
{
    run(BASE "store_error=0.3&seed=5", shares);
}

static int no_range(struct rt_task *t, struct kv_chan *ch)
{
    static uint8_t val[300000], got[300000];
    struct iovec iov = {.iov_base = got, .iov_len = sizeof(got)};
    struct kv_req req = {.op = KV_RETRIEVE, .key = bytes_of_str("k"), .iov = &iov, .iovcnt = 1};
    struct kv_stream *stream;

    CHECK((kv_info(kv_chan_dev(ch))->caps & KV_CAP_RANGE) == 0);
    for (size_t i = 0; i < sizeof(val); i++)
        val[i] = (uint8_t)(i * 7 + i / 251);
    CHECK(kv_store(t, ch, bytes_of_str("k"), bytes_make(val, sizeof(val)), 0) == 0);
    req.off = 200001;
    req.len = 1000;
    CHECK(submit(t, ch, &req) == 0);
    CHECK(req.moved == 1000);
    CHECK(req.value_len == sizeof(val));
    CHECK(memcmp(got, val + 200001, 1000) == 0);
    req.off = 299999;
    CHECK(submit(t, ch, &req) == 0);
    CHECK(req.moved == 1);
    req.off = 300000;
    CHECK(submit(t, ch, &req) == 0);
    CHECK(req.moved == 0);
    req.key = bytes_of_str("absent");
    CHECK(submit(t, ch, &req) == -ENOENT);

    req.key = bytes_of_str("k");
    req.op = KV_RETRIEVE_OPEN;
    CHECK(submit(t, ch, &req) == 0);
    stream = req.stream;
    req.op = KV_READ;
    req.off = 100000;
    req.len = 10;
    CHECK(submit(t, ch, &req) == 0);
    CHECK(memcmp(got, val + 100000, 10) == 0);
    CHECK(req.stream == stream);
    req.off = 100010;
    CHECK(submit(t, ch, &req) == 0);
    CHECK(memcmp(got, val + 100010, 10) == 0);
    req.off = 5;
    CHECK(submit(t, ch, &req) == -ENOTSUP); /* behind */
    req.op = KV_READ_CLOSE;
    CHECK(submit(t, ch, &req) == 0);
    return 0;
}

static int no_order(struct rt_task *t, struct kv_chan *ch)
{
    uint8_t buf[128];
    size_t moved = 0;
    bool more = true;
    unsigned n = 0;
    struct bytes key = bytes_make("", 0);
    char last[16] = "";

    for (int i = 0; i < 500; i++) {
        snprintf(last, sizeof(last), "%s%03d", i % 50 == 7 ? "x" : "a", i);
        CHECK(kv_store(t, ch, bytes_of_str(last), bytes_of_str(""), 0) == 0);
    }
    last[0] = '\0';
    while (more) {
        struct kv_list_iter it;

        CHECK(kv_list(t, ch, bytes_of_str(last), bytes_of_str("x"), KV_F_AFTER, buf, sizeof(buf),
                      &moved, &more) == 0);
        it = kv_list_begin(buf, moved);
        while (kv_list_next(&it, &key)) {
            CHECK(key.ptr[0] == 'x');
            memcpy(last, key.ptr, key.len);
            last[key.len] = '\0';
            n++;
        }
    }
    CHECK(n == 10);
    return 0;
}

static void test_hidden(void **state)
{
    run(BASE "hide=range", no_range);
    run(BASE "hide=order", no_order);
    run(BASE "hide=all", no_range);
}

#define MANY 200

static int delays(struct rt_task *t, struct kv_chan *ch)
{
    static struct kv_req reqs[MANY];
    uint64_t begin = rt_now();
    unsigned cancelled = 0;

    for (unsigned i = 0; i < MANY; i++) {
        reqs[i] = (struct kv_req){.op = KV_STAT, .key = bytes_of_str("k")};
        rt_req_init_task(&reqs[i].req, t);
        kv_submit(ch, &reqs[i]);
    }
    for (unsigned i = 0; i < MANY; i += 2)
        rt_req_cancel(&reqs[i].req);
    for (unsigned i = 0; i < MANY; i++) {
        int rc = rt_wait(t, &reqs[i].req);

        CHECK(rc == -ENOENT || rc == -ECANCELED);
        cancelled += rc == -ECANCELED;
    }
    CHECK(cancelled == MANY / 2);
    CHECK(rt_now() - begin >= 2 * NS_PER_MS);
    return 0;
}

static void test_delay_and_cancel(void **state)
{
    run(BASE "delay=2ms", delays);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nth),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_hidden),
        cmocka_unit_test(test_delay_and_cancel),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
