/* SPDX-License-Identifier: Apache-2.0 */
/* What is special about dir: layout, other people's files, leftovers, an index too small. */
#include "kv/drivers/dir/dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <unistd.h>
#include <cmocka.h>

#define CHECK(cond)                                                                                \
    do {                                                                                           \
        if (!(cond)) {                                                                             \
            fprintf(stderr, "line %d: %s\n", __LINE__, #cond);                                     \
            return -__LINE__;                                                                      \
        }                                                                                          \
    } while (0)

static char root[64];

static int setup(void **state)
{
    snprintf(root, sizeof(root), "/tmp/kvasir-dir-test-XXXXXX");
    return mkdtemp(root) == NULL ? -1 : 0;
}

static int teardown(void **state)
{
    char cmd[128];

    snprintf(cmd, sizeof(cmd), "rm -rf '%s'", root);
    return system(cmd);
}

/* A path below the namespace directory. Two at a time. */
static const char *in_ns(const char *name)
{
    static char path[2][600];
    static unsigned i;

    i ^= 1;
    snprintf(path[i], sizeof(path[i]), "%s/0/1/%s", root, name);
    return path[i];
}

static void put_file(const char *path, const char *text)
{
    int fd = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0666);

    must(fd >= 0);
    must(write(fd, text, strlen(text)) == (ssize_t)strlen(text));
    close(fd);
}

struct with_chan {
    const char *query;
    int (*fn)(struct rt_task *t, struct kv_chan *ch);
};

static int with_chan(struct rt_task *t, void *arg)
{
    const struct with_chan *w = arg;
    struct kv_dev *dev;
    struct kv_chan *ch;
    struct err why = {""};
    char uri[200];
    int rc;

    snprintf(uri, sizeof(uri), "dir:%s%s", root, w->query);
    if (kv_open(t, uri, &dev, &why) < 0) {
        fprintf(stderr, "%s\n", why.text);
        return -1;
    }
    CHECK(kv_chan_get(t, dev, &ch) == 0);
    rc = w->fn(t, ch);
    kv_chan_put(t, ch);
    kv_close(t, dev);
    return rc;
}

static void run(const char *query, int (*fn)(struct rt_task *, struct kv_chan *))
{
    struct with_chan w = {.query = query, .fn = fn};

    for (unsigned backend = RT_BACKEND_AUTO; backend <= RT_BACKEND_EPOLL;
         backend += RT_BACKEND_EPOLL) {
        struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = MIB, .backend = backend};

        assert_int_equal(rt_run(&cfg, with_chan, &w, NULL), 0);
    }
}

/* All keys from the start, pages of `max` bytes, checked to ascend. Returns the count or -line. */
static int count_keys(struct rt_task *t, struct kv_chan *ch, struct bytes prefix, size_t max)
{
    static uint8_t buf[65536], last[KV_KEY_MAX];
    struct bytes from = bytes_make(last, 0), key;
    uint32_t flags = 0;
    bool more = true;
    int n = 0;

    while (more) {
        struct kv_list_iter it;
        size_t moved;

        CHECK(kv_list(t, ch, from, prefix, flags, buf, max, &moved, &more) == 0);
        CHECK(moved > 0 || !more);
        for (it = kv_list_begin(buf, moved); kv_list_next(&it, &key); n++) {
            CHECK(n == 0 || bytes_cmp(key, from) > 0);
            CHECK(bytes_has_prefix(key, prefix));
            memcpy(last, key.ptr, key.len);
            from = bytes_make(last, key.len);
        }
        flags = KV_F_AFTER;
    }
    return n;
}

static struct bytes none(void)
{
    return bytes_make("", 0);
}

/* --- names ------------------------------------------------------------------------------------ */

static void test_names(void **state)
{
    uint8_t key[128];
    size_t len;
    char name[300];

    assert_int_equal(dir_name_parse("42", key, &len), DIR_NAME_KEY);
    assert_int_equal(len, 1);
    assert_int_equal(key[0], 'B');
    assert_int_equal(dir_name_parse("00FF", key, &len), DIR_NAME_KEY);
    assert_int_equal(dir_name_parse("", key, &len), DIR_NAME_OTHER);
    assert_int_equal(dir_name_parse("4", key, &len), DIR_NAME_OTHER);
    assert_int_equal(dir_name_parse("4a", key, &len), DIR_NAME_OTHER);
    assert_int_equal(dir_name_parse("4G", key, &len), DIR_NAME_OTHER);
    assert_int_equal(dir_name_parse("42_", key, &len), DIR_NAME_OTHER);
    assert_int_equal(dir_name_parse(DIR_TEMP, key, &len), DIR_NAME_OTHER);
    memset(name, 'A', sizeof(name));
    name[254] = '\0';
    assert_int_equal(dir_name_parse(name, key, &len), DIR_NAME_KEY);
    assert_int_equal(len, 127);
    name[254] = '_';
    name[255] = '\0';
    assert_int_equal(dir_name_parse(name, key, &len), DIR_NAME_SPREAD);
    name[254] = 'A';
    assert_int_equal(dir_name_parse(name, key, &len), DIR_NAME_OTHER);
}

/* --- layout and other people's files ---------------------------------------------------------- */

static int layout(struct rt_task *t, struct kv_chan *ch)
{
    uint64_t len;
    char buf[64] = "";

    CHECK(kv_store(t, ch, bytes_of_str("B"), bytes_of_str("hello"), 0) == 0);
    CHECK(access(in_ns("42"), F_OK) == 0);

    put_file(in_ns("43"), "theirs");
    put_file(in_ns("readme.txt"), "not a key");
    put_file(in_ns("4a"), "lower case is no key's name");
    put_file(in_ns("444"), "nor is an odd number of digits");
    CHECK(mkdir(in_ns("45"), 0777) == 0 || errno == EEXIST);
    CHECK(symlink("/etc/passwd", in_ns("46")) == 0 || errno == EEXIST);
    CHECK(mkfifo(in_ns("47"), 0666) == 0 || errno == EEXIST);

    CHECK(kv_retrieve(t, ch, bytes_of_str("C"), buf, sizeof(buf), &len) == 0);
    CHECK(len == 6);
    CHECK(memcmp(buf, "theirs", 6) == 0);
    CHECK(kv_retrieve(t, ch, bytes_of_str("E"), buf, sizeof(buf), &len) == -ENOENT);
    CHECK(kv_retrieve(t, ch, bytes_of_str("F"), buf, sizeof(buf), &len) == -ENOENT);
    CHECK(kv_retrieve(t, ch, bytes_of_str("G"), buf, sizeof(buf), &len) == -ENOENT);
    CHECK(kv_stat(t, ch, bytes_of_str("G"), &len, NULL) == -ENOENT);
    CHECK(kv_delete(t, ch, bytes_of_str("F")) == -ENOENT);
    CHECK(kv_store(t, ch, bytes_of_str("E"), bytes_of_str("x"), 0) == -EACCES);
    CHECK(count_keys(t, ch, none(), 4096) == 2);

    /* What others add and take away shows in the next list. */
    put_file(in_ns("48"), "new");
    CHECK(count_keys(t, ch, none(), 4096) == 3);
    CHECK(unlink(in_ns("48")) == 0);
    CHECK(count_keys(t, ch, none(), 4096) == 2);
    CHECK(kv_delete(t, ch, bytes_of_str("C")) == 0);
    CHECK(access(in_ns("43"), F_OK) != 0);
    CHECK(access(in_ns("readme.txt"), F_OK) == 0);
    return 0;
}

static void test_layout(void **state)
{
    run("", layout);
}

static int read_only(struct rt_task *t, struct kv_chan *ch)
{
    char buf[16];
    uint64_t len;

    CHECK(kv_retrieve(t, ch, bytes_of_str("B"), buf, sizeof(buf), &len) == 0);
    CHECK(kv_store(t, ch, bytes_of_str("B"), bytes_of_str("x"), 0) == -EROFS);
    CHECK(kv_delete(t, ch, bytes_of_str("B")) == -EROFS);
    CHECK(access(in_ns(DIR_TEMP), F_OK) != 0);
    return 0;
}

static void test_read_only(void **state)
{
    char path[100];

    snprintf(path, sizeof(path), "mkdir -p %s/0/1", root);
    assert_int_equal(system(path), 0);
    put_file(in_ns("42"), "x");
    run("?read_only=yes", read_only);
}

/* --- long keys -------------------------------------------------------------------------------- */

static const size_t lens[] = {126, 127, 128, 129, 253, 254, 255, 300, 2000, 2032, 2033, 2048};

static int long_keys(struct rt_task *t, struct kv_chan *ch)
{
    static uint8_t key[KV_KEY_MAX];
    uint64_t len;
    char buf[16];
    DIR *dp;

    for (unsigned i = 0; i < sizeof(key); i++)
        key[i] = (uint8_t)(i * 3);
    for (unsigned i = 0; i < ARRAY_LEN(lens); i++)
        CHECK(kv_store(t, ch, bytes_make(key, lens[i]), bytes_make(&lens[i], sizeof(lens[i])),
                       KV_F_MUST_NOT_EXIST) == 0);
    CHECK(kv_store(t, ch, bytes_make(key, 300), none(), KV_F_MUST_NOT_EXIST) == -EEXIST);
    for (unsigned i = 0; i < ARRAY_LEN(lens); i++) {
        CHECK(kv_retrieve(t, ch, bytes_make(key, lens[i]), buf, sizeof(buf), &len) == 0);
        CHECK(memcmp(buf, &lens[i], sizeof(lens[i])) == 0);
    }
    CHECK(kv_store(t, ch, bytes_of_str("\xff"), none(), 0) == 0);
    CHECK(count_keys(t, ch, none(), 2100) == (int)ARRAY_LEN(lens) + 1);
    CHECK(count_keys(t, ch, bytes_make(key, 254), 2100) == 7);
    CHECK(count_keys(t, ch, bytes_make(key, 1500), 2100) == 4);
    CHECK(kv_delete(t, ch, bytes_make(key, 2000)) == 0); /* the index holds it */
    CHECK(count_keys(t, ch, bytes_make(key, 1500), 2100) == 3);
    for (unsigned i = 0; i < ARRAY_LEN(lens); i++)
        CHECK(kv_delete(t, ch, bytes_make(key, lens[i])) == (lens[i] == 2000 ? -ENOENT : 0));
    CHECK(kv_delete(t, ch, bytes_of_str("\xff")) == 0);
    CHECK(count_keys(t, ch, none(), 2100) == 0);
    /* The directories they stood in are gone: ".", "..", DIR_TEMP. */
    dp = opendir(in_ns(""));
    for (int n = 0;; n++) {
        if (readdir(dp) == NULL) {
            closedir(dp);
            CHECK(n == 3);
            break;
        }
    }
    return 0;
}

static void test_long_keys(void **state)
{
    run("", long_keys);
    run("?sync=no", long_keys);
}

/* --- leftovers -------------------------------------------------------------------------------- */

static int nothing(struct rt_task *t, struct kv_chan *ch)
{
    return kv_store(t, ch, bytes_of_str("k"), bytes_of_str("v"), 0);
}

static void make_leftover(const char *id)
{
    char cmd[300];

    snprintf(cmd, sizeof(cmd), "mkdir -p %s && cd %s && mkdir %s && echo x >%s/17 && : >%s/lock",
             in_ns(DIR_TEMP), in_ns(DIR_TEMP), id, id, id);
    assert_int_equal(system(cmd), 0);
}

static void test_leftovers(void **state)
{
    char lock[700];
    int fd;

    make_leftover("0123456789abcdef"); /* of a process that is gone */
    make_leftover("fedcba9876543210"); /* of one that lives */
    snprintf(lock, sizeof(lock), "%s/fedcba9876543210/lock", in_ns(DIR_TEMP));
    fd = open(lock, O_RDWR);
    assert_int_equal(flock(fd, LOCK_EX), 0);
    run("", nothing);
    snprintf(lock, sizeof(lock), "%s/0123456789abcdef", in_ns(DIR_TEMP));
    assert_int_not_equal(access(lock, F_OK), 0);
    snprintf(lock, sizeof(lock), "%s/fedcba9876543210/17", in_ns(DIR_TEMP));
    assert_int_equal(access(lock, F_OK), 0);
    close(fd);
    run("", nothing);
    assert_int_not_equal(access(in_ns(DIR_TEMP), F_OK), 0); /* nobody uses it any more */
}

static int submit(struct rt_task *t, struct kv_chan *ch, struct kv_req *req)
{
    rt_req_init_task(&req->req, t);
    kv_submit(ch, req);
    return rt_wait(t, &req->req);
}

/* Everything that ends without a value: no temporary file stays. */
static int dead_ends(struct rt_task *t, struct kv_chan *ch)
{
    uint8_t data[1000] = {0};
    struct iovec iov = {.iov_base = data, .iov_len = sizeof(data)};
    struct kv_req req = {
        .op = KV_STORE_OPEN, .key = bytes_of_str("a"), .len = 2000, .iov = &iov, .iovcnt = 1};
    uint64_t version;

    CHECK(submit(t, ch, &req) == 0);
    req.op = KV_WRITE;
    req.len = 1000;
    CHECK(submit(t, ch, &req) == 0);
    req.op = KV_ABORT;
    CHECK(submit(t, ch, &req) == 0);

    req = (struct kv_req){.op = KV_STORE_OPEN, .key = bytes_of_str("a"), .len = 0};
    CHECK(submit(t, ch, &req) == 0);
    CHECK(kv_store(t, ch, bytes_of_str("a"), bytes_of_str("x"), KV_F_MUST_NOT_EXIST) == 0);
    req.op = KV_ABORT;
    CHECK(submit(t, ch, &req) == 0);
    CHECK(kv_store(t, ch, bytes_of_str("a"), bytes_of_str("x"), KV_F_MUST_NOT_EXIST) == -EEXIST);
    CHECK(kv_store(t, ch, bytes_of_str("b"), bytes_of_str("x"), KV_F_MUST_EXIST) == -ENOENT);
    CHECK(kv_store(t, ch, bytes_of_str("a"), bytes_of_str("x"), KV_F_APPEND) == 0);
    CHECK(kv_stat(t, ch, bytes_of_str("a"), NULL, &version) == 0);
    req = (struct kv_req){
        .op = KV_STORE, .flags = KV_F_IF_VERSION, .key = bytes_of_str("a"), .version = version + 1};
    CHECK(submit(t, ch, &req) == -ESTALE);
    for (unsigned yields = 0; yields < 12; yields++) {
        req = (struct kv_req){
            .op = KV_STORE, .key = bytes_of_str("a"), .iov = &iov, .iovcnt = 1, .len = 1000};
        rt_req_init_task(&req.req, t);
        kv_submit(ch, &req);
        for (unsigned i = 0; i < yields; i++)
            (void)rt_sleep(t, 20 * NS_PER_US);
        rt_req_cancel(&req.req);
        CHECK(rt_wait(t, &req.req) <= 0);
    }
    return kv_delete(t, ch, bytes_of_str("a"));
}

static void test_dead_ends(void **state)
{
    run("", dead_ends);
    assert_int_not_equal(access(in_ns(DIR_TEMP), F_OK), 0); /* only an empty one can be removed */
}

/* --- a full disk ------------------------------------------------------------------------------ */

static int full(struct rt_task *t, struct kv_chan *ch)
{
    CLEANUP(free_p) uint8_t *val = calloc(1, 200000);
    char key[32], got[8] = "";
    uint64_t len;
    int rc = 0;

    CHECK(kv_store(t, ch, bytes_of_str("first"), bytes_of_str("kept"), 0) == 0);
    for (unsigned i = 0; i < 100 && rc == 0; i++) {
        snprintf(key, sizeof(key), "fill%u", i);
        rc = kv_store(t, ch, bytes_of_str(key), bytes_make(val, 200000), 0);
    }
    CHECK(rc == -ENOSPC);
    CHECK(kv_stat(t, ch, bytes_of_str(key), NULL, NULL) == -ENOENT);
    CHECK(kv_store(t, ch, bytes_of_str("first"), bytes_make(val, 200000), 0) == -ENOSPC);
    CHECK(kv_retrieve(t, ch, bytes_of_str("first"), got, sizeof(got), &len) == 0);
    CHECK(len == 4);
    CHECK(memcmp(got, "kept", 4) == 0);
    CHECK(kv_delete(t, ch, bytes_of_str("fill0")) == 0);
    CHECK(kv_store(t, ch, bytes_of_str("first"), bytes_make(val, 100000), 0) == 0);
    return 0;
}

static void test_full_disk(void **state)
{
    struct with_chan w = {.query = "", .fn = full};
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = MIB};

    if (mount("tmpfs", root, "tmpfs", 0, "size=1M") != 0)
        skip(); /* takes a privilege */
    assert_int_equal(rt_run(&cfg, with_chan, &w, NULL), 0);
    assert_int_equal(umount(root), 0);
}

/* --- an index that is too small --------------------------------------------------------------- */

#define MANY 30000

static int many(struct rt_task *t, struct kv_chan *ch)
{
    char key[64];

    CHECK(count_keys(t, ch, none(), 65536) == MANY);
    CHECK(count_keys(t, ch, bytes_of_str("key-00001"), 4096) == 1000);
    CHECK(count_keys(t, ch, bytes_of_str("key-00029"), 4096) == 1000);
    /* Own changes while the index is in use. */
    snprintf(key, sizeof(key), "key-00029999");
    CHECK(kv_delete(t, ch, bytes_of_str(key)) == 0);
    CHECK(count_keys(t, ch, bytes_of_str("key-00029"), 4096) == 999);
    CHECK(kv_store(t, ch, bytes_of_str(key), none(), 0) == 0);
    CHECK(kv_store(t, ch, bytes_of_str("key-00000000a"), none(), 0) == 0);
    CHECK(count_keys(t, ch, none(), 65536) == MANY + 1);
    CHECK(kv_delete(t, ch, bytes_of_str("key-00000000a")) == 0);
    return 0;
}

static void test_small_index(void **state)
{
    char cmd[100];

    snprintf(cmd, sizeof(cmd), "mkdir -p %s/0/1", root);
    assert_int_equal(system(cmd), 0);
    for (unsigned i = 0; i < MANY; i++) {
        char key[64], name[200];

        snprintf(key, sizeof(key), "key-%08u", i);
        bytes_to_hex(bytes_of_str(key), name);
        put_file(in_ns(name), "");
    }
    run("?index=1M&sync=no", many); /* holds about 15,000 of them */
    run("?sync=no", many);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_names),
        cmocka_unit_test_setup_teardown(test_layout, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_long_keys, setup, teardown),
        cmocka_unit_test_setup_teardown(test_leftovers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_dead_ends, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(test_small_index, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
