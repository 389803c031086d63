/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service against a worker program that keeps to the rules and one that does not
 * (test_worker.h), and against the real one when it and its engine are here. Descriptors and
 * processes are counted before and after each test.
 */
#include "virt/query/query.h"

#include "virt/query/test_worker.h"

#include <dirent.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static char self[PATH_MAX];

static unsigned descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    while (readdir(d) != NULL)
        n++;
    closedir(d);
    return n;
}

/* A test as a task: what it found, for the assertions. */
struct env {
    const char *mode; /* of the fake worker; NULL: the real one */
    struct query_config cfg;
    int (*test)(struct rt_task *t, struct env *e);
    struct query_service *svc;
    struct kv_dev *dev;
    struct kv_chan *chan;
    struct err why;
    int new_rc;
};

struct answer {
    char text[8192];
    size_t len;
    uint64_t total;
    int fail; /* data() answers this */
    struct kv_select_result res;
    struct err why;
    int rc;
};

static int take(struct rt_task *t, void *arg, const void *buf, size_t len)
{
    struct answer *a = arg;
    size_t n = MIN(len, sizeof(a->text) - 1 - a->len);

    (void)t;
    memcpy(a->text + a->len, buf, n);
    a->len += n;
    a->text[a->len] = '\0';
    a->total += len;
    return a->fail;
}

static int ask_with(struct rt_task *t, struct env *e, const struct kv_select *q, struct answer *a)
{
    a->res = (struct kv_select_result){.data = take, .arg = a};
    a->rc = query_select(t, e->svc, e->chan, q, &a->res, &a->why);
    return a->rc;
}

static int ask_key(struct rt_task *t, struct env *e, const char *key, const char *sql,
                   struct answer *a)
{
    struct bytes k = bytes_of_str(key);
    struct kv_select q = {.keys = &k,
                          .nkeys = 1,
                          .sql = bytes_of_str(sql),
                          .input = KV_SELECT_CSV,
                          .output = KV_SELECT_CSV};

    return ask_with(t, e, &q, a);
}

static int env_task(struct rt_task *t, void *arg)
{
    struct env *e = arg;
    int rc = kv_open(t, "mem:?size=256M", &e->dev, &e->why);

    if (rc < 0)
        return rc;
    rc = kv_chan_get(t, e->dev, &e->chan);
    if (rc == 0 && e->mode != NULL) {
        e->cfg.worker = self;
        e->cfg.engine = e->mode;
    }
    if (rc == 0)
        rc = kv_store(t, e->chan, bytes_of_str("a"), bytes_of_str("x,y\n1,2\n"), 0);
    if (rc == 0)
        rc = kv_store(t, e->chan, bytes_of_str("b"), bytes_of_str("x,y\n3,4\n"), 0);
    if (rc == 0)
        e->new_rc = query_service_new(t, &e->cfg, &e->svc, &e->why);
    if (rc == 0)
        rc = e->test(t, e);
    if (e->svc != NULL)
        query_service_free(t, e->svc);
    kv_chan_put(t, e->chan);
    kv_close(t, e->dev);
    return rc;
}

static void run_env(struct env *e, unsigned reactors)
{
    struct rt_config cfg = {.reactors = reactors, .poll = RT_POLL_NEVER};
    struct err why = {""};
    unsigned before = descriptors();
    int rc = rt_run(&cfg, env_task, e, &why);

    if (rc < 0)
        print_error("%d: %s %s\n", rc, why.text, e->why.text);
    assert_int_equal(rc, 0);
    assert_int_equal(descriptors(), before);
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* no child is left */
}

/* --- a worker that keeps to the rules --------------------------------------------------------- */

static struct answer got;

static int one_task(struct rt_task *t, struct env *e)
{
    ask_key(t, e, "a", "select", &got);
    return e->new_rc;
}

static void test_one(void **state)
{
    struct env e = {.mode = "echo", .test = one_task};

    (void)state;
    got = (struct answer){.rc = 1};
    run_env(&e, 1);
    assert_int_equal(got.rc, 0);
    assert_string_equal(got.text, "x,y\n1,2\n");
    assert_int_equal(got.res.rows, 1);
    assert_int_equal(got.res.object_bytes, 8);
    assert_int_equal(got.res.read_bytes, 8);
    assert_int_equal(got.res.result_bytes, 8);
    assert_false(got.res.pushed);
    assert_false(got.res.schema_known);
}

static struct query_stats stats;

static int many_task(struct rt_task *t, struct env *e)
{
    static const char *const keys[] = {"a", "b"};
    struct bytes two[2] = {bytes_of_str("b"), bytes_of_str("a")};
    struct kv_select q = {.keys = two,
                          .nkeys = 2,
                          .sql = bytes_of_str("select"),
                          .input = KV_SELECT_CSV,
                          .output = KV_SELECT_CSV};
    struct answer *a = &got;
    int rc = e->new_rc;

    for (int i = 0; rc == 0 && i < 40; i++) {
        *a = (struct answer){.rc = 1};
        rc = ask_key(t, e, keys[i % 2], "select", a);
        if (rc == 0 && a->res.schema_known != (i >= 2))
            rc = -EILSEQ;
    }
    if (rc == 0 && strcmp(a->text, "known:x,y\n3,4\n") != 0)
        rc = -EILSEQ;
    *a = (struct answer){.rc = 1};
    if (rc == 0)
        rc = ask_with(t, e, &q, a);
    if (rc == 0 && strcmp(a->text, "x,y\n3,4\nx,y\n1,2\n") != 0)
        rc = -EILSEQ;
    q.nkeys = 0;
    *a = (struct answer){.rc = 1};
    if (rc == 0)
        rc = ask_with(t, e, &q, a);
    if (rc == 0 && strcmp(a->text, "x,y\n1,2\nx,y\n3,4\n") != 0)
        rc = -EILSEQ;
    /* A changed object is another one. */
    if (rc == 0)
        rc = kv_store(t, e->chan, bytes_of_str("a"), bytes_of_str("x,y\n1,5\n"), 0);
    *a = (struct answer){.rc = 1};
    if (rc == 0)
        rc = ask_key(t, e, "a", "select", a);
    if (rc == 0 && a->res.schema_known)
        rc = -EILSEQ;
    query_stats(t, e->svc, &stats);
    return rc;
}

static void test_many(void **state)
{
    struct env e = {.mode = "echo", .test = many_task};

    (void)state;
    run_env(&e, 1);
    assert_int_equal(stats.done, 43);
    assert_int_equal(stats.failed, 0);
    assert_int_equal(stats.schemas_sniffed, 5);
    assert_int_equal(stats.schemas_remembered, 38);
    assert_int_equal(stats.run_ns.count, 43);
}

static int errors_task(struct rt_task *t, struct env *e)
{
    static struct answer a;
    struct kv_select q = {
        .prefix = bytes_of_str("nothing"), .sql = bytes_of_str("s"), .output = KV_SELECT_CSV};

    if (ask_key(t, e, "none", "select", &a) != -ENOENT || strstr(a.why.text, "none") == NULL)
        return -EILSEQ;
    if (ask_key(t, e, "a", "", &a) != -EINVAL)
        return -EILSEQ;
    if (ask_key(t, e, "a", "\xff\xfe", &a) != -EINVAL)
        return -EILSEQ;
    if (ask_key(t, e, "a", "wrong", &a) != -EINVAL || strcmp(a.why.text, "no") != 0)
        return -EILSEQ;
    if (ask_with(t, e, &q, &a) != -ENOENT)
        return -EILSEQ;
    a.fail = -ENOSPC; /* whoever takes the answer cannot */
    if (ask_key(t, e, "a", "select", &a) != -ENOSPC)
        return -EILSEQ;
    a.fail = 0;
    return ask_key(t, e, "a", "select", &a);
}

static void test_errors(void **state)
{
    struct env e = {.mode = "echo", .test = errors_task};

    (void)state;
    run_env(&e, 1);
}

/* --- large, and from several reactors --------------------------------------------------------- */

#define BIG_BYTES (9 * MIB + 12345)

static int big_task(struct rt_task *t, struct env *e)
{
    uint8_t *big = malloc(BIG_BYTES);
    int rc;

    for (size_t i = 0; i < BIG_BYTES; i++)
        big[i] = (uint8_t)(i * 7 / 3);
    rc = kv_store(t, e->chan, bytes_of_str("big"), bytes_make(big, BIG_BYTES), 0);
    free(big);
    got = (struct answer){.rc = 1};
    if (rc == 0)
        rc = ask_key(t, e, "big", "select", &got);
    if (rc == 0 && (got.total != BIG_BYTES || got.res.read_bytes != BIG_BYTES))
        rc = -EILSEQ;
    return rc;
}

static void test_big(void **state)
{
    struct env e = {.mode = "echo", .test = big_task};

    (void)state;
    run_env(&e, 1);
}

static int limit_task(struct rt_task *t, struct env *e)
{
    static struct answer a;
    int rc = ask_key(t, e, "a", "select", &a);

    return rc == -EDQUOT ? 0 : -EILSEQ;
}

static void test_result_limit(void **state)
{
    struct env e = {.mode = "echo", .test = limit_task, .cfg.result_bytes_max = 7};

    (void)state;
    run_env(&e, 1);
}

struct asker {
    struct env *e;
    const char *who;
    const char *sql;
    struct rt_req done;
    struct rt_task *task;
    unsigned *order;
    unsigned place;
    unsigned reactor;
    struct answer a;
};

static int asker_task(struct rt_task *t, void *arg)
{
    struct asker *k = arg;
    struct bytes key = bytes_of_str("a");
    struct kv_select q = {.keys = &key,
                          .nkeys = 1,
                          .sql = bytes_of_str(k->sql),
                          .input = KV_SELECT_CSV,
                          .output = KV_SELECT_CSV,
                          .who = bytes_of_str(k->who)};
    struct env e = *k->e;
    int rc = kv_chan_get(t, k->e->dev, &e.chan);

    if (rc < 0)
        return rc;
    rc = ask_with(t, &e, &q, &k->a);
    k->place = ++*k->order;
    kv_chan_put(t, e.chan);
    return rc;
}

static int on_other(struct rt_task *t, void *arg)
{
    struct asker *k = arg;

    return rt_on(t, rt_reactor(k->reactor), asker_task, k);
}

static int start_askers(struct rt_task *t, struct asker *k, unsigned n)
{
    int rc = 0;

    for (unsigned i = 0; rc == 0 && i < n; i++) {
        rt_req_init_task(&k[i].done, t);
        rc = rt_task_start("asker", on_other, &k[i], &k[i].done, &k[i].task);
    }
    return rc;
}

static int join_askers(struct rt_task *t, struct asker *k, unsigned n)
{
    int rc = 0;

    for (unsigned i = 0; i < n; i++) {
        int one = rt_wait(t, &k[i].done);

        rc = rc == 0 ? one : rc;
    }
    return rc;
}

/* Five of one, then one of another: the other is served second. */
static int fair_task(struct rt_task *t, struct env *e)
{
    struct asker *k = calloc(6, sizeof(*k));
    unsigned order = 0;
    int rc;

    for (unsigned i = 0; i < 6; i++)
        k[i] = (struct asker){
            .e = e, .who = i < 5 ? "greedy" : "modest", .sql = "select", .order = &order};
    rc = start_askers(t, k, 6);
    if (rc == 0)
        rc = join_askers(t, k, 6);
    if (rc == 0 && k[5].place > 3)
        rc = -EILSEQ;
    free(k);
    return rc;
}

static void test_fair(void **state)
{
    struct env e = {
        .mode = "echo", .test = fair_task, .cfg = {.workers_max = 1, .workers_ready = 1}};

    (void)state;
    run_env(&e, 1);
}

static int crowd_task(struct rt_task *t, struct env *e)
{
    struct asker *k = calloc(40, sizeof(*k));
    unsigned order = 0, refused = 0;
    int rc;

    for (unsigned i = 0; i < 40; i++)
        k[i] = (struct asker){.e = e,
                              .who = i % 3 == 0 ? "a" : "b",
                              .sql = "select wait",
                              .reactor = i % 2,
                              .order = &order};
    rc = start_askers(t, k, 40);
    join_askers(t, k, 40);
    for (unsigned i = 0; i < 40; i++) {
        refused += k[i].a.rc == -EAGAIN;
        if (k[i].a.rc != 0 && k[i].a.rc != -EAGAIN)
            rc = k[i].a.rc;
        if (k[i].a.rc == 0 && strstr(k[i].a.text, "x,y\n1,2\n") == NULL)
            rc = -EILSEQ;
    }
    query_stats(t, e->svc, &stats);
    free(k);
    return rc != 0 ? rc : refused > 0 ? 0 : -EILSEQ;
}

static void test_crowd(void **state)
{
    struct env e = {.mode = "echo", .test = crowd_task, .cfg = {.workers_max = 4, .queue_max = 20}};

    (void)state;
    run_env(&e, 2);
    assert_true(stats.done >= 20 && stats.done < 40);
    assert_int_equal(stats.running, 0);
    assert_int_equal(stats.waiting, 0);
}

/* --- cancel, deadline, the end of the service ------------------------------------------------- */

static int cancel_task(struct rt_task *t, struct env *e)
{
    struct asker *k = calloc(3, sizeof(*k));
    unsigned order = 0;
    int rc;

    for (unsigned i = 0; i < 3; i++)
        k[i] = (struct asker){.e = e, .who = "", .sql = "hang", .order = &order};
    rc = start_askers(t, k, 3);
    rt_sleep(t, 50 * NS_PER_MS); /* two run, one waits */
    for (unsigned i = 0; i < 3; i++)
        rt_task_cancel(k[i].task);
    join_askers(t, k, 3);
    for (unsigned i = 0; i < 3; i++)
        if (k[i].a.rc != -ECANCELED)
            rc = -EILSEQ;
    free(k);
    /* What they held is free again. */
    got = (struct answer){.rc = 1};
    return rc != 0 ? rc : ask_key(t, e, "a", "select", &got);
}

static void test_cancel(void **state)
{
    struct env e = {.mode = "echo", .test = cancel_task, .cfg = {.workers_max = 2}};

    (void)state;
    run_env(&e, 1);
}

static int timeout_task(struct rt_task *t, struct env *e)
{
    static struct answer a;
    int rc = ask_key(t, e, "a", "hang", &a);

    if (rc != -ETIMEDOUT || strstr(a.why.text, "50 ms") == NULL)
        return -EILSEQ;
    if (rt_task_cancelled(t)) /* the deadline was the query's, not the task's */
        return -EILSEQ;
    query_stats(t, e->svc, &stats);
    return 0;
}

static void test_timeout(void **state)
{
    struct env e = {.mode = "echo", .test = timeout_task, .cfg.timeout_ns = 50 * NS_PER_MS};

    (void)state;
    run_env(&e, 1);
    assert_int_equal(stats.timed_out, 1);
    assert_int_equal(stats.worker_deaths, 0);
}

static int end_task(struct rt_task *t, struct env *e)
{
    struct asker *k = calloc(3, sizeof(*k));
    unsigned order = 0;
    int rc;

    for (unsigned i = 0; i < 3; i++)
        k[i] = (struct asker){.e = e, .who = "", .sql = "hang", .order = &order};
    rc = start_askers(t, k, 3);
    rt_sleep(t, 50 * NS_PER_MS);
    query_service_free(t, e->svc);
    e->svc = NULL;
    join_askers(t, k, 3);
    for (unsigned i = 0; i < 3; i++)
        if (k[i].a.rc != -ECANCELED)
            rc = -EILSEQ;
    free(k);
    return rc;
}

static void test_end(void **state)
{
    struct env e = {.mode = "echo", .test = end_task, .cfg = {.workers_max = 2}};

    (void)state;
    run_env(&e, 2);
}

/* --- workers that do not keep to the rules ---------------------------------------------------- */

static int twice_task(struct rt_task *t, struct env *e)
{
    static struct answer again;

    if (e->new_rc < 0)
        return e->new_rc;
    ask_key(t, e, "a", "select", &got);
    again = (struct answer){.rc = 1};
    ask_key(t, e, "a", "select", &again);
    query_stats(t, e->svc, &stats);
    return again.rc == got.rc ? 0 : -EILSEQ; /* it takes nothing else along */
}

static const struct {
    const char *mode;
    int rc;
    const char *text;
} bad[] = {
    {"silent", -ETIMEDOUT, "longer than"},
    {"stubborn", -EPIPE, "closed its end"},
    {"exit", -EPIPE, "exit status 3"},
    {"crash", -EPIPE, "crashed (signal"},
    {"sigsys", -EPIPE, "touched what it may not"},
    {"sigxcpu", -ETIMEDOUT, "seconds of a processor"},
    {"bad-type", -EPIPE, "makes no sense"},
    {"daemons-type", -EPIPE, "makes no sense"},
    {"oversized", -EPIPE, "makes no sense"},
    {"half-head", -EPIPE, "exit status 3"},
    {"half-result", -EPIPE, "exit status 3"},
    {"bad-object", -EPIPE, "not its own"},
    {"bad-slot", -EPIPE, "makes no sense"},
    {"bad-want", -EPIPE, "makes no sense"},
    {"slot-twice", -EPIPE, "twice"},
    {"deaf", -EPIPE, "does not take"},
    {"not-json", -EPIPE, "makes no sense"},
    {"no-rc", -EPIPE, "makes no sense"},
    {"schema-twice", -EPIPE, "schema twice"},
    {"odd-rc", -EIO, "odd[2J"},
    {"write-window", -EPIPE, "signal"},
    {"flood", -EDQUOT, "longer than"},
};

static void test_bad(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct env e = {
            .mode = bad[i].mode,
            .test = twice_task,
            .cfg = {.timeout_ns = 700 * NS_PER_MS, .result_bytes_max = 20 * MIB, .workers_max = 2}};

        got = (struct answer){.rc = 1};
        run_env(&e, 1);
        if (got.rc != bad[i].rc || strstr(got.why.text, bad[i].text) == NULL)
            print_error("%s: %d %s\n", bad[i].mode, got.rc, got.why.text);
        assert_int_equal(got.rc, bad[i].rc);
        assert_non_null(strstr(got.why.text, bad[i].text));
    }
}

/* What workers said of the columns: to those who asked them, and not when it is too long. */

static struct answer remembered[3];

static int remember_task(struct rt_task *t, struct env *e)
{
    static const char *const who[] = {"this host", "this host", "another"};
    struct bytes k = bytes_of_str("a");

    for (unsigned i = 0; e->new_rc == 0 && i < ARRAY_LEN(who); i++) {
        struct kv_select q = {.keys = &k,
                              .nkeys = 1,
                              .sql = bytes_of_str("select"),
                              .who = bytes_of_str(who[i]),
                              .input = KV_SELECT_CSV,
                              .output = KV_SELECT_CSV};

        ask_with(t, e, &q, &remembered[i]);
    }
    return e->new_rc;
}

static void test_remembers(void **state)
{
    static const char *const want[][3] = {{"x,y\n1,2\n", "known:x,y\n1,2\n", "x,y\n1,2\n"},
                                          {"", "", ""}};
    static const char *const modes[] = {"echo", "long-schema"};

    (void)state;
    for (unsigned m = 0; m < ARRAY_LEN(modes); m++) {
        struct env e = {.mode = modes[m], .test = remember_task};

        memset(remembered, 0, sizeof(remembered));
        run_env(&e, 1);
        for (unsigned i = 0; i < ARRAY_LEN(remembered); i++) {
            assert_int_equal(remembered[i].rc, 0);
            assert_string_equal(remembered[i].text, want[m][i]);
        }
    }
}

static int zygote_task(struct rt_task *t, struct env *e)
{
    static struct answer a;
    int rc = ask_key(t, e, "a", "kill zygote hang", &a);

    if (rc != -EPIPE && rc != -ETIMEDOUT)
        return -EILSEQ;
    got = (struct answer){.rc = 1};
    return ask_key(t, e, "a", "select", &got);
}

static void test_zygote_dies(void **state)
{
    struct env e = {.mode = "echo", .test = zygote_task, .cfg.timeout_ns = NS_PER_S};

    (void)state;
    run_env(&e, 1);
}

static int none_task(struct rt_task *t, struct env *e)
{
    (void)t;
    return e->new_rc == -ENOTSUP && e->svc == NULL ? 0 : -EILSEQ;
}

static void test_no_engine(void **state)
{
    static const char *const modes[] = {"no-engine", "odd-engine", "other-version", "dies"};
    static const char *const texts[] = {"make deps", "no ??ngine[1m here ?", "another version",
                                        "ended before"};
    struct env e = {.mode = "no-engine", .test = none_task};
    const char *told = getenv("KVASIR_QUERY_WORKER");
    CLEANUP(free_p) char *kept = told != NULL ? strdup(told) : NULL;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(modes); i++) {
        e.mode = modes[i];
        run_env(&e, 1);
        assert_non_null(strstr(e.why.text, texts[i]));
    }
    setenv("KVASIR_QUERY_WORKER", "/nowhere/kvasir-query", 1);
    e.mode = NULL;
    e.cfg = (struct query_config){0};
    run_env(&e, 1);
    unsetenv("KVASIR_QUERY_WORKER");
    if (kept != NULL)
        setenv("KVASIR_QUERY_WORKER", kept, 1);
    assert_non_null(strstr(e.why.text, "/nowhere"));
}

/* --- the real one ----------------------------------------------------------------------------- */

static int real_task(struct rt_task *t, struct env *e)
{
    got = (struct answer){.rc = 1};
    if (e->new_rc == 0)
        ask_key(t, e, "a", "select x + y as s from s3object", &got);
    return 0;
}

static void test_real(void **state)
{
    struct env e = {.test = real_task};

    (void)state;
    run_env(&e, 1);
    if (e.new_rc == -ENOTSUP) {
        print_message("skipped: %s\n", e.why.text);
        skip();
    }
    if (got.rc < 0)
        print_error("%d %s\n", got.rc, got.why.text);
    assert_int_equal(got.rc, 0);
    assert_string_equal(got.text, "3\n");
    assert_int_equal(got.res.rows, 1);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one),          cmocka_unit_test(test_many),
        cmocka_unit_test(test_errors),       cmocka_unit_test(test_big),
        cmocka_unit_test(test_result_limit), cmocka_unit_test(test_fair),
        cmocka_unit_test(test_crowd),        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_timeout),      cmocka_unit_test(test_end),
        cmocka_unit_test(test_remembers),    cmocka_unit_test(test_bad),
        cmocka_unit_test(test_zygote_dies),  cmocka_unit_test(test_no_engine),
        cmocka_unit_test(test_real),
    };

    test_worker_main(argc, argv);
    if (readlink("/proc/self/exe", self, sizeof(self) - 1) < 0)
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
