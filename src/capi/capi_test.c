/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The library as its users have it: only kvasir/kvasir.h, linked with the shared object. Devices in
 * this process, and over NVMe/TCP those of `kvasir serve`, which is the argument.
 */
#include "kvasir/kvasir.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define NQN "nqn.2026-11.io.kvasir:default"

static const char *kvasir_program;
static char addr[64]; /* of the target */
static char kv_uri[200], blk_uri[200];
static pid_t server;

/* --- a target --------------------------------------------------------------------------------- */

static int start_server(void **state)
{
    char line[512];
    int fd[2];
    FILE *out;

    if (pipe(fd) < 0)
        return -1;
    server = fork();
    if (server == 0) {
        dup2(fd[1], 1);
        close(fd[0]);
        execl(kvasir_program, "kvasir", "serve", "--kv", "demo=mem:?size=64M", "--block",
              "disk=mem:?size=16M", "--listen", "127.0.0.1:0", (char *)NULL);
        _exit(127);
    }
    close(fd[1]);
    out = fdopen(fd[0], "r");
    while (fgets(line, sizeof(line), out) != NULL) {
        const char *at = strstr(line, "127.0.0.1:");

        if (at == NULL)
            continue;
        snprintf(addr, sizeof(addr), "%.*s", (int)strspn(at, "0123456789.:"), at);
        snprintf(kv_uri, sizeof(kv_uri), "nvme+tcp://%s/" NQN "?nsid=1", addr);
        snprintf(blk_uri, sizeof(blk_uri), "nvme+tcp://%s/" NQN "?nsid=2", addr);
        return 0; /* `out` stays open: the server may go on talking */
    }
    return -1;
}

static int stop_server(void **state)
{
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
    return 0;
}

/* --- synchronous ------------------------------------------------------------------------------ */

static int count_keys(void *arg, const void *key, size_t key_len)
{
    ++*(int *)arg;
    return 0;
}

static int stop_at_once(void *arg, const void *key, size_t key_len)
{
    return 7;
}

static void use_kv(const char *uri)
{
    struct kvasir_kv_info info;
    struct kvasir_kv *kv;
    uint64_t len, version, again;
    size_t moved;
    char buf[64];
    int n = 0;

    assert_int_equal(kvasir_open_kv(uri, &kv), 0);
    kvasir_kv_info(kv, &info);
    assert_int_equal(info.key_max, 2048);
    assert_int_equal(kvasir_kv_put(kv, "name", 4, "value", 5, 0), 0);
    assert_int_equal(kvasir_kv_get(kv, "name", 4, buf, sizeof(buf), &len), 0);
    assert_int_equal(len, 5);
    assert_memory_equal(buf, "value", 5);
    assert_int_equal(kvasir_kv_get(kv, "name", 4, buf, 2, &len), 0);
    assert_int_equal(len, 5);
    assert_int_equal(kvasir_kv_get(kv, "nobody", 6, buf, sizeof(buf), &len), -ENOENT);
    assert_string_equal(kvasir_error(), "not found");
    assert_int_equal(kvasir_kv_put(kv, "name", 4, "x", 1, KVASIR_MUST_NOT_EXIST), -EEXIST);
    assert_int_equal(kvasir_kv_put(kv, "name", 4, "x", 1, 1u << 20), -EINVAL);
    assert_int_equal(kvasir_kv_get_range(kv, "name", 4, 2, buf, 2, &moved, NULL, &version), 0);
    assert_int_equal(moved, 2);
    assert_memory_equal(buf, "lu", 2);
    assert_int_equal(
        kvasir_kv_put_version(kv, "name", 4, "new", 3, KVASIR_IF_VERSION, version + 9, NULL),
        -ESTALE);
    assert_int_equal(
        kvasir_kv_put_version(kv, "name", 4, "new", 3, KVASIR_IF_VERSION, version, &again), 0);
    assert_int_equal(kvasir_kv_stat(kv, "name", 4, &len, &version), 0);
    assert_int_equal(version, again);
    for (int i = 0; i < 3000; i++) {
        snprintf(buf, sizeof(buf), "list/%04d-of-three-thousand", i);
        assert_int_equal(kvasir_kv_put(kv, buf, strlen(buf), "", 0, 0), 0);
    }
    assert_int_equal(kvasir_kv_list(kv, "list/", 5, NULL, 0, count_keys, &n), 0);
    assert_int_equal(n, 3000);
    assert_int_equal(kvasir_kv_list(kv, "list/", 5, NULL, 0, stop_at_once, NULL), 7);
    assert_int_equal(kvasir_kv_delete(kv, "name", 4, 0, 0), 0);
    assert_int_equal(kvasir_kv_delete(kv, "name", 4, 0, 0), -ENOENT);
    assert_int_equal(kvasir_kv_flush(kv), 0);
    assert_int_equal(kvasir_close_kv(kv), 0);
}

static void kv_in_the_process(void **state)
{
    use_kv("mem:?size=64M");
}

static void kv_over_nvme_tcp(void **state)
{
    use_kv(kv_uri);
}

static void use_streams(const char *uri)
{
    size_t len = 3 * 1000 * 1000 + 1;
    char *out = malloc(len), *in = calloc(1, len);
    struct kvasir_put *put;
    struct kvasir_get *get;
    struct kvasir_kv *kv;
    uint64_t got_len;
    size_t n;

    for (size_t i = 0; i < len; i++)
        out[i] = (char)(i * 7 + i / 4096);
    assert_int_equal(kvasir_open_kv(uri, &kv), 0);
    assert_int_equal(kvasir_put_begin(kv, "big", 3, len, 0, 0, &put), 0);
    for (size_t at = 0; at < len; at += n) {
        n = len - at < 100000 ? len - at : 100000;
        assert_int_equal(kvasir_put_data(put, out + at, n), 0);
    }
    assert_int_equal(kvasir_kv_stat(kv, "big", 3, NULL, NULL), -ENOENT);
    assert_int_equal(kvasir_put_commit(put, NULL), 0);
    assert_int_equal(kvasir_get_begin(kv, "big", 3, &get, &got_len, NULL), 0);
    assert_int_equal(got_len, len);
    assert_int_equal(kvasir_kv_delete(kv, "big", 3, 0, 0), 0); /* the reader keeps its version */
    for (size_t at = 0; at < len; at += n) {
        assert_int_equal(kvasir_get_data(get, at, in + at, 70000 < len - at ? 70000 : len - at, &n),
                         0);
        assert_true(n > 0);
    }
    assert_int_equal(kvasir_get_data(get, len, in, 1, &n), 0);
    assert_int_equal(n, 0);
    assert_int_equal(kvasir_get_end(get), 0);
    assert_memory_equal(in, out, len);
    assert_int_equal(kvasir_put_begin(kv, "big", 3, 10, 0, 0, &put), 0);
    assert_int_equal(kvasir_put_data(put, "123", 3), 0);
    assert_int_equal(kvasir_put_commit(put, NULL), -EINVAL); /* not all of it came */
    assert_int_equal(kvasir_put_begin(kv, "big", 3, 3, 0, 0, &put), 0);
    assert_int_equal(kvasir_put_data(put, "123", 3), 0);
    assert_int_equal(kvasir_put_abort(put), 0);
    assert_int_equal(kvasir_kv_stat(kv, "big", 3, NULL, NULL), -ENOENT);
    kvasir_close_kv(kv);
    free(in);
    free(out);
}

static void streams(void **state)
{
    use_streams("mem:?size=64M");
    use_streams(kv_uri);
}

static void use_blk(const char *uri)
{
    static char out[65536], in[65536];
    struct kvasir_blk_info info;
    struct kvasir_blk *blk;

    memset(out, 0x5a, sizeof(out));
    assert_int_equal(kvasir_open_blk(uri, &blk), 0);
    kvasir_blk_info(blk, &info);
    assert_int_equal(info.nblocks * info.block_bytes, 16 << 20);
    assert_int_equal(kvasir_blk_write(blk, out, 65536, sizeof(out), KVASIR_FUA), 0);
    assert_int_equal(kvasir_blk_read(blk, in, 65536, sizeof(in)), 0);
    assert_memory_equal(in, out, sizeof(in));
    assert_int_equal(kvasir_blk_zero(blk, 65536, 8192, KVASIR_UNMAP), 0);
    assert_int_equal(kvasir_blk_read(blk, in, 65536, sizeof(in)), 0);
    assert_int_equal(in[0], 0);
    assert_int_equal(in[8191], 0);
    assert_int_equal(in[8192], 0x5a);
    assert_int_equal(kvasir_blk_unmap(blk, 0, 65536), 0);
    assert_int_equal(kvasir_blk_flush(blk), 0);
    assert_int_equal(kvasir_blk_read(blk, in, 1, 512), -EINVAL);
    assert_int_equal(kvasir_blk_read(blk, in, 16 << 20, 4096), -ERANGE);
    assert_int_equal(kvasir_close_blk(blk), 0);
}

static void blocks(void **state)
{
    use_blk("mem:?size=16M");
    use_blk(blk_uri);
}

/* --- the rest of kvasir/kv.h ------------------------------------------------------------------ */

static void use_iterators(struct kvasir_kv *kv)
{
    struct kvasir_iter *it;
    const void *key;
    char name[16];
    size_t len;
    int n = 0;

    for (int i = 0; i < 30; i++) {
        snprintf(name, sizeof(name), "i/%02d", i);
        assert_int_equal(kvasir_kv_put(kv, name, 4, name, 4, 0), 0);
    }
    assert_int_equal(kvasir_iter_begin(kv, "i/", 2, NULL, 0, 0, &it), 0);
    while (n < 10 && kvasir_iter_next(it, &key, &len) == 1) {
        snprintf(name, sizeof(name), "i/%02d", n++);
        assert_int_equal(len, 4);
        assert_memory_equal(key, name, 4);
    }
    kvasir_iter_end(it);
    /* It goes on after the last key, and not with it. */
    assert_int_equal(kvasir_iter_begin(kv, "i/", 2, "i/09", 4, KVASIR_AFTER, &it), 0);
    for (; kvasir_iter_next(it, &key, &len) == 1; n++) {
        snprintf(name, sizeof(name), "i/%02d", n);
        assert_memory_equal(key, name, 4);
    }
    assert_int_equal(kvasir_iter_next(it, &key, &len), 0);
    kvasir_iter_end(it);
    assert_int_equal(n, 30);
    assert_int_equal(kvasir_iter_begin(kv, "none/", 5, NULL, 0, 0, &it), 0);
    assert_int_equal(kvasir_iter_next(it, &key, &len), 0);
    kvasir_iter_end(it);
    kvasir_iter_end(NULL);
    assert_int_equal(kvasir_iter_begin(kv, NULL, 0, NULL, 0, 1, &it), -EINVAL);
}

static void use_batches(struct kvasir_kv *kv)
{
    struct kvasir_change changes[] = {
        {.key = "b/new", .key_len = 5, .val = "1", .val_len = 1},
        {.key = "b/old", .key_len = 5, .flags = KVASIR_BATCH_DELETE},
        {.key = "b/none", .key_len = 6, .flags = KVASIR_BATCH_DELETE},
    };

    assert_int_equal(kvasir_kv_put(kv, "b/old", 5, "0", 1, 0), 0);
    assert_int_equal(kvasir_kv_batch(kv, changes, 3), 0);
    assert_int_equal(kvasir_kv_exists(kv, "b/new", 5), 1);
    assert_int_equal(kvasir_kv_exists(kv, "b/old", 5), 0);
    changes[0].key = "b/more";
    changes[0].key_len = 6;
    changes[1].key_len = 0; /* one wrong change, and none is made */
    assert_int_equal(kvasir_kv_batch(kv, changes, 3), -EINVAL);
    assert_int_equal(kvasir_kv_exists(kv, "b/more", 6), 0);
    changes[1].key_len = 5;
    changes[1].flags = 8;
    assert_int_equal(kvasir_kv_batch(kv, changes, 3), -EINVAL);
}

static void use_whole_values(struct kvasir_kv *kv)
{
    static char big[100000];
    size_t len;
    void *val;

    memset(big, 'x', sizeof(big));
    assert_int_equal(kvasir_kv_put(kv, "w", 1, big, sizeof(big), 0), 0);
    assert_int_equal(kvasir_kv_append(kv, "w", 1, "yz", 2), 0);
    assert_int_equal(kvasir_kv_get_alloc(kv, "w", 1, SIZE_MAX / 2, &val, &len), 0);
    assert_int_equal(len, sizeof(big) + 2);
    assert_memory_equal((char *)val + sizeof(big) - 1, "xyz", 4); /* and the byte after it */
    free(val);
    assert_int_equal(kvasir_kv_get_alloc(kv, "w", 1, 1000, &val, &len), -EFBIG);
    assert_int_equal(kvasir_kv_get_alloc(kv, "nobody", 6, 1000, &val, &len), -ENOENT);
    assert_int_equal(kvasir_kv_append(kv, "w2", 2, "", 0), 0);
    assert_int_equal(kvasir_kv_get_alloc(kv, "w2", 2, 0, &val, &len), 0);
    assert_int_equal(len, 0);
    free(val);
}

static void use_snapshots(struct kvasir_kv *kv)
{
    struct kvasir_kv *snap, *other;
    struct kvasir_get *get;
    uint64_t value_len;
    char buf[8] = "";
    size_t len;
    int n = 0;

    assert_int_equal(kvasir_kv_put(kv, "s/1", 3, "old", 3, 0), 0);
    assert_int_equal(kvasir_kv_snapshot(kv, &snap), 0);
    assert_int_equal(kvasir_kv_put(kv, "s/1", 3, "new", 3, 0), 0);
    assert_int_equal(kvasir_kv_put(kv, "s/2", 3, "new", 3, 0), 0);
    assert_int_equal(kvasir_kv_get(snap, "s/1", 3, buf, sizeof(buf), &value_len), 0);
    assert_memory_equal(buf, "old", 3);
    assert_int_equal(kvasir_kv_exists(snap, "s/2", 3), 0);
    assert_int_equal(kvasir_kv_list(snap, "s/", 2, NULL, 0, count_keys, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(kvasir_get_begin(snap, "s/1", 3, &get, &value_len, NULL), 0);
    assert_int_equal(kvasir_get_data(get, 1, buf, sizeof(buf), &len), 0);
    assert_int_equal(len, 2);
    assert_memory_equal(buf, "ld", 2);
    assert_int_equal(kvasir_get_end(get), 0);
    assert_int_equal(kvasir_kv_put(snap, "s/1", 3, "x", 1, 0), -EROFS);
    assert_int_equal(kvasir_kv_snapshot(snap, &other), -EINVAL);
    assert_int_equal(kvasir_close_kv(snap), 0);
    assert_int_equal(kvasir_kv_get(kv, "s/1", 3, buf, sizeof(buf), &value_len), 0);
    assert_memory_equal(buf, "new", 3);
}

static void use_stats(struct kvasir_kv *kv)
{
    struct kvasir_kv_stats before, after;

    assert_int_equal(kvasir_kv_stats(kv, &before), 0);
    assert_int_equal(kvasir_kv_put(kv, "st", 2, "12345", 5, 0), 0);
    assert_int_equal(kvasir_kv_exists(kv, "st", 2), 1);
    assert_int_equal(kvasir_kv_delete(kv, "nobody", 6, 0, 0), -ENOENT);
    assert_int_equal(kvasir_kv_stats(kv, &after), 0);
    assert_int_equal(after.put.ops, before.put.ops + 1);
    assert_int_equal(after.put.bytes, before.put.bytes + 5);
    assert_int_equal(after.stat.ops, before.stat.ops + 1);
    assert_int_equal(after.del.ops, before.del.ops + 1);
    assert_int_equal(after.del.errors, before.del.errors + 1);
    assert_int_equal(after.nkeys, before.nkeys + 1);
    assert_true(after.used_bytes > 0);
    assert_true(after.put.p999_ns >= after.put.p50_ns);
}

static int count_counters(void *arg, const char *name, uint64_t value)
{
    assert_true(strlen(name) > 0);
    ++*(int *)arg;
    return 0;
}

static int count_findings(void *arg, const struct kvasir_finding *f)
{
    ++*(int *)arg;
    return 0;
}

/* `inside`: the device can be looked into. */
static void use_look(struct kvasir_kv *kv, int inside)
{
    struct kvasir_check_report report;
    int n = 0, found = 0;
    int rc = kvasir_kv_counters(kv, count_counters, &n);

    assert_int_equal(rc, inside ? 0 : -ENOTSUP);
    assert_true(inside == (n > 5));
    rc = kvasir_kv_check(kv, 0, count_findings, &found, &report);
    assert_int_equal(rc, inside ? 0 : -ENOTSUP);
    if (inside) {
        assert_int_equal(report.errors, 0);
        assert_int_equal(report.errors + report.warnings + report.notes, found);
        assert_true(report.keys > 0);
    }
    assert_int_equal(kvasir_kv_check(kv, 2, NULL, NULL, &report), -EINVAL);
}

static void use_all(const char *uri, const char *size, int inside)
{
    const struct kvasir_option options[] = {{"size", size}};
    struct kvasir_kv_info info;
    struct kvasir_kv *kv;

    assert_int_equal(kvasir_open_kv_with(uri, options, 1, &kv), 0);
    kvasir_kv_info(kv, &info);
    assert_true(info.size_bytes <= 64 << 20);
    assert_true(info.size_bytes > 48 << 20); /* the engine keeps some for itself */
    use_iterators(kv);
    use_batches(kv);
    use_whole_values(kv);
    use_snapshots(kv);
    use_stats(kv);
    use_look(kv, inside);
    assert_int_equal(kvasir_close_kv(kv), 0);
}

static void all_of_kv_h(void **state)
{
    use_all("mem:", "64M", 0);
    use_all("mem:?name=a%20%26%20b", "67108864", 0);
}

/* The same on the engine; then what it has kept. */
static void the_engine(void **state)
{
    const struct kvasir_option readonly = {"readonly", "yes"};
    struct kvasir_check_report report;
    struct kvasir_kv *kv;
    char path[] = "/tmp/capi-XXXXXX", uri[64];
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    close(fd);
    assert_int_equal(unlink(path), 0);
    snprintf(uri, sizeof(uri), "blob:%s", path);
    use_all(uri, "64M", 1);
    use_kv(uri);
    use_streams(uri);
    assert_int_equal(kvasir_open_kv_with(uri, &readonly, 1, &kv), 0);
    assert_int_equal(kvasir_kv_exists(kv, "b/new", 5), 1);
    assert_int_equal(kvasir_kv_exists(kv, "b/old", 5), 0);
    assert_int_equal(kvasir_kv_put(kv, "k", 1, "v", 1, 0), -EROFS);
    assert_int_equal(kvasir_kv_check(kv, 0, NULL, NULL, &report), 0);
    assert_int_equal(report.errors, 0);
    assert_int_equal(kvasir_close_kv(kv), 0);
    assert_int_equal(unlink(path), 0);
}

static void options_are_checked(void **state)
{
    const struct kvasir_option odd = {"name", "50% & more?#"}, unknown = {"colour", "blue"};
    static char text[3000];
    struct kvasir_option longest = {"name", text};
    struct kvasir_kv *kv = NULL;

    assert_int_equal(kvasir_open_kv_with("mem:?size=1M", &odd, 1, &kv), 0);
    assert_int_equal(kvasir_close_kv(kv), 0);
    assert_int_equal(kvasir_open_kv_with("mem:", &unknown, 1, &kv), -EINVAL);
    assert_non_null(strstr(kvasir_error(), "colour"));
    memset(text, 'x', sizeof(text) - 1);
    assert_int_equal(kvasir_open_kv_with("mem:", &longest, 1, &kv), -ENAMETOOLONG);
    assert_int_equal(kvasir_open_kv_with(text, NULL, 0, &kv), -ENAMETOOLONG);
}

static void errors_have_texts(void **state)
{
    struct kvasir_blk *blk = NULL;
    struct kvasir_kv *kv = NULL;

    assert_int_equal(kvasir_open_kv("nothing", &kv), -EINVAL);
    assert_true(strlen(kvasir_error()) > 10);
    assert_int_equal(kvasir_open_kv(blk_uri, &kv), -EINVAL);
    assert_non_null(strstr(kvasir_error(), "block namespace"));
    assert_int_equal(kvasir_open_blk(kv_uri, &blk), -EINVAL);
    assert_non_null(strstr(kvasir_error(), "KV device"));
    assert_null(kv);
    assert_null(blk);
    assert_int_equal(kvasir_close_kv(NULL), 0);
}

static int find_ours(void *arg, const struct kvasir_subsystem *s)
{
    if (strcmp(s->nqn, NQN) == 0 && strcmp(s->transport, "tcp") == 0 && !s->is_discovery)
        ++*(int *)arg;
    return 0;
}

static void discovery(void **state)
{
    int n = 0;

    assert_int_equal(kvasir_discover(addr, NULL, find_ours, &n), 0);
    assert_int_equal(n, 1);
    assert_true(kvasir_discover("127.0.0.1:1", NULL, find_ours, &n) < 0);
    assert_non_null(strstr(kvasir_error(), "127.0.0.1:1"));
}

/* --- from many threads ------------------------------------------------------------------------ */

static void *thread_main(void *arg)
{
    struct kvasir_kv *shared = arg, *own;
    char key[32], buf[32];
    uint64_t len;
    intptr_t bad = 0;

    snprintf(key, sizeof(key), "thread-%lx", (unsigned long)pthread_self());
    for (int i = 0; i < 50; i++) {
        snprintf(buf, sizeof(buf), "%d", i);
        bad |= kvasir_kv_put(shared, key, strlen(key), buf, sizeof(buf), 0);
        memset(buf, 0, sizeof(buf));
        bad |= kvasir_kv_get(shared, key, strlen(key), buf, sizeof(buf), &len);
        bad |= atoi(buf) != i;
    }
    bad |= kvasir_open_kv("mem:?size=16M", &own);
    if (bad == 0)
        kvasir_close_kv(own);
    return (void *)bad;
}

static void threads(void **state)
{
    pthread_t t[8];
    struct kvasir_kv *kv;

    assert_int_equal(kvasir_open_kv(kv_uri, &kv), 0);
    for (int i = 0; i < 8; i++)
        assert_int_equal(pthread_create(&t[i], NULL, thread_main, kv), 0);
    for (int i = 0; i < 8; i++) {
        void *bad;

        pthread_join(t[i], &bad);
        assert_null(bad);
    }
    kvasir_close_kv(kv);
}

/* --- event loop ------------------------------------------------------------------------------- */

#define OPS 100

static struct {
    struct kvasir_kv *kv, *sync_kv;
    struct kvasir_blk *blk;
    struct kvasir_op op[OPS];
    char val[OPS][16];
    char key[OPS][32];
    int open, done, closed, bad, deadlk;
} lp;

static void got(struct kvasir_op *op)
{
    int i = (int)(op - lp.op);
    char want[32];
    uint64_t len;

    snprintf(want, sizeof(want), "value %d", i);
    if (op->rc != 0 || op->value_len != sizeof(lp.val[i]) || strcmp(lp.val[i], want) != 0)
        lp.bad++;
    /* Whatever would block is refused in here. */
    if (kvasir_kv_get(lp.sync_kv, "x", 1, want, 1, &len) == -EDEADLK &&
        kvasir_kv_get(lp.kv, "x", 1, want, 1, &len) == -EINVAL)
        lp.deadlk++;
    lp.done++;
}

static void put(struct kvasir_op *op)
{
    int i = (int)(op - lp.op);

    if (op->rc != 0)
        lp.bad++;
    memset(lp.val[i], 0, sizeof(lp.val[i]));
    op->code = KVASIR_OP_GET;
    op->done = got;
    if (kvasir_kv_submit(lp.kv, op) != 0)
        lp.bad++;
}

static void opened_kv(void *arg, int rc, struct kvasir_kv *kv)
{
    lp.kv = kv;
    lp.bad += rc != 0;
    lp.open++;
}

static void opened_blk(void *arg, int rc, struct kvasir_blk *blk)
{
    lp.blk = blk;
    lp.bad += rc != 0;
    lp.open++;
}

static void opened_wrong(void *arg, int rc, struct kvasir_kv *kv)
{
    lp.bad += rc != -EINVAL || kv != NULL || strstr(kvasir_error(), "colour") == NULL;
    lp.open++;
}

static void blk_done(struct kvasir_op *op)
{
    lp.bad += op->rc != 0;
    lp.done++;
}

static void closed(void *arg)
{
    lp.closed++;
}

static void turn_until(struct kvasir_loop *loop, const int *what, int want)
{
    struct pollfd p = {.fd = kvasir_loop_fd(loop), .events = POLLIN};

    while (*what < want) {
        int ms = kvasir_loop_timeout_ms(loop);

        assert_true(poll(&p, 1, ms < 0 || ms > 10000 ? 10000 : ms) > 0 || ms >= 0);
        kvasir_loop_turn(loop);
    }
    assert_int_equal(*what, want);
}

static void event_loop(void **state)
{
    static char block[4096], back[4096];
    struct kvasir_op op = {.code = KVASIR_OP_WRITE, .buf = block, .len = 4096, .done = blk_done};
    struct kvasir_loop *loop;

    assert_int_equal(kvasir_open_kv("mem:?size=16M", &lp.sync_kv), 0);
    assert_int_equal(kvasir_kv_submit(lp.sync_kv, &op), -EINVAL);
    assert_int_equal(kvasir_loop_new(&loop), 0);
    assert_int_equal(kvasir_loop_open_kv(loop, kv_uri, opened_kv, NULL), 0);
    assert_int_equal(kvasir_loop_open_blk(loop, blk_uri, opened_blk, NULL), 0);
    assert_int_equal(kvasir_loop_open_kv(loop, "mem:?colour=red", opened_wrong, NULL), 0);
    turn_until(loop, &lp.open, 3);
    assert_int_equal(lp.bad, 0);
    for (int i = 0; i < OPS; i++) {
        snprintf(lp.key[i], sizeof(lp.key[i]), i % 2 ? "loop-%d" : "loop-with-a-longer-key-%d", i);
        snprintf(lp.val[i], sizeof(lp.val[i]), "value %d", i);
        lp.op[i] = (struct kvasir_op){.code = KVASIR_OP_PUT,
                                      .key = lp.key[i],
                                      .key_len = strlen(lp.key[i]),
                                      .buf = lp.val[i],
                                      .len = sizeof(lp.val[i]),
                                      .done = put};
        assert_int_equal(kvasir_kv_submit(lp.kv, &lp.op[i]), 0);
    }
    turn_until(loop, &lp.done, OPS);
    assert_int_equal(lp.bad, 0);
    assert_int_equal(lp.deadlk, OPS);

    memset(block, 0x3c, sizeof(block));
    assert_int_equal(kvasir_blk_submit(lp.blk, &op), 0);
    turn_until(loop, &lp.done, OPS + 1);
    op.code = KVASIR_OP_READ;
    op.buf = back;
    assert_int_equal(kvasir_blk_submit(lp.blk, &op), 0);
    turn_until(loop, &lp.done, OPS + 2);
    assert_memory_equal(block, back, sizeof(block));
    assert_int_equal(kvasir_kv_submit(lp.kv, &op), -EINVAL); /* a block operation */

    assert_int_equal(kvasir_loop_close_kv(lp.kv, closed, NULL), 0);
    assert_int_equal(kvasir_loop_close_blk(lp.blk, closed, NULL), 0);
    turn_until(loop, &lp.closed, 2);
    assert_int_equal(lp.bad, 0);
    kvasir_loop_free(loop);
    kvasir_close_kv(lp.sync_kv);
}

/* --- questions -------------------------------------------------------------------------------- */

struct told {
    char text[256];
    size_t len;
    unsigned pieces;
    int answer;
};

static int hear(void *arg, const void *buf, size_t len)
{
    struct told *told = arg;

    if (told->len + len < sizeof(told->text))
        memcpy(told->text + told->len, buf, len);
    told->len += len;
    told->pieces++;
    return told->answer;
}

static void test_select(void **state)
{
    static const char csv[] = "name,age\nann,30\nbob,40\n";
    struct kvasir_key key = {"people", 6};
    struct kvasir_select q = {.sql = "select name from s3object where age > 35",
                              .keys = &key,
                              .nkeys = 1,
                              .input = "csv"};
    struct kvasir_select_result result;
    struct told told = {.len = 0};
    struct kvasir_kv *kv;
    int rc;

    (void)state;
    assert_int_equal(kvasir_open_kv("mem:?size=16M", &kv), 0);
    assert_int_equal(kvasir_kv_put(kv, "people", 6, csv, strlen(csv), 0), 0);
    rc = kvasir_kv_select(kv, &q, hear, &told, &result);
    if (rc == -ENOTSUP) {
        print_message("skipped: %s\n", kvasir_error());
        kvasir_close_kv(kv);
        skip();
    }
    if (rc < 0)
        print_error("%s\n", kvasir_error());
    assert_int_equal(rc, 0);
    assert_int_equal(told.len, 4);
    assert_memory_equal(told.text, "bob\n", 4);
    assert_int_equal(result.rows, 1);
    assert_int_equal(result.object_bytes, strlen(csv));
    told = (struct told){.answer = 7}; /* enough */
    assert_int_equal(kvasir_kv_select(kv, &q, hear, &told, NULL), 7);
    assert_int_equal(told.pieces, 1);
    q.sql = "select nothing from s3object";
    assert_int_equal(kvasir_kv_select(kv, &q, hear, &told, NULL), -EINVAL);
    assert_non_null(strstr(kvasir_error(), "nothing"));
    q.input = "tape";
    assert_int_equal(kvasir_kv_select(kv, &q, hear, &told, NULL), -EINVAL);
    key.len = 3;
    q.input = NULL;
    assert_int_equal(kvasir_kv_select(kv, &q, hear, &told, NULL), -ENOENT);
    assert_int_equal(kvasir_close_kv(kv), 0);
}

/* --- questions on a loop ---------------------------------------------------------------------- */

static struct {
    struct kvasir_loop *loop;
    struct kvasir_kv *kv;
    struct kvasir_op put;
    char text[1 << 20];
    size_t len;
    unsigned pieces;
    int answer, open, stored, done, waits, closed;
    char error[512];
} ls;

static void ls_opened(void *arg, int rc, struct kvasir_kv *kv)
{
    ls.kv = kv;
    ls.open = rc == 0 ? 1 : -1;
}

static void ls_stored(struct kvasir_op *op)
{
    ls.stored = op->rc == 0 ? 1 : -1;
}

static void ls_closed(void *arg)
{
    ls.closed = 1;
}

static int ls_hear(struct kvasir_select_op *op, const void *buf, size_t len)
{
    assert_true(len <= sizeof(ls.text) - ls.len);
    memcpy(ls.text + ls.len, buf, len);
    ls.len += len;
    ls.pieces++;
    ls.waits += ls.answer == KVASIR_SELECT_WAIT;
    return ls.answer;
}

static void ls_done(struct kvasir_select_op *op)
{
    snprintf(ls.error, sizeof(ls.error), "%s", op->rc < 0 ? kvasir_error() : "");
    ls.done = 1;
}

static int ls_ask(struct kvasir_select_op *op, const char *sql, int answer)
{
    int rc;

    op->question.sql = sql;
    ls.len = ls.pieces = 0;
    ls.done = ls.waits = 0;
    ls.answer = answer;
    rc = kvasir_kv_select_submit(ls.kv, op);
    assert_int_equal(ls.pieces + (unsigned)ls.done, 0); /* never inside */
    return rc;
}

static void select_loop(void **state)
{
    static const char csv[] = "name,age\nann,30\nbob,40\n";
    struct kvasir_key key = {"people", 6};
    struct kvasir_select_op op = {
        .question = {.keys = &key, .nkeys = 1, .input = "csv"}, .data = ls_hear, .done = ls_done};
    const char *many = "select range from range(60000), s3object order by 1";

    (void)state;
    assert_int_equal(kvasir_loop_new(&ls.loop), 0);
    assert_int_equal(kvasir_loop_open_kv(ls.loop, "mem:?size=16M", ls_opened, NULL), 0);
    turn_until(ls.loop, &ls.open, 1);
    ls.put = (struct kvasir_op){.code = KVASIR_OP_PUT,
                                .key = "people",
                                .key_len = 6,
                                .buf = (void *)(uintptr_t)csv,
                                .len = strlen(csv),
                                .done = ls_stored};
    assert_int_equal(kvasir_kv_submit(ls.kv, &ls.put), 0);
    turn_until(ls.loop, &ls.stored, 1);
    assert_int_equal(ls_ask(&op, "select name from s3object where age > 35", 0), 0);
    turn_until(ls.loop, &ls.done, 1);
    if (op.rc == -ENOTSUP)
        print_message("skipped: %s\n", ls.error);
    if (op.rc != -ENOTSUP) {
        assert_string_equal(ls.error, "");
        assert_int_equal(op.rc, 0);
        assert_int_equal(ls.len, 4);
        assert_memory_equal(ls.text, "bob\n", 4);
        assert_int_equal(op.result.rows, 1);
        assert_int_equal(op.result.object_bytes, strlen(csv));
        /* A receiver that is slow: nothing comes until it says so. */
        assert_int_equal(ls_ask(&op, many, KVASIR_SELECT_WAIT), 0);
        for (int n = 1; n <= 2; n++) {
            turn_until(ls.loop, &ls.waits, n);
            for (int i = 0; i < 20; i++)
                kvasir_loop_turn(ls.loop);
            assert_int_equal(ls.pieces, n);
            kvasir_select_resume(&op);
        }
        ls.answer = 0;
        turn_until(ls.loop, &ls.done, 1);
        assert_int_equal(op.rc, 0);
        assert_true(ls.pieces > 2);
        assert_memory_equal(ls.text, "0\n0\n1\n1\n", 8);
        assert_memory_equal(ls.text + ls.len - 12, "59999\n59999\n", 12);
        /* Enough. */
        assert_int_equal(ls_ask(&op, many, -EFBIG), 0);
        turn_until(ls.loop, &ls.done, 1);
        assert_int_equal(op.rc, -EFBIG);
        assert_int_equal(ls.pieces, 1);
        /* Cancelled while it waits, while it runs, and before it has begun. */
        for (int when = 0; when < 3; when++) {
            assert_int_equal(ls_ask(&op, many, KVASIR_SELECT_WAIT), 0);
            if (when == 0)
                turn_until(ls.loop, &ls.waits, 1);
            else if (when == 1)
                kvasir_loop_turn(ls.loop);
            kvasir_select_cancel(&op);
            kvasir_select_cancel(&op);
            turn_until(ls.loop, &ls.done, 1);
            assert_int_equal(op.rc, -ECANCELED);
            assert_int_equal(ls.pieces, when == 0);
        }
        assert_int_equal(ls_ask(&op, "select nothing from s3object", 0), 0);
        turn_until(ls.loop, &ls.done, 1);
        assert_int_equal(op.rc, -EINVAL);
        assert_non_null(strstr(ls.error, "nothing"));
        key.len = 3;
        assert_int_equal(ls_ask(&op, "select 1 from s3object", 0), 0);
        turn_until(ls.loop, &ls.done, 1);
        assert_int_equal(op.rc, -ENOENT);
        op.question.input = "tape";
        assert_int_equal(ls_ask(&op, "select 1 from s3object", 0), -EINVAL);
    }
    assert_int_equal(kvasir_loop_close_kv(ls.kv, ls_closed, NULL), 0);
    turn_until(ls.loop, &ls.closed, 1);
    kvasir_loop_free(ls.loop);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_select),
        cmocka_unit_test(select_loop),
        cmocka_unit_test(kv_in_the_process),
        cmocka_unit_test(kv_over_nvme_tcp),
        cmocka_unit_test(streams),
        cmocka_unit_test(blocks),
        cmocka_unit_test(the_engine),
        cmocka_unit_test(all_of_kv_h),
        cmocka_unit_test(options_are_checked),
        cmocka_unit_test(errors_have_texts),
        cmocka_unit_test(discovery),
        cmocka_unit_test(threads),
        cmocka_unit_test(event_loop),
    };

    if (argc != 2) {
        fprintf(stderr, "test-capi PATH-OF-KVASIR\n");
        return 2;
    }
    kvasir_program = argv[1];
    return cmocka_run_group_tests(tests, start_server, stop_server);
}
