/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The standard commands against a small foreign target. What needs the vendor commands, and all of
 * the contract, is tested with our own target in tests/conformance.
 */
#include "kv/kv.h"
#include "nvme/fake_target.h"

#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond))                                                                               \
            return __LINE__;                                                                       \
    } while (0)

struct test {
    struct fake fake;
    const char *more; /* of the URI */
    struct kv_dev *dev;
    struct kv_chan *chan;
    int (*body)(struct rt_task *t, struct test *x);
};

static int open_and_run(struct rt_task *t, struct test *x)
{
    char uri[512];
    struct err why = {""};
    int line;

    snprintf(uri, sizeof(uri), "nvme+tcp://%s/%s?%s", x->fake.addr, FAKE_NQN,
             x->more != NULL ? x->more : "nsid=2");
    CHECK(kv_open(t, uri, &x->dev, &why) == 0);
    if (kv_chan_get(t, x->dev, &x->chan) < 0) {
        kv_close(t, x->dev);
        return __LINE__;
    }
    line = x->body(t, x);
    kv_chan_put(t, x->chan);
    kv_close(t, x->dev);
    return line;
}

static int test_task(struct rt_task *t, void *arg)
{
    struct test *x = arg;
    int line;

    fake_start(t, &x->fake);
    line = open_and_run(t, x);
    fake_stop(t, &x->fake);
    return line;
}

static void run(struct test *x)
{
    struct rt_config cfg = {.buf_bytes = 4 * MIB, .poll = RT_POLL_NEVER};
    int line = rt_run(&cfg, test_task, x, NULL);

    if (line != 0)
        fail_msg("line %d", line);
}

#define RUN(fn, ...) run(&(struct test){.body = fn, ##__VA_ARGS__})

static struct bytes str(const char *s)
{
    return bytes_of_str(s);
}

static int core(struct rt_task *t, struct test *x)
{
    uint8_t buf[64], list[256];
    uint64_t len, version;
    size_t moved;
    bool more;
    struct kv_list_iter it;
    struct bytes key;

    CHECK(kv_info(x->dev)->key_max == 16 && kv_info(x->dev)->val_max == FAKE_VALUE_MAX);
    CHECK(kv_retrieve(t, x->chan, str("a"), buf, sizeof(buf), &len) == -ENOENT);
    CHECK(kv_store(t, x->chan, str("a"), str("first"), KV_F_MUST_NOT_EXIST) == 0);
    CHECK(kv_store(t, x->chan, str("a"), str("again"), KV_F_MUST_NOT_EXIST) == -EEXIST);
    CHECK(kv_retrieve(t, x->chan, str("a"), buf, sizeof(buf), &len) == 0);
    CHECK(len == 5 && memcmp(buf, "first", 5) == 0);
    CHECK(kv_retrieve(t, x->chan, str("a"), buf, 2, &len) == 0 && len == 5);
    CHECK(kv_stat(t, x->chan, str("a"), &len, &version) == 0 && len == 5);
    CHECK(kv_stat(t, x->chan, str("b"), &len, &version) == -ENOENT);
    CHECK(kv_store(t, x->chan, str("empty"), str(""), 0) == 0);
    CHECK(kv_retrieve(t, x->chan, str("empty"), buf, sizeof(buf), &len) == 0 && len == 0);
    CHECK(kv_store(t, x->chan, str("sixteen-bytes-ok"), str("x"), 0) == 0);
    CHECK(kv_store(t, x->chan, str("seventeen-bytes-k"), str("x"), 0) == -ENAMETOOLONG);
    CHECK(kv_list(t, x->chan, str(""), str(""), 0, list, sizeof(list), &moved, &more) == 0);
    it = kv_list_begin(list, moved);
    CHECK(kv_list_next(&it, &key) && bytes_eq(key, str("a")));
    CHECK(kv_list_next(&it, &key) && bytes_eq(key, str("empty")));
    CHECK(kv_list_next(&it, &key) && bytes_eq(key, str("sixteen-bytes-ok")));
    CHECK(!kv_list_next(&it, &key) && !more);
    CHECK(kv_list(t, x->chan, str("a"), str(""), KV_F_AFTER, list, sizeof(list), &moved, &more) ==
          0);
    it = kv_list_begin(list, moved);
    CHECK(kv_list_next(&it, &key) && bytes_eq(key, str("empty")));
    CHECK(kv_list(t, x->chan, str(""), str("si"), 0, list, sizeof(list), &moved, &more) == 0);
    it = kv_list_begin(list, moved);
    CHECK(kv_list_next(&it, &key) && bytes_eq(key, str("sixteen-bytes-ok")));
    CHECK(!kv_list_next(&it, &key));
    CHECK(kv_delete(t, x->chan, str("a")) == 0);
    CHECK(kv_delete(t, x->chan, str("a")) == -ENOENT);
    return 0;
}

static void has_the_core(void **state)
{
    RUN(core);
    RUN(core, .more = "hdgst&ddgst");
}

/* A list that takes several pages finds every key once. */
static int lists_all(struct rt_task *t, struct test *x)
{
    uint8_t list[64], last[16];
    struct bytes after = bytes_make(NULL, 0), key;
    struct kv_list_iter it;
    size_t moved;
    bool more = true;
    unsigned seen = 0;
    char name[8];

    for (unsigned i = 0; i < 26; i++) {
        snprintf(name, sizeof(name), "k%02u", i);
        CHECK(kv_store(t, x->chan, str(name), str("v"), 0) == 0);
    }
    while (more) {
        CHECK(kv_list(t, x->chan, after, str(""), KV_F_AFTER, list, sizeof(list), &moved, &more) ==
              0);
        it = kv_list_begin(list, moved);
        while (kv_list_next(&it, &key)) {
            snprintf(name, sizeof(name), "k%02u", seen++);
            CHECK(bytes_eq(key, str(name)));
            memcpy(last, key.ptr, key.len);
            after = bytes_make(last, key.len);
        }
    }
    CHECK(seen == 26);
    return 0;
}

static void lists_page_by_page(void **state)
{
    RUN(lists_all);
}

/* --- streams ---------------------------------------------------------------------------------- */

static int one(struct rt_task *t, struct test *x, struct kv_req *req)
{
    rt_req_init_task(&req->req, t);
    kv_submit(x->chan, req);
    return rt_wait(t, &req->req);
}

static int put_stream(struct rt_task *t, struct test *x, const uint8_t *data, size_t len,
                      size_t step, bool commit)
{
    struct kv_req req = {.op = KV_STORE_OPEN, .key = bytes_of_str("big"), .len = len};
    struct kv_stream *st;
    struct iovec iov[3];

    CHECK(one(t, x, &req) == 0);
    st = req.stream;
    for (size_t at = 0; at < len;) {
        size_t n = MIN(step, len - at);

        iov[0] = (struct iovec){(void *)(uintptr_t)(data + at), n / 3};
        iov[1] = (struct iovec){(void *)(uintptr_t)(data + at + n / 3), 0};
        iov[2] = (struct iovec){(void *)(uintptr_t)(data + at + n / 3), n - n / 3};
        req = (struct kv_req){.op = KV_WRITE, .stream = st, .iov = iov, .iovcnt = 3, .len = n};
        CHECK(one(t, x, &req) == 0);
        at += n;
        step = step < 1000 ? step + 1 : step;
    }
    rt_sleep(t, 2 * NS_PER_MS); /* time for what must not happen: nothing is stored yet */
    CHECK(!x->fake.value[FAKE_VALUES - 1].used);
    req = (struct kv_req){.op = commit ? KV_COMMIT : KV_ABORT, .stream = st};
    CHECK(one(t, x, &req) == 0);
    CHECK(x->fake.value[FAKE_VALUES - 1].used == commit);
    return 0;
}

static int get_stream(struct rt_task *t, struct test *x, uint8_t *out, size_t len, size_t step)
{
    struct kv_req req = {.op = KV_RETRIEVE_OPEN, .key = bytes_of_str("big")};
    struct kv_stream *st;
    struct iovec iov;

    CHECK(one(t, x, &req) == 0);
    CHECK(req.value_len == len);
    st = req.stream;
    for (size_t at = 0; at < len;) {
        iov = (struct iovec){out + at, step};
        req = (struct kv_req){
            .op = KV_READ, .stream = st, .iov = &iov, .iovcnt = 1, .off = at, .len = step};
        CHECK(one(t, x, &req) == 0);
        CHECK(req.moved == MIN(step, len - at));
        at += req.moved;
    }
    req = (struct kv_req){.op = KV_READ_CLOSE, .stream = st};
    CHECK(one(t, x, &req) == 0);
    return 0;
}

static int streams(struct rt_task *t, struct test *x)
{
    static const size_t lens[] = {0, 1, 2, 3, 4, 5, 7, 8, 9, 63, 1000, 5000, 60001};
    static const size_t steps[] = {1, 3, 100, 4096, 70000};
    static uint8_t out[70001], in[140000];
    int line = 0;

    for (size_t i = 0; i < sizeof(out); i++)
        out[i] = (uint8_t)(i * 31 + i / 256);
    for (unsigned l = 0; l < ARRAY_LEN(lens) && line == 0; l++) {
        for (unsigned s = 0; s < ARRAY_LEN(steps) && line == 0; s++) {
            size_t len = lens[l];

            line = put_stream(t, x, out, len, steps[s], true);
            CHECK(line != 0 || x->fake.value[FAKE_VALUES - 1].len == len);
            CHECK(line != 0 || memcmp(x->fake.value[FAKE_VALUES - 1].data, out, len) == 0);
            memset(in, 0, sizeof(in));
            if (line == 0)
                line = get_stream(t, x, in, len, MAX(steps[s], len / 20 + 1));
            CHECK(line != 0 || memcmp(in, out, len) == 0);
            CHECK(line != 0 || kv_delete(t, x->chan, bytes_of_str("big")) == 0);
        }
    }
    return line;
}

static void moves_values_in_pieces(void **state)
{
    RUN(streams);
    RUN(streams, .more = "ddgst", .fake.maxh2cdata = 4096, .fake.c2h_bytes = 3000,
        .fake.r2t_bytes = 5000);
}

static int aborts(struct rt_task *t, struct test *x)
{
    static uint8_t out[10000];
    uint64_t len;

    CHECK(put_stream(t, x, out, sizeof(out), 1000, false) == 0);
    CHECK(kv_stat(t, x->chan, bytes_of_str("big"), &len, NULL) == -ENOENT);
    CHECK(put_stream(t, x, out, sizeof(out), sizeof(out), false) == 0);
    CHECK(kv_stat(t, x->chan, bytes_of_str("big"), &len, NULL) == -ENOENT);
    CHECK(put_stream(t, x, out, sizeof(out), 1000, true) == 0);
    CHECK(kv_stat(t, x->chan, bytes_of_str("big"), &len, NULL) == 0);
    return 0;
}

static void abort_leaves_nothing(void **state)
{
    RUN(aborts);
}

/* A reader that stops in the middle, while others go on. */
static int half_read(struct rt_task *t, struct test *x)
{
    static uint8_t out[50000];
    uint8_t buf[100];
    struct iovec iov = {buf, sizeof(buf)};
    struct kv_req req = {.op = KV_RETRIEVE_OPEN, .key = bytes_of_str("big")};
    struct kv_stream *st;
    uint64_t len;

    CHECK(kv_store(t, x->chan, bytes_of_str("big"), bytes_make(out, sizeof(out)), 0) == 0);
    CHECK(one(t, x, &req) == 0);
    st = req.stream;
    req = (struct kv_req){.op = KV_READ, .stream = st, .iov = &iov, .iovcnt = 1, .len = 100};
    CHECK(one(t, x, &req) == 0 && req.moved == 100);
    CHECK(kv_retrieve(t, x->chan, bytes_of_str("big"), buf, sizeof(buf), &len) == 0);
    req = (struct kv_req){
        .op = KV_READ, .stream = st, .iov = &iov, .iovcnt = 1, .off = 1000, .len = 100};
    CHECK(one(t, x, &req) == 0 && req.moved == 100); /* the layer reads on and throws away */
    req = (struct kv_req){.op = KV_READ_CLOSE, .stream = st};
    CHECK(one(t, x, &req) == 0);
    return 0;
}

static void readers_may_stop(void **state)
{
    RUN(half_read);
}

/* More readers than connections: each waits for its turn. */
struct reader {
    struct test *x;
    struct rt_req done;
};

static int reader_task(struct rt_task *t, void *arg)
{
    struct reader *r = arg;
    uint8_t *in = malloc(60000);
    int line = get_stream(t, r->x, in, 60000, 20000);

    free(in);
    return line;
}

static int many_readers(struct rt_task *t, struct test *x)
{
    static uint8_t out[60000];
    struct reader r[12];

    CHECK(kv_store(t, x->chan, bytes_of_str("big"), bytes_make(out, sizeof(out)), 0) == 0);
    for (int i = 0; i < 12; i++) {
        r[i].x = x;
        rt_req_init_task(&r[i].done, t);
        CHECK(rt_task_start("reader", reader_task, &r[i], &r[i].done, NULL) == 0);
    }
    for (int i = 0; i < 12; i++)
        CHECK(rt_wait(t, &r[i].done) == 0);
    return 0;
}

static void readers_wait_for_connections(void **state)
{
    RUN(many_readers);
}

/* --- opening ---------------------------------------------------------------------------------- */

static int wrong_uris(struct rt_task *t, void *arg)
{
    static const struct {
        const char *uri, *text;
        int rc;
    } cases[] = {
        {"nvme+tcp://127.0.0.1:4420", "which subsystem", -EINVAL},
        {"nvme+tcp:///nqn.2026-11.io.kvasir:fake", "address", -EINVAL},
        {"nvme+tcp://%s/" FAKE_NQN "?nsid=1", "block namespace: use it as a block device", -EINVAL},
        {"nvme+tcp://%s/" FAKE_NQN "?nsid=0", "nsid", -EINVAL},
        {"nvme+tcp://%s/" FAKE_NQN "?depth=2000", "depth", -EINVAL},
        {"nvme+tcp://%s/" FAKE_NQN "?colour=red", "colour", -EINVAL},
        {"nvme+tcp://%s/disk", "no NQN", -EINVAL},
        {"nvme+tcp://%s/" NVME_DISCOVERY_NQN, "kvasir discover", -EINVAL},
    };
    struct fake *f = arg;
    int line = 0;

    fake_start(t, f);
    for (unsigned i = 0; i < ARRAY_LEN(cases); i++) {
        struct err why = {""};
        struct kv_dev *dev;
        char uri[512];
        int rc;

        snprintf(uri, sizeof(uri), cases[i].uri, f->addr);
        rc = kv_open(t, uri, &dev, &why);
        if (rc != cases[i].rc || strstr(why.text, cases[i].text) == NULL) {
            printf("%s: %d '%s'\n", uri, rc, why.text);
            line = __LINE__;
        }
    }
    fake_stop(t, f);
    return line;
}

static void refuses_wrong_uris(void **state)
{
    struct rt_config cfg = {.buf_bytes = 4 * MIB, .poll = RT_POLL_NEVER};
    struct fake f = {0};

    assert_int_equal(rt_run(&cfg, wrong_uris, &f, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(has_the_core),           cmocka_unit_test(lists_page_by_page),
        cmocka_unit_test(moves_values_in_pieces), cmocka_unit_test(abort_leaves_nothing),
        cmocka_unit_test(readers_may_stop),       cmocka_unit_test(readers_wait_for_connections),
        cmocka_unit_test(refuses_wrong_uris),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
