/* SPDX-License-Identifier: Apache-2.0 */
/* The virtual network: bytes arrive whole and in order, or the connection says that it is dead. */
#include "sim/world.h"

#include "sim/net.h"

#include "net/addr.h"

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

#define TOTAL_BYTES 300000u
#define PORT 4420

static struct sim_machine *server, *client;
static struct rt_req server_done, client_done;
static size_t largest_gap; /* sent and not yet received */
static size_t nsent, nreceived;

static void on_done(struct rt_req *req)
{
    (void)req;
}

static bool both_done(void *arg)
{
    (void)arg;
    return server_done.state == RT_REQ_IDLE && client_done.state == RT_REQ_IDLE;
}

static uint8_t byte_at(size_t pos)
{
    return (uint8_t)(pos * 31 + pos / 256);
}

static int listen_on(struct rt_sock *l)
{
    struct net_addr addr;

    CHECK(net_addr_parse("0.0.0.0:4420", 0, &addr, NULL) == 0);
    CHECK(rt_sock_listen(l, (struct sockaddr *)&addr.ss, addr.len, 4) == 0);
    return 0;
}

static int connect_to(struct rt_task *t, struct rt_sock *s)
{
    struct net_addr addr;
    char text[64];

    sim_net_addr_text(server, PORT, text, sizeof(text));
    CHECK(net_addr_parse(text, 0, &addr, NULL) == 0);
    return rt_sock_connect(t, s, (struct sockaddr *)&addr.ss, addr.len);
}

static int accept_one(struct rt_task *t, struct rt_sock *l, struct rt_sock *s)
{
    int fd;

    while ((fd = rt_sock_accept(l)) == -EAGAIN) {
        int rc = rt_sock_readable(t, l);

        if (rc < 0)
            return rc;
    }
    CHECK(fd >= 0);
    return rt_sock_attach(s, fd);
}

/* Takes bytes until the stream ends; *out_rc says how. Slowly, so that the sender has to wait. */
static int drain(struct rt_task *t, struct rt_sock *s, int *out_rc)
{
    uint8_t buf[5000];

    for (;;) {
        struct iovec iov[2] = {{buf, 1000}, {buf + 1000, 4000}};
        ssize_t n = rt_sock_recv(s, iov, 2);

        if (n == -EAGAIN) {
            int rc = rt_sock_readable(t, s);

            if (rc < 0)
                return rc;
            continue;
        }
        if (n <= 0) {
            *out_rc = (int)n;
            return 0;
        }
        for (ssize_t i = 0; i < n; i++)
            CHECK(buf[i] == byte_at(nreceived + (size_t)i));
        nreceived += (size_t)n;
        largest_gap = MAX(largest_gap, nsent - nreceived);
        if (nreceived % 7 == 0)
            rt_sleep(t, NS_PER_MS);
    }
}

static int server_task(struct rt_task *t, void *arg)
{
    struct rt_sock l = {.fd = -1}, s = {.fd = -1};
    int how = 0, rc;

    CHECK(listen_on(&l) == 0);
    CHECK(accept_one(t, &l, &s) == 0);
    rc = drain(t, &s, &how);
    rt_sock_close(&s);
    rt_sock_close(&l);
    *(int *)arg = how;
    return rc;
}

static int client_task(struct rt_task *t, void *arg)
{
    struct rt_sock s = {.fd = -1};
    uint8_t buf[8192];
    int rc;

    rt_sleep(t, NS_PER_MS);
    CHECK(connect_to(t, &s) == 0);
    *(int *)arg = 0;
    while (nsent < TOTAL_BYTES) {
        struct iovec iov = {buf, MIN(sizeof(buf), TOTAL_BYTES - nsent)};
        ssize_t n;

        for (size_t i = 0; i < iov.iov_len; i++)
            buf[i] = byte_at(nsent + i);
        n = rt_sock_send(&s, &iov, 1);
        if (n == -EAGAIN) {
            rc = rt_sock_writable(t, &s);
            if (rc < 0)
                return rc;
            continue;
        }
        if (n < 0) {
            *(int *)arg = (int)n;
            break;
        }
        nsent += (size_t)n;
    }
    rt_sock_close(&s);
    return 0;
}

static void begin(uint64_t seed)
{
    sim_world_init(seed);
    server = sim_machine_add("server", 1);
    client = sim_machine_add("client", 1);
    sim_boot(server, MIB);
    sim_boot(client, MIB);
    nsent = nreceived = largest_gap = 0;
}

static void end(void)
{
    sim_halt(server);
    sim_halt(client);
    sim_world_fini();
}

static void run(rt_task_fn server_fn, void *server_arg, rt_task_fn client_fn, void *client_arg)
{
    rt_req_init(&server_done, on_done);
    rt_req_init(&client_done, on_done);
    assert_int_equal(sim_start(server, 0, "server", server_fn, server_arg, &server_done), 0);
    assert_int_equal(sim_start(client, 0, "client", client_fn, client_arg, &client_done), 0);
    assert_true(sim_run(both_done, NULL, sim.now_ns + 1000 * NS_PER_S));
    assert_int_equal(server_done.rc, 0);
    assert_int_equal(client_done.rc, 0);
}

static void streams(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        int how_in = 1, how_out = 1;

        begin(seed);
        sim.weather.net_split_ppm = 500000;
        sim.weather.net_slow_ppm = 5000;
        sim.weather.net_buf_bytes = 16 * KIB;
        run(server_task, &how_in, client_task, &how_out);
        assert_int_equal(how_in, 0);
        assert_int_equal(nreceived, TOTAL_BYTES);
        assert_true(largest_gap <= 16 * KIB);
        end();
    }
}

/* Every connection dies somewhere: what was received before is a beginning of what was sent. */
static void resets(void **state)
{
    unsigned early = 0;

    (void)state;
    for (uint64_t seed = 0; seed < 20; seed++) {
        int how_in = 1, how_out = 1;

        begin(seed);
        sim.weather.net_reset_ppm = 1000000;
        run(server_task, &how_in, client_task, &how_out);
        assert_true(how_in == -ECONNRESET || nreceived == TOTAL_BYTES);
        early += nreceived < TOTAL_BYTES;
        end();
    }
    assert_true(early > 5);
}

static int refused_task(struct rt_task *t, void *arg)
{
    struct rt_sock s;

    *(int *)arg = connect_to(t, &s);
    return 0;
}

static int nothing_task(struct rt_task *t, void *arg)
{
    (void)t;
    (void)arg;
    return 0;
}

static void refused(void **state)
{
    int rc = 1;

    (void)state;
    begin(1);
    run(nothing_task, NULL, refused_task, &rc);
    assert_int_equal(rc, -ECONNREFUSED);
    sim_power_cut(server);
    rt_req_init(&client_done, on_done);
    assert_int_equal(sim_start(client, 0, "client", refused_task, &rc, &client_done), 0);
    assert_true(sim_run(both_done, NULL, sim.now_ns + 100 * NS_PER_S));
    assert_int_equal(rc, -ETIMEDOUT);
    sim_boot(server, MIB);
    end();
}

static int cut_client(struct rt_task *t, void *arg)
{
    int rc = client_task(t, arg);

    return rc;
}

static bool some_received(void *arg)
{
    (void)arg;
    return nreceived > 50000;
}

/* A power cut is silent until the machine is back; a killed program is heard of at once. */
static void crashes(void **state)
{
    (void)state;
    for (int power = 0; power < 2; power++) {
        int how_in = 1, how_out = 1;
        uint64_t cut_ns;

        begin(3);
        rt_req_init(&server_done, on_done);
        rt_req_init(&client_done, on_done);
        sim_start(server, 0, "server", server_task, &how_in, &server_done);
        sim_start(client, 0, "client", cut_client, &how_out, &client_done);
        assert_true(sim_run(some_received, NULL, sim.now_ns + 1000 * NS_PER_S));
        cut_ns = sim.now_ns;
        if (power)
            sim_power_cut(server);
        else
            sim_kill(server);
        server_done.state = RT_REQ_IDLE;
        if (power) {
            assert_false(sim_run(both_done, NULL, cut_ns + 20 * NS_PER_S));
            sim_boot(server, MIB);
        }
        assert_true(sim_run(both_done, NULL, sim.now_ns + 2 * NS_PER_S));
        assert_int_equal(client_done.rc, 0);
        assert_true(how_out == -ECONNRESET || how_out == -EPIPE);
        if (!power)
            sim_boot(server, MIB);
        end();
    }
}

static void partition(void **state)
{
    int how_in = 1, how_out = 1;
    uint64_t at;

    (void)state;
    begin(4);
    rt_req_init(&server_done, on_done);
    rt_req_init(&client_done, on_done);
    sim_start(server, 0, "server", server_task, &how_in, &server_done);
    sim_start(client, 0, "client", client_task, &how_out, &client_done);
    assert_true(sim_run(some_received, NULL, sim.now_ns + 1000 * NS_PER_S));
    sim_net_partition(server, client, 5 * NS_PER_S);
    at = sim.now_ns;
    assert_true(sim_run(both_done, NULL, sim.now_ns + 1000 * NS_PER_S));
    assert_true(sim.now_ns > at + 5 * NS_PER_S);
    assert_int_equal(nreceived, TOTAL_BYTES);
    end();
}

static uint64_t hash_of(uint64_t seed)
{
    int how_in = 1, how_out = 1;
    uint64_t hash;

    begin(seed);
    sim.weather.net_split_ppm = 100000;
    run(server_task, &how_in, client_task, &how_out);
    end();
    hash = sim.trace_hash;
    return hash;
}

static void replay(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed < 5; seed++)
        assert_int_equal(hash_of(seed), hash_of(seed));
    assert_int_not_equal(hash_of(1), hash_of(2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(streams), cmocka_unit_test(resets),    cmocka_unit_test(refused),
        cmocka_unit_test(crashes), cmocka_unit_test(partition), cmocka_unit_test(replay),
    };

    return cmocka_run_group_tests_name("sim/net", tests, NULL, NULL);
}
