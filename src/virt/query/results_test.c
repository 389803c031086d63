/* SPDX-License-Identifier: Apache-2.0 */
/* The store of finished results: numbers, limits, files, who sees what and when it goes. */
#include "virt/query/results.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "line %d: %s\n", __LINE__, #cond);                                     \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)

static int run(rt_task_fn fn)
{
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = 1u << 20};
    struct err why = {""};
    int rc = rt_run(&cfg, fn, NULL, &why);

    if (rc < 0)
        print_error("line %d (%s)\n", -rc, why.text);
    return rc;
}

#define TEST(name)                                                                                 \
    static void name(void **state)                                                                 \
    {                                                                                              \
        assert_int_equal(run(name##_body), 0);                                                     \
    }

static struct query_result_of of(const char *owner, uint64_t place, uint64_t session)
{
    return (struct query_result_of){
        .owner = bytes_of_str(owner), .place = place, .session = session};
}

static void fill(uint8_t *buf, size_t len, uint64_t off, unsigned seed)
{
    for (size_t i = 0; i < len; i++)
        buf[i] = (uint8_t)((off + i) * 31 + ((off + i) >> 8) + seed);
}

/* A result of `len` bytes made in steps; its number, or a negative errno. */
static int64_t make(struct rt_task *t, struct query_results *s, struct query_result_of who,
                    uint64_t len, size_t step, unsigned seed)
{
    struct query_result_about about = {.rows = seed};
    CLEANUP(free_p) uint8_t *buf = malloc(step);
    struct query_result *r;
    int64_t id;
    int rc = query_result_new(s, &who, &r);

    for (uint64_t off = 0; off < len && rc == 0; off += step) {
        size_t n = MIN(step, len - off);

        fill(buf, n, off, seed);
        rc = query_result_add(t, r, buf, n);
    }
    id = rc < 0 ? rc : (int64_t)query_result_finish(r, &about);
    query_result_put(r);
    return id;
}

/* Whether a result is there with the bytes that make() gave it. */
static bool is_there(struct rt_task *t, struct query_results *s, struct query_result_of who,
                     uint32_t id, uint64_t len, size_t step, unsigned seed)
{
    struct query_result *r = query_result_get(s, &who, id);
    CLEANUP(free_p) uint8_t *want = malloc(step);
    CLEANUP(free_p) uint8_t *got = malloc(step);
    bool ok = r != NULL && query_result_bytes(r) == len && query_result_about(r)->rows == seed;

    for (uint64_t off = 0; off < len && ok; off += step) {
        size_t n = MIN(step, len - off);

        fill(want, n, off, seed);
        ok = query_result_read(t, r, off, got, n) == 0 && memcmp(got, want, n) == 0;
    }
    query_result_put(r);
    return ok;
}

/* --- numbers ---------------------------------------------------------------------------------- */

static int numbers_body(struct rt_task *t, void *arg)
{
    struct query_results_config cfg = {0};
    struct query_result_of a = of("a", 1, 1), b = of("b", 1, 2);
    struct query_results *s;
    struct query_result *r;

    CHECK(query_results_new(&cfg, &s) == 0);
    for (uint32_t i = 0; i < 32; i++)
        CHECK(make(t, s, a, 10, 10, i) == 32 + i);
    for (uint32_t i = 0; i < 32; i++)
        CHECK(is_there(t, s, a, 32 + i, 10, 7, i));
    /* The 33rd takes the place of the oldest; another owner's have nothing to do with it. */
    CHECK(make(t, s, b, 10, 10, 5) == 32);
    CHECK(make(t, s, a, 10, 10, 99) == 64);
    CHECK(query_result_get(s, &a, 32) == NULL);
    CHECK(is_there(t, s, a, 33, 10, 10, 1));
    CHECK(is_there(t, s, a, 64, 10, 10, 99));
    /* A slot that was freed is the next one whose number is higher. */
    r = query_result_get(s, &a, 40);
    CHECK(r != NULL);
    query_result_drop(r);
    CHECK(query_result_get(s, &a, 40) == NULL);
    CHECK(query_result_bytes(r) == 10); /* still held */
    query_result_put(r);
    CHECK(make(t, s, a, 10, 10, 3) == 72);
    CHECK(is_there(t, s, a, 33, 10, 10, 1)); /* nobody had to go for it */
    /* Not found: another's, another place, none at all. */
    CHECK(query_result_get(s, &b, 33) == NULL);
    a.place = 2;
    CHECK(query_result_get(s, &a, 33) == NULL);
    a = of("c", 1, 1);
    CHECK(query_result_get(s, &a, 33) == NULL);
    CHECK(query_result_get(s, &b, 0) == NULL);
    CHECK(query_result_get(s, &b, UINT32_MAX) == NULL);
    query_results_free(s);
    return 0;
}
TEST(numbers)

static int errors_body(struct rt_task *t, void *arg)
{
    struct query_results_config cfg = {0};
    struct query_result_about about = {.is_error = true};
    struct query_result_of a = of("a", 1, 1);
    struct query_results_stats st;
    struct query_results *s;
    struct query_result *r;

    CHECK(query_results_new(&cfg, &s) == 0);
    CHECK(make(t, s, a, 10, 10, 1) == 32);
    /* However many statements fail: answers are not lost for their texts. */
    for (unsigned i = 0; i < 100; i++) {
        CHECK(query_result_new(s, &a, &r) == 0);
        CHECK(query_result_add(t, r, "no such column", 14) == 0);
        query_result_finish(r, &about);
        query_result_put(r);
    }
    CHECK(is_there(t, s, a, 32, 10, 10, 1));
    query_results_stats(s, &st);
    CHECK(st.results == 1 + QUERY_ERRORS_MAX);
    CHECK(st.bytes == 10 + QUERY_ERRORS_MAX * 14);
    query_results_free(s);
    return 0;
}
TEST(errors)

/* --- limits ----------------------------------------------------------------------------------- */

static int files_body(struct rt_task *t, void *arg)
{
    char dir[] = "/tmp/kvasir-results-XXXXXX";
    struct query_results_config cfg = {
        .dir = mkdtemp(dir), .mem_one_max = 100000, .mem_bytes_max = 150000};
    struct query_result_of a = of("a", 1, 1);
    struct query_results_stats st;
    struct query_results *s;

    CHECK(cfg.dir != NULL);
    CHECK(query_results_new(&cfg, &s) == 0);
    CHECK(make(t, s, a, 100000, 3333, 1) == 32);
    query_results_stats(s, &st);
    CHECK(st.spilled == 0 && st.mem_bytes == 100000);
    CHECK(make(t, s, a, 100001, 100001, 2) == 33);
    CHECK(make(t, s, a, 5000000, 70000, 3) == 34);
    query_results_stats(s, &st);
    CHECK(st.spilled == 2 && st.mem_bytes == 100000 && st.bytes == 5200001);
    /* Small, but memory is used up: a file as well. */
    CHECK(make(t, s, a, 60000, 1000, 4) == 35);
    query_results_stats(s, &st);
    CHECK(st.spilled == 3 && st.mem_bytes == 100000);
    CHECK(is_there(t, s, a, 32, 100000, 999, 1));
    CHECK(is_there(t, s, a, 33, 100001, 5000, 2));
    CHECK(is_there(t, s, a, 34, 5000000, 123457, 3));
    CHECK(is_there(t, s, a, 35, 60000, 60000, 4));
    query_results_drop_session(s, 1);
    query_results_stats(s, &st);
    CHECK(st.bytes == 0 && st.mem_bytes == 0 && st.results == 0 && st.dropped == 4);
    query_results_free(s);
    CHECK(rmdir(dir) == 0); /* nothing is left in it */
    return 0;
}
TEST(files)

static int no_directory_body(struct rt_task *t, void *arg)
{
    struct query_results_config cfg = {.mem_bytes_max = 100000};
    struct query_result_of a = of("a", 1, 1);
    struct query_results_stats st;
    struct query_results *s;

    CHECK(query_results_new(&cfg, &s) == 0);
    CHECK(make(t, s, a, 100001, 1000, 1) == -EDQUOT);
    CHECK(make(t, s, a, 100000, 1000, 1) == 32);
    CHECK(make(t, s, a, 5000, 1000, 1) == -EDQUOT);
    query_results_stats(s, &st);
    CHECK(st.bytes == 100000 && st.mem_bytes == 100000);
    query_results_free(s);

    cfg = (struct query_results_config){.dir = "/nonexistent", .mem_one_max = 10};
    CHECK(query_results_new(&cfg, &s) == 0);
    CHECK(make(t, s, a, 11, 11, 1) == -ENOENT);
    query_results_stats(s, &st);
    CHECK(st.bytes == 0);
    query_results_free(s);
    return 0;
}
TEST(no_directory)

static int owner_limit_body(struct rt_task *t, void *arg)
{
    struct query_results_config cfg = {.owner_bytes_max = 10000, .bytes_max = 25000};
    struct query_result_of a = of("a", 1, 1), b = of("b", 1, 1), c = of("c", 1, 1);
    struct query_results_stats st;
    struct query_results *s;
    struct query_result *held;

    CHECK(query_results_new(&cfg, &s) == 0);
    CHECK(make(t, s, a, 4000, 100, 1) == 32);
    CHECK(make(t, s, a, 4000, 100, 2) == 33);
    CHECK(make(t, s, b, 10000, 100, 3) == 32);
    /* The oldest of that owner goes, and only as many as have to. */
    CHECK(make(t, s, a, 4000, 100, 4) == 34);
    CHECK(query_result_get(s, &a, 32) == NULL);
    CHECK(is_there(t, s, a, 33, 4000, 100, 2));
    CHECK(is_there(t, s, b, 32, 10000, 100, 3));
    /* One that can never fit: refused. It has cost the older ones. */
    CHECK(make(t, s, a, 10001, 100, 5) == -EDQUOT);
    CHECK(query_result_get(s, &a, 33) == NULL && query_result_get(s, &a, 34) == NULL);
    CHECK(make(t, s, a, 10000, 100, 6) == 35);
    /* The sum of all: nobody loses something for another. */
    CHECK(make(t, s, c, 5001, 100, 7) == -EDQUOT);
    CHECK(make(t, s, c, 5000, 100, 8) == 32);
    CHECK(is_there(t, s, a, 35, 10000, 100, 6) && is_there(t, s, b, 32, 10000, 100, 3));
    /* What somebody reads counts until he is done. */
    held = query_result_get(s, &b, 32);
    CHECK(make(t, s, b, 5000, 100, 9) == -EDQUOT);
    CHECK(query_result_get(s, &b, 32) == NULL);
    CHECK(query_result_bytes(held) == 10000);
    query_result_put(held);
    CHECK(make(t, s, b, 10000, 100, 10) == 33);
    query_results_stats(s, &st);
    CHECK(st.bytes == 25000 && st.evicted == 4);
    query_results_free(s);
    return 0;
}
TEST(owner_limit)

/* --- when they go ----------------------------------------------------------------------------- */

static int going_body(struct rt_task *t, void *arg)
{
    struct query_results_config cfg = {.idle_ns = 50 * NS_PER_MS};
    struct query_result_of a1 = of("a", 1, 1), a2 = of("a", 2, 2);
    struct query_results_stats st;
    struct query_results *s;

    CHECK(query_results_new(&cfg, &s) == 0);
    CHECK(make(t, s, a1, 10, 10, 1) == 32);
    CHECK(make(t, s, a2, 10, 10, 2) == 33);
    CHECK(make(t, s, a1, 10, 10, 3) == 34);
    query_results_drop_session(s, 2);
    CHECK(query_result_get(s, &a2, 33) == NULL && is_there(t, s, a1, 32, 10, 10, 1));
    CHECK(make(t, s, a2, 10, 10, 4) == 35);
    query_results_drop_place(s, 1);
    CHECK(query_result_get(s, &a1, 32) == NULL && query_result_get(s, &a1, 34) == NULL);
    CHECK(is_there(t, s, a2, 35, 10, 10, 4));
    CHECK(make(t, s, a2, 10, 10, 5) == 36);
    /* By age: those that nobody has read. */
    CHECK(rt_sleep(t, 30 * NS_PER_MS) == 0);
    CHECK(is_there(t, s, a2, 36, 10, 10, 5));
    CHECK(rt_sleep(t, 30 * NS_PER_MS) == 0);
    query_results_expire(s);
    CHECK(query_result_get(s, &a2, 35) == NULL && is_there(t, s, a2, 36, 10, 10, 5));
    query_results_stats(s, &st);
    CHECK(st.expired == 1 && st.dropped == 3 && st.results == 1 && st.bytes == 10);
    /* An empty one is a result too. */
    CHECK(make(t, s, a1, 0, 1, 6) == 37);
    CHECK(is_there(t, s, a1, 37, 0, 1, 6));
    query_results_free(s);
    return 0;
}
TEST(going)

/* Owners come and go: what is kept of them is bounded. */
static int owners_body(struct rt_task *t, void *arg)
{
    struct query_results_config cfg = {0};
    struct query_results_stats st;
    struct query_results *s;
    char name[32];

    CHECK(query_results_new(&cfg, &s) == 0);
    for (unsigned i = 0; i < 5000; i++) {
        snprintf(name, sizeof(name), "host %u", i);
        CHECK(make(t, s, of(name, 1, i + 1), 10, 10, 1) == 32);
        query_results_drop_session(s, i + 1);
    }
    query_results_stats(s, &st);
    CHECK(st.owners <= 256 && st.bytes == 0);
    query_results_free(s);
    return 0;
}
TEST(owners)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers),      cmocka_unit_test(errors),      cmocka_unit_test(files),
        cmocka_unit_test(no_directory), cmocka_unit_test(owner_limit), cmocka_unit_test(going),
        cmocka_unit_test(owners),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
