/* SPDX-License-Identifier: Apache-2.0 */
/* The layer over mem: sharing, checks, claims, watches, removal, statistics, two reactors. */
#include "kv/kv.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

/* Checks inside tasks: the number of the line that failed goes back to the main stack. */
#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "line %d: %s\n", __LINE__, #cond);                                     \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)

static void run(unsigned reactors, rt_task_fn fn)
{
    struct rt_config cfg = {.reactors = reactors, .poll = RT_POLL_NEVER, .buf_bytes = MIB};
    struct err why = {""};
    int rc = rt_run(&cfg, fn, NULL, &why);

    if (rc < 0)
        print_error("line %d (%s)\n", -rc, why.text);
    assert_int_equal(rc, 0);
}

static int submit(struct rt_task *t, struct kv_chan *chan, struct kv_req *req)
{
    rt_req_init_task(&req->req, t);
    kv_submit(chan, req);
    return rt_wait(t, &req->req);
}

static struct bytes str(const char *s)
{
    return bytes_of_str(s);
}

/* --- opening ---------------------------------------------------------------------------------- */

static int open_task(struct rt_task *t, void *arg)
{
    struct kv_dev *a, *b, *c;
    struct err why = {""};

    CHECK(kv_open(t, "nosuch:", &a, &why) == -EINVAL);
    CHECK(strstr(why.text, "mem") != NULL);
    CHECK(kv_open(t, "mem:?colour=red", &a, &why) == -EINVAL);
    CHECK(kv_open(t, "mem:path", &a, &why) == -EINVAL);
    CHECK(kv_open(t, "mem:?size=4K", &a, &why) == -EINVAL);
    CHECK(kv_open(t, "mem:?size=16M#x", &a, &why) == -EINVAL);

    CHECK(kv_open(t, "mem:?size=16M&name=x", &a, &why) == 0);
    CHECK(kv_open(t, "mem:?size=16M&name=x", &b, &why) == 0);
    CHECK(a == b);
    CHECK(kv_open(t, "mem:?name=x", &b, &why) == 0);
    CHECK(a == b);
    CHECK(kv_open(t, "mem:?name=x&size=32M", &c, &why) == -EINVAL);
    CHECK(strstr(why.text, "open with") != NULL);
    CHECK(kv_open(t, "mem:?size=16M&name=y", &c, &why) == 0);
    CHECK(c != a);
    CHECK(memcmp(kv_info(a)->uuid, kv_info(c)->uuid, 16) != 0);
    CHECK(kv_ref(c) == c);
    kv_close(t, c);
    kv_close(t, c);
    kv_close(t, b);
    kv_close(t, b);
    kv_close(t, a);
    return 0;
}

static void test_open(void **state)
{
    run(1, open_task);
}

/* --- checks ----------------------------------------------------------------------------------- */

static int checks(struct rt_task *t, struct kv_chan *ch)
{
    static uint8_t long_key[KV_KEY_MAX + 1];
    struct kv_req req = {.op = KV_STORE, .key = str("k")};
    struct iovec iov = {.iov_base = long_key, .iov_len = 10};

    CHECK(kv_store(t, ch, bytes_make("", 0), str("v"), 0) == -EINVAL);
    CHECK(kv_store(t, ch, bytes_make(long_key, KV_KEY_MAX + 1), str("v"), 0) == -ENAMETOOLONG);
    CHECK(kv_store(t, ch, bytes_make(long_key, KV_KEY_MAX), str("v"), 0) == 0);
    CHECK(kv_store(t, ch, str("k"), str("v"), KV_F_MUST_EXIST | KV_F_MUST_NOT_EXIST) == -EINVAL);
    CHECK(kv_store(t, ch, str("k"), str("v"), KV_F_AFTER) == -EINVAL);
    CHECK(kv_store(t, ch, str("k"), str("v"), KV_F_MUST_EXIST) == -ENOENT);
    req.len = 11;
    req.iov = &iov;
    req.iovcnt = 1;
    CHECK(submit(t, ch, &req) == -EINVAL); /* the iovec is shorter than len */
    req.len = kv_info(kv_chan_dev(ch))->val_max + 1;
    CHECK(submit(t, ch, &req) == -EINVAL);
    req.op = KV_STORE_OPEN;
    CHECK(submit(t, ch, &req) == -EFBIG);
    req = (struct kv_req){.op = KV_OPS};
    CHECK(submit(t, ch, &req) == -EINVAL);
    req = (struct kv_req){.op = KV_WRITE};
    CHECK(submit(t, ch, &req) == -EINVAL); /* no stream */
    req = (struct kv_req){.op = KV_LIST};
    CHECK(submit(t, ch, &req) == -EINVAL); /* no buffer */
    CHECK(kv_delete(t, ch, str("k")) == -ENOENT);
    CHECK(kv_flush(t, ch) == 0);
    return 0;
}

static int streams(struct rt_task *t, struct kv_chan *ch)
{
    uint8_t buf[100] = "abcdefghij";
    struct iovec iov = {.iov_base = buf, .iov_len = 10};
    struct kv_req req = {.op = KV_STORE_OPEN, .key = str("s"), .len = 15, .iov = &iov, .iovcnt = 1};
    uint64_t len;

    CHECK(submit(t, ch, &req) == 0);
    req.op = KV_WRITE;
    req.len = 10;
    CHECK(submit(t, ch, &req) == 0);
    CHECK(submit(t, ch, &req) == -EINVAL); /* more than declared */
    req.op = KV_COMMIT;
    CHECK(submit(t, ch, &req) == -EINVAL);
    CHECK(req.op == KV_COMMIT);
    CHECK(req.stream == NULL);
    CHECK(kv_stat(t, ch, str("s"), NULL, NULL) == -ENOENT);

    req = (struct kv_req){.op = KV_STORE_OPEN, .key = str("s"), .len = 15};
    CHECK(submit(t, ch, &req) == 0);
    req.op = KV_COMMIT; /* before all is there */
    CHECK(submit(t, ch, &req) == -EINVAL);
    CHECK(kv_stat(t, ch, str("s"), NULL, NULL) == -ENOENT);

    req =
        (struct kv_req){.op = KV_STORE_OPEN, .key = str("s"), .len = 10, .iov = &iov, .iovcnt = 1};
    CHECK(submit(t, ch, &req) == 0);
    req.op = KV_WRITE;
    CHECK(submit(t, ch, &req) == 0);
    req.op = KV_COMMIT;
    CHECK(submit(t, ch, &req) == 0);
    CHECK(kv_retrieve(t, ch, str("s"), buf + 50, 20, &len) == 0);
    CHECK(len == 10);
    CHECK(memcmp(buf, buf + 50, 10) == 0);
    return 0;
}

/* As many streams as a channel may have, and not one more. */
static int stream_bound(struct rt_task *t, struct kv_chan *ch)
{
    struct kv_stream **held = calloc(KV_STREAMS_MAX, sizeof(*held));
    struct kv_req req = {.op = KV_RETRIEVE_OPEN, .key = str("s")};
    int rc = 0;

    for (unsigned i = 0; i < KV_STREAMS_MAX && rc == 0; i++) {
        rc = submit(t, ch, &req);
        held[i] = req.stream;
    }
    CHECK(rc == 0);
    CHECK(submit(t, ch, &req) == -ENOMEM);
    for (unsigned i = 0; i < KV_STREAMS_MAX; i++) {
        req = (struct kv_req){.op = KV_READ_CLOSE, .stream = held[i]};
        CHECK(submit(t, ch, &req) == 0);
    }
    free(held);
    return 0;
}

static int checks_task(struct rt_task *t, void *arg)
{
    struct kv_dev *dev;
    struct kv_chan *ch, *again;
    int rc;

    CHECK(kv_open(t, "mem:?size=16M", &dev, NULL) == 0);
    CHECK(kv_chan_get(t, dev, &ch) == 0);
    CHECK(kv_chan_get(t, dev, &again) == 0);
    CHECK(ch == again);
    rc = checks(t, ch);
    if (rc == 0)
        rc = streams(t, ch);
    if (rc == 0)
        rc = stream_bound(t, ch);
    kv_chan_put(t, ch);
    kv_chan_put(t, again);
    kv_close(t, dev);
    return rc;
}

static void test_checks(void **state)
{
    run(1, checks_task);
}

/* --- claims, watches, removal ----------------------------------------------------------------- */

static int claims_task(struct rt_task *t, void *arg)
{
    struct kv_dev *dev;
    struct err why = {""};

    CHECK(kv_open(t, "mem:?size=16M", &dev, NULL) == 0);
    CHECK(kv_claim(dev, KV_CLAIM_READ, "reader", &why) == 0);
    CHECK(kv_claim(dev, KV_CLAIM_EXCLUSIVE, "engine", &why) == -EBUSY);
    CHECK(strstr(why.text, "reader") != NULL);
    CHECK(kv_claim(dev, KV_CLAIM_SHARED_WRITE, "nvmf", &why) == 0);
    CHECK(kv_claim(dev, KV_CLAIM_SHARED_WRITE, "s3", &why) == 0);
    kv_unclaim(dev, KV_CLAIM_READ, "reader");
    CHECK(kv_claim(dev, KV_CLAIM_EXCLUSIVE, "engine", &why) == -EBUSY);
    kv_unclaim(dev, KV_CLAIM_SHARED_WRITE, "nvmf");
    kv_unclaim(dev, KV_CLAIM_SHARED_WRITE, "s3");
    CHECK(kv_claim(dev, KV_CLAIM_EXCLUSIVE, "engine", &why) == 0);
    CHECK(kv_claim(dev, KV_CLAIM_READ, "reader", &why) == -EBUSY);
    CHECK(strstr(why.text, "engine") != NULL);
    kv_unclaim(dev, KV_CLAIM_EXCLUSIVE, "engine");
    kv_close(t, dev);
    return 0;
}

static void test_claims(void **state)
{
    run(1, claims_task);
}

struct watcher {
    struct kv_watch w;
    unsigned removed;
};

static void on_event(struct kv_watch *w, enum kv_event ev)
{
    container_of(w, struct watcher, w)->removed += ev == KV_EVENT_REMOVED;
}

static int removal_task(struct rt_task *t, void *arg)
{
    struct watcher a = {.w.fn = on_event}, b = {.w.fn = on_event}, c = {.w.fn = on_event};
    struct kv_req req = {.op = KV_STORE_OPEN, .key = str("s"), .len = 0};
    struct kv_dev *dev, *anew;
    struct kv_chan *ch;
    uint64_t len;

    CHECK(kv_open(t, "mem:?size=16M&name=r", &dev, NULL) == 0);
    CHECK(kv_chan_get(t, dev, &ch) == 0);
    CHECK(kv_store(t, ch, str("k"), str("v"), 0) == 0);
    CHECK(submit(t, ch, &req) == 0);
    kv_watch_add(dev, &a.w);
    kv_watch_add(dev, &b.w);
    kv_removed(dev);
    kv_watch_del(t, dev, &b.w); /* taken off while the message is under way */
    rt_sleep(t, NS_PER_MS);
    CHECK(a.removed == 1);
    CHECK(b.removed == 0);
    kv_watch_add(dev, &c.w);
    rt_sleep(t, NS_PER_MS);
    CHECK(c.removed == 1);
    CHECK(kv_retrieve(t, ch, str("k"), NULL, 0, &len) == -ENODEV);
    CHECK(kv_claim(dev, KV_CLAIM_READ, "reader", NULL) == -ENODEV);
    req.op = KV_COMMIT;
    CHECK(submit(t, ch, &req) == -ENODEV);
    CHECK(req.stream == NULL);
    CHECK(kv_open(t, "mem:?size=16M&name=r", &anew, NULL) == 0);
    CHECK(anew != dev);
    kv_close(t, anew);
    kv_watch_del(t, dev, &a.w);
    kv_watch_del(t, dev, &c.w);
    kv_chan_put(t, ch);
    kv_close(t, dev);
    return 0;
}

static void test_removal(void **state)
{
    run(1, removal_task);
}

/* --- two reactors and the statistics ---------------------------------------------------------- */

#define ROUNDS 200

static int hammer(struct rt_task *t, void *arg)
{
    struct kv_dev *dev = arg;
    struct kv_chan *ch;
    char key[32];

    CHECK(kv_chan_get(t, dev, &ch) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t len;
        char val[8] = {0};

        snprintf(key, sizeof(key), "%u-%d", rt_index(rt_self()), i);
        CHECK(kv_store(t, ch, str(key), str("value"), 0) == 0);
        CHECK(kv_retrieve(t, ch, str(key), val, sizeof(val), &len) == 0);
        CHECK(len == 5);
        CHECK(strcmp(val, "value") == 0);
        CHECK(kv_stat(t, ch, str("absent"), &len, NULL) == -ENOENT);
    }
    kv_chan_put(t, ch);
    return 0;
}

static int stats_task(struct rt_task *t, void *arg)
{
    struct kv_stats *st = calloc(1, sizeof(*st));
    struct kv_dev *dev;
    struct kv_chan *ch;
    uint64_t used, keys;

    CHECK(kv_open(t, "mem:?size=16M", &dev, NULL) == 0);
    CHECK(kv_chan_get(t, dev, &ch) == 0);
    CHECK(hammer(t, dev) == 0);
    CHECK(rt_on(t, rt_reactor(1), hammer, dev) == 0); /* carried to reactor 0 and back */
    CHECK(kv_usage(t, dev, &used, &keys) == 0);
    CHECK(keys == 2 * ROUNDS);
    CHECK(used > 0);
    CHECK(kv_stats(t, dev, st) == 0);
    CHECK(st->op[KV_STORE].ops == 2 * ROUNDS);
    CHECK(st->op[KV_STORE].bytes == 2 * ROUNDS * 5);
    CHECK(st->op[KV_RETRIEVE].bytes == 2 * ROUNDS * 5);
    CHECK(st->op[KV_STAT].errors == 2 * ROUNDS);
    CHECK(st->op[KV_STORE].latency_ns.count == 2 * ROUNDS);
    kv_chan_put(t, ch);
    kv_close(t, dev);
    free(st);
    return 0;
}

static void test_two_reactors(void **state)
{
    run(2, stats_task);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_open),         cmocka_unit_test(test_checks),
        cmocka_unit_test(test_claims),       cmocka_unit_test(test_removal),
        cmocka_unit_test(test_two_reactors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
