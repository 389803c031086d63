/* SPDX-License-Identifier: Apache-2.0 */
/* Both directions of a connection over loopback: pieces of all sizes, small buffers, dead peers. */
#include "net/addr.h"
#include "net/stream.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "line %d: %s\n", __LINE__, #cond);                                     \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)

#define TOTAL 3000000u

struct pair {
    struct rt_sock listener, a, b;
};

static int pair_open(struct rt_task *t, struct pair *p)
{
    struct net_addr addr;
    int fd;

    CHECK(net_addr_parse("127.0.0.1:0", 1, &addr, NULL) == 0);
    CHECK(rt_sock_listen(&p->listener, (struct sockaddr *)&addr.ss, addr.len, 4) == 0);
    CHECK(rt_sock_local(&p->listener, &addr.ss) == 0);
    CHECK(rt_sock_connect(t, &p->a, (struct sockaddr *)&addr.ss, addr.len) == 0);
    while ((fd = rt_sock_accept(&p->listener)) == -EAGAIN)
        CHECK(rt_sock_readable(t, &p->listener) == 0);
    CHECK(fd >= 0);
    return rt_sock_attach(&p->b, fd);
}

static void pair_close(struct pair *p)
{
    rt_sock_close(&p->a);
    rt_sock_close(&p->b);
    rt_sock_close(&p->listener);
}

static uint8_t byte_at(uint32_t i)
{
    return (uint8_t)(i * 2654435761u >> 23);
}

struct sent {
    struct net_tx_item item;
    unsigned *count;
    unsigned place; /* in the order of adding */
    int rc;
};

static void item_done(struct net_tx_item *item, int rc)
{
    struct sent *s = container_of(item, struct sent, item);

    s->rc = rc == 0 && *s->count != s->place ? -EPROTO : rc;
    ++*s->count;
}

/* Many items of odd sizes arrive whole and in order, through a small buffer. */
static int all_arrives(struct rt_task *t, void *arg)
{
    enum { N = 2000 };
    static uint8_t out[TOTAL], in[TOTAL];
    static struct sent item[N];
    struct pair p = {.a.fd = -1, .b.fd = -1, .listener.fd = -1};
    struct net_tx tx;
    struct net_rx rx;
    uint8_t buf[700];
    uint32_t at = 0, n = 0;
    unsigned count = 0;
    const uint8_t *head;

    CHECK(pair_open(t, &p) == 0);
    for (uint32_t i = 0; i < TOTAL; i++)
        out[i] = byte_at(i);
    net_tx_init(&tx, &p.a, NULL, NULL);
    net_rx_init(&rx, &p.b, buf, sizeof(buf));
    for (; at < TOTAL && n < N; n++) {
        uint32_t one = MIN(n * 7 % 1900, TOTAL - at);
        uint32_t two = MIN(n % 3 * 500, TOTAL - at - one);

        if (n == N - 1)
            one = TOTAL - at - two;
        item[n] = (struct sent){.count = &count, .place = n, .item = {.done = item_done}};
        item[n].item.iov[0] = (struct iovec){.iov_base = out + at, .iov_len = one};
        item[n].item.iov[1] = (struct iovec){.iov_base = out + at + one, .iov_len = two};
        item[n].item.iovcnt = 2;
        net_tx_add(&tx, &item[n].item);
        at += one + two;
    }
    CHECK(at == TOTAL);
    for (at = 0; at < TOTAL;) {
        uint32_t need = MIN(1 + at % 600, TOTAL - at);
        uint32_t take;
        struct iovec iov[2];

        CHECK(net_rx_need(t, &rx, need, &head) == 0);
        CHECK(memcmp(head, out + at, need) == 0);
        net_rx_consume(&rx, need);
        at += need;
        take = MIN(50000, TOTAL - at);
        iov[0] = (struct iovec){.iov_base = in + at, .iov_len = take / 3};
        iov[1] = (struct iovec){.iov_base = in + at + take / 3, .iov_len = take - take / 3};
        CHECK(net_rx_read(t, &rx, iov, 2, 0, take) == 0);
        CHECK(memcmp(in + at, out + at, take) == 0);
        at += take;
    }
    CHECK(net_tx_drain(t, &tx) == 0);
    CHECK(count == n && tx.queued_bytes == 0 && tx.bytes == TOTAL && rx.bytes == TOTAL);
    for (uint32_t i = 0; i < n; i++)
        CHECK(item[i].rc == 0);
    net_tx_fini(t, &tx);
    pair_close(&p);
    return 0;
}

static void on_error(struct net_tx *tx)
{
    tx->on_error = NULL; /* a second call would crash */
}

/* Items that cannot be sent are done with the reason, those added later too; the reader sees the
 * end; a stopped sender leaves nothing behind. */
static int dead_peer(struct rt_task *t, void *arg)
{
    static uint8_t out[TOTAL];
    struct pair p = {.a.fd = -1, .b.fd = -1, .listener.fd = -1};
    struct sent item[3];
    struct net_tx tx;
    struct net_rx rx;
    uint8_t buf[64];
    const uint8_t *head;
    unsigned count = 0;

    CHECK(pair_open(t, &p) == 0);
    net_tx_init(&tx, &p.a, on_error, NULL);
    for (unsigned i = 0; i < 3; i++) {
        item[i] = (struct sent){.count = &count, .place = i, .item = {.done = item_done}};
        item[i].item.iov[0] = (struct iovec){.iov_base = out, .iov_len = TOTAL};
        item[i].item.iovcnt = 1;
    }
    net_tx_add(&tx, &item[0].item);
    net_tx_add(&tx, &item[1].item);
    for (int i = 0; i < 1000 && tx.blocked_ns == 0; i++)
        rt_sleep(t, NS_PER_MS / 10);
    CHECK(tx.blocked_ns != 0);
    rt_sock_close(&p.b);
    CHECK(net_tx_drain(t, &tx) < 0);
    CHECK(count == 2 && item[1].rc < 0);
    net_tx_add(&tx, &item[2].item);
    rt_yield(t);
    while (count < 3)
        rt_sleep(t, NS_PER_MS / 10);
    CHECK(item[2].rc < 0);
    net_rx_init(&rx, &p.a, buf, sizeof(buf));
    CHECK(net_rx_need(t, &rx, 1, &head) == -ECONNRESET);
    net_tx_fini(t, &tx);
    pair_close(&p);

    /* Stopped while blocked. */
    CHECK(pair_open(t, &p) == 0);
    count = 0;
    net_tx_init(&tx, &p.a, NULL, NULL);
    item[0].item.iov[0] = (struct iovec){.iov_base = out, .iov_len = TOTAL};
    item[1].item.iov[0] = (struct iovec){.iov_base = out, .iov_len = TOTAL};
    net_tx_add(&tx, &item[0].item);
    net_tx_add(&tx, &item[1].item);
    rt_sleep(t, NS_PER_MS);
    net_tx_fini(t, &tx);
    CHECK(count == 2 && item[1].rc == -ECANCELED);
    pair_close(&p);
    return 0;
}

static void run(rt_task_fn fn)
{
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = MIB};
    struct err why = {""};
    int rc = rt_run(&cfg, fn, NULL, &why);

    if (rc < 0)
        print_error("line %d (%s)\n", -rc, why.text);
    assert_int_equal(rc, 0);
}

static void test_all_arrives(void **state)
{
    (void)state;
    run(all_arrives);
}

static void test_dead_peer(void **state)
{
    (void)state;
    run(dead_peer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_arrives),
        cmocka_unit_test(test_dead_peer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
