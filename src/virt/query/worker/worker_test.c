/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plays the daemon for the real program: starts a zygote, has workers forked, serves their reads
 * from memory and looks at what they answer. Without the engine these tests are skipped.
 */
#include "base/util.h"
#include "virt/query/wire.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define OBJECTS_MAX 4

static int zygote = -1;
static pid_t zygote_pid;
static uint32_t last_tag;

struct object {
    const char *bytes;
    size_t len;
};

struct query {
    const char *sql;
    const char *input, *output;
    const char *more; /* further members of the JSON, each followed by a comma; or NULL */
    struct object objects[OBJECTS_MAX];
    unsigned nobjects;
    int fail_rc; /* of every read; 0: served */
    bool ahead;  /* the first object comes without being asked for */
    /* out */
    char *answer;
    size_t answer_len;
    size_t read_bytes;
    unsigned reads;
    json_t *schema;
    json_t *done; /* NULL: the stream ended without */
    int rc;
    const char *text;
    int status; /* of its process */
};

/* --- the zygote --- */

static void program_path(char *out, size_t size)
{
    char self[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);

    assert_true(n > 0);
    self[n] = 0;
    *strrchr(self, '/') = 0;
    snprintf(out, size, "%.4000s/kvasir-query", self);
}

static struct qw_ctl receive_ctl(void)
{
    struct qw_ctl c;

    assert_int_equal(recv(zygote, &c, sizeof(c), 0), sizeof(c));
    return c;
}

static int start_zygote(void **state)
{
    char path[PATH_MAX];
    struct qw_ctl c;
    int sv[2];

    program_path(path, sizeof(path));
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sv) < 0)
        return -1;
    zygote_pid = fork();
    if (zygote_pid == 0) {
        if (sv[1] == QW_ZYGOTE_FD || dup2(sv[1], QW_ZYGOTE_FD) < 0)
            _exit(1);
        execl(path, path, NULL);
        _exit(1);
    }
    close(sv[1]);
    zygote = sv[0];
    c = receive_ctl();
    if (le32_get(c.type) == QW_READY)
        return 0;
    print_message("skipped: no engine: %s\n", c.text);
    close(zygote);
    zygote = -1;
    return 0;
}

static int stop_zygote(void **state)
{
    int status = -1;

    if (zygote >= 0)
        close(zygote);
    waitpid(zygote_pid, &status, 0);
    return zygote < 0 || status == 0 ? 0 : -1;
}

static void need_engine(void)
{
    if (zygote < 0)
        skip();
}

static void send_ctl(enum qw_ctl_type type, uint32_t tag, const int *fds, unsigned nfds)
{
    struct qw_ctl c = {.type = le32_make(type),
                       .tag = le32_make(tag),
                       .value = le64_make(256 * MIB),
                       .cpu_us = le64_make(20000000)};
    union {
        struct cmsghdr align;
        char buf[CMSG_SPACE(2 * sizeof(int))];
    } control = {0};
    struct iovec iov = {&c, sizeof(c)};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (nfds) {
        struct cmsghdr *h;

        msg.msg_control = control.buf;
        msg.msg_controllen = CMSG_SPACE(nfds * sizeof(int));
        h = CMSG_FIRSTHDR(&msg);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(nfds * sizeof(int));
        memcpy(CMSG_DATA(h), fds, nfds * sizeof(int));
    }
    assert_int_equal(sendmsg(zygote, &msg, 0), sizeof(c));
}

static int spawn(char **out_window, pid_t *out_pid)
{
    struct qw_ctl c;
    int sv[2], fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
    fds[0] = sv[1];
    fds[1] = memfd_create("window", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fds[1], QW_WINDOW_BYTES), 0);
    *out_window = mmap(NULL, QW_WINDOW_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fds[1], 0);
    assert_true(*out_window != MAP_FAILED);
    send_ctl(QW_SPAWN, ++last_tag, fds, 2);
    close(fds[0]);
    close(fds[1]);
    c = receive_ctl();
    assert_int_equal(le32_get(c.type), QW_SPAWNED);
    assert_int_equal(le32_get(c.tag), last_tag);
    assert_true((int64_t)le64_get(c.value) > 0);
    *out_pid = (pid_t)le64_get(c.value);
    return sv[0];
}

/* --- one query --- */

static bool receive(int fd, void *buf, size_t len)
{
    return len == 0 || recv(fd, buf, len, MSG_WAITALL) == (ssize_t)len;
}

static void send_query(int fd, const struct query *q)
{
    struct qw_head h = {.type = le32_make(QW_QUERY)};
    json_t *objects = json_array(), *root;
    char *text, *all;

    for (unsigned i = 0; i < q->nobjects; i++) {
        char name[32];

        snprintf(name, sizeof(name), "object-%u.name", i);
        json_array_append_new(
            objects, json_pack("{s:s, s:I}", "name", name, "size", (json_int_t)q->objects[i].len));
    }
    root = json_pack("{s:s, s:s, s:s, s:o, s:I}", "sql", q->sql, "input", q->input, "output",
                     q->output, "objects", objects, "ahead",
                     q->ahead ? (json_int_t)q->objects[0].len : 0);
    text = json_dumps(root, 0);
    assert_true(asprintf(&all, "{%s%s", q->more ? q->more : "", text + 1) > 0);
    h.len = le32_make((uint32_t)strlen(all));
    assert_int_equal(send(fd, &h, sizeof(h), 0), sizeof(h));
    assert_int_equal(send(fd, all, strlen(all), 0), strlen(all));
    free(all);
    free(text);
    json_decref(root);
}

static void serve_read(int fd, char *window, struct query *q, const struct qw_head *h)
{
    uint64_t object = le64_get(h->a), off = le64_get(h->b);
    size_t want = le32_get(h->want);
    struct qw_head answer = {.type = le32_make(QW_DATA), .slot = h->slot};
    const struct object *o;

    assert_true(object < q->nobjects);
    o = &q->objects[object];
    assert_true(off < o->len);
    if (want > o->len - off)
        want = o->len - off;
    memcpy(window + (size_t)le32_get(h->slot) * QW_SLOT_BYTES, o->bytes + off, want);
    q->reads++;
    q->read_bytes += want;
    answer.a = le64_make(q->fail_rc ? (uint64_t)(int64_t)q->fail_rc : want);
    assert_int_equal(send(fd, &answer, sizeof(answer), 0), sizeof(answer));
}

static json_t *receive_json(int fd, const struct qw_head *h)
{
    char *text = malloc(le32_get(h->len));
    json_t *j;

    assert_true(receive(fd, text, le32_get(h->len)));
    j = json_loadb(text, le32_get(h->len), 0, NULL);
    assert_non_null(j);
    free(text);
    return j;
}

static void take_message(int fd, char *window, struct query *q, const struct qw_head *h)
{
    assert_true(qw_head_ok(h, true));
    switch (le32_get(h->type)) {
    case QW_READ:
        serve_read(fd, window, q, h);
        break;
    case QW_RESULT:
        q->answer = realloc(q->answer, q->answer_len + le32_get(h->len) + 1);
        assert_true(receive(fd, q->answer + q->answer_len, le32_get(h->len)));
        q->answer_len += le32_get(h->len);
        q->answer[q->answer_len] = 0;
        break;
    case QW_SCHEMA:
        q->schema = receive_json(fd, h);
        break;
    default:
        q->done = receive_json(fd, h);
    }
}

static void run(struct query *q)
{
    struct qw_head h;
    struct qw_ctl c;
    char *window;
    pid_t pid;
    int fd;

    need_engine();
    fd = spawn(&window, &pid);
    q->answer = calloc(1, 1);
    send_query(fd, q);
    if (q->ahead) {
        h = (struct qw_head){.want = le32_make((uint32_t)q->objects[0].len)};
        serve_read(fd, window, q, &h);
    }
    while (!q->done && receive(fd, &h, sizeof(h)))
        take_message(fd, window, q, &h);
    close(fd);
    c = receive_ctl();
    assert_int_equal(le32_get(c.type), QW_EXITED);
    assert_int_equal(le32_get(c.tag), last_tag);
    q->status = (int)le64_get(c.value);
    q->rc = q->done ? (int)json_integer_value(json_object_get(q->done, "rc")) : 1;
    q->text = q->done ? json_string_value(json_object_get(q->done, "text")) : "";
    munmap(window, QW_WINDOW_BYTES);
}

static void end(struct query *q)
{
    free(q->answer);
    json_decref(q->schema);
    json_decref(q->done);
}

static struct object text(const char *s)
{
    return (struct object){s, strlen(s)};
}

static int64_t rows(const struct query *q)
{
    return json_integer_value(json_object_get(q->done, "rows"));
}

/* --- the tests --- */

static const char people[] = "id,name,born\n"
                             "1,Ada,1815-12-10\n"
                             "2,\"Grace \"\"Amazing\"\" H.\",1906-12-09\n"
                             "3,Edsger,1930-05-11\n";

static void test_csv(void **state)
{
    struct query q = {.sql = "select name, born from whatever where id >= 2 order by id; ",
                      .input = "csv",
                      .output = "csv",
                      .objects = {text(people)},
                      .nobjects = 1};

    run(&q);
    assert_string_equal(q.text, "");
    assert_int_equal(q.rc, 0);
    assert_int_equal(q.status, 0);
    assert_int_equal(rows(&q), 2);
    assert_string_equal(q.answer, "\"Grace \"\"Amazing\"\" H.\",1906-12-09\nEdsger,1930-05-11\n");
    end(&q);
}

static void test_several_objects(void **state)
{
    struct query q = {.sql = "select count(*), sum(a) from s3object",
                      .input = "csv",
                      .output = "csv",
                      .objects = {text("a\n1\n2\n"), text("a\n3\n"), text("a\n4\n5\n")},
                      .nobjects = 3};

    run(&q);
    assert_string_equal(q.text, "");
    assert_string_equal(q.answer, "5,15\n");
    end(&q);
}

static void test_large(void **state)
{
    size_t len = 0, size = 12u << 20;
    char *csv = malloc(size + 64);
    struct query q = {.sql = "select count(*), sum(n) from s3object",
                      .input = "csv",
                      .output = "csv",
                      .nobjects = 1};
    char want[64];
    uint64_t n = 0, sum = 0;

    len = (size_t)snprintf(csv, size, "n,word\n");
    for (; len < size; n++, sum += n - 1)
        len += (size_t)snprintf(csv + len, 64, "%llu,lorem ipsum dolor\n", (unsigned long long)n);
    q.objects[0] = (struct object){csv, len};
    snprintf(want, sizeof(want), "%llu,%llu\n", (unsigned long long)n, (unsigned long long)sum);
    run(&q);
    assert_string_equal(q.text, "");
    assert_string_equal(q.answer, want);
    end(&q);
    free(csv);
}

/* What one query answers as Parquet, the next one reads; and so on through all forms. */
static void test_formats(void **state)
{
    static const char *const forms[] = {"parquet", "json", "jsonl", "csv"};
    char *bytes = strdup(people);
    size_t len = strlen(people);

    for (unsigned i = 0; i < 4; i++) {
        struct query q = {.sql = "select * from t order by id",
                          .input = "auto",
                          .output = forms[i],
                          .more = "\"header_out\": true, ",
                          .objects = {{bytes, len}},
                          .nobjects = 1};

        run(&q);
        assert_string_equal(q.text, "");
        assert_int_equal(rows(&q), 3);
        free(bytes);
        bytes = q.answer;
        len = q.answer_len;
        q.answer = NULL;
        end(&q);
    }
    assert_string_equal(bytes, people);
    free(bytes);
}

static void test_arrow(void **state)
{
    struct query q = {.sql = "select * from t",
                      .input = "auto",
                      .output = "arrow",
                      .objects = {text(people)},
                      .nobjects = 1};

    run(&q);
    assert_string_equal(q.text, "");
    assert_int_equal(q.status, 0);
    assert_int_equal(rows(&q), 3);
    assert_true(q.answer_len > 100);
    assert_memory_equal(q.answer, "\xff\xff\xff\xff", 4); /* a message begins */
    end(&q);
}

static void test_describe(void **state)
{
    struct query q = {.sql = "/* columns */ describe t;",
                      .input = "auto",
                      .output = "csv",
                      .objects = {text("id,name\n1,Ada\n")},
                      .nobjects = 1};

    run(&q);
    assert_string_equal(q.text, "");
    assert_int_equal(rows(&q), 2);
    assert_non_null(strstr(q.answer, "id,BIGINT"));
    end(&q);
}

/* What came back is of no use: it is found out again, and told. */
static void test_schema_comes_back_broken(void **state)
{
    struct query q = {.sql = "select name from t where id = 3",
                      .input = "auto",
                      .output = "csv",
                      .objects = {text(people)},
                      .nobjects = 1,
                      .more = "\"known\": {\"format\": \"csv\", \"columns\": 7}, "};

    run(&q);
    assert_string_equal(q.text, "");
    assert_string_equal(q.answer, "Edsger\n");
    assert_non_null(q.schema);
    end(&q);
}

static void test_ahead(void **state)
{
    struct query q = {.sql = "select count(*), max(born) from t",
                      .input = "auto",
                      .output = "csv",
                      .objects = {text(people)},
                      .nobjects = 1,
                      .ahead = true};

    run(&q);
    assert_string_equal(q.text, "");
    assert_string_equal(q.answer, "3,1930-05-11\n");
    assert_int_equal(q.reads, 1); /* it asked for nothing */
    end(&q);
}

/* Also those that the engine has views, files and functions for are the object. */
static void test_table_names(void **state)
{
    static const char *const names[] = {"tables",        "columns",    "duckdb_tables", "pg_class",
                                        "sqlite_master", "range",      "\"a b.csv\"",   "Ada",
                                        "s3object",      "kvasir_csv", "\"select\""};

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        char sql[128];
        struct query q = {
            .sql = sql, .input = "csv", .output = "csv", .objects = {text(people)}, .nobjects = 1};

        snprintf(sql, sizeof(sql), "select id, name from %s x where id = 3", names[i]);
        run(&q);
        assert_string_equal(q.text, "");
        assert_string_equal(q.answer, "3,Edsger\n");
        end(&q);
    }
}

static void test_schema_comes_back(void **state)
{
    struct query first = {.sql = "select name from t where id = 3",
                          .input = "auto",
                          .output = "csv",
                          .objects = {text(people)},
                          .nobjects = 1};
    struct query second = first;
    char *known, *more;

    run(&first);
    assert_string_equal(first.text, "");
    assert_non_null(first.schema);
    known = json_dumps(first.schema, 0);
    assert_true(asprintf(&more, "\"known\": %s, ", known) > 0);
    second.more = more;
    run(&second);
    assert_string_equal(second.text, "");
    assert_string_equal(second.answer, "Edsger\n");
    assert_null(second.schema);
    free(known);
    free(more);
    end(&first);
    end(&second);
}

static void test_schema_given(void **state)
{
    struct query q = {.sql = "select typeof(\"the number\"), n, d from t limit 1",
                      .input = "csv",
                      .output = "csv",
                      .more = "\"schema\": \"\\\"the number\\\" DECIMAL(10, 2), n TEXT, d DATE\", ",
                      .objects = {text(people)},
                      .nobjects = 1};

    run(&q);
    assert_string_equal(q.text, "");
    assert_string_equal(q.answer, "\"DECIMAL(10,2)\",Ada,1815-12-10\n");
    end(&q);
}

static void test_bad_objects(void **state)
{
    static const struct {
        const char *input, *a, *b;
    } bad[] = {
        {"csv", "a,b\n1,2\n", "b,c\n1,2\n"},
        {"csv", "a,b\n1,2\n", "a\n1\n"},
        {"parquet", people, NULL},
        {"auto", "PAR1 and nothing of it", NULL},
        {"json", people, NULL},
        {"json", "{\"a\": 1}\n{\"a\": \n", NULL},
        {"auto", "\x1f\x8b and nothing of it", NULL},
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct query q = {.sql = "select * from t",
                          .input = bad[i].input,
                          .output = "csv",
                          .objects = {text(bad[i].a)},
                          .nobjects = 1};

        if (bad[i].b)
            q.objects[q.nobjects++] = text(bad[i].b);
        run(&q);
        assert_int_equal(q.rc, -EBADMSG);
        assert_non_null(strstr(q.text, "object-"));
        assert_null(strstr(q.text, "/kvasir/"));
        end(&q);
    }
}

/* The engine by itself answers from what it has of a file that was cut off. */
static void test_compressed(void **state)
{
    static const char gzip[] = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\x4b\xd4\x49\xe2\x32\xd4"
                               "\x31\xe2\x32\xd6\x31\xe1\x02\x00\xe5\xe9\xd6\xce\x0c\x00\x00\x00";
    static const char zstd[] = "\x28\xb5\x2f\xfd\x04\x58\x61\x00\x00\x61\x2c\x62\x0a\x31\x2c\x32"
                               "\x0a\x33\x2c\x34\x0a\xe1\xb3\xcb\x2e";
    static const struct object whole[] = {{gzip, sizeof(gzip) - 1}, {zstd, sizeof(zstd) - 1}};

    for (unsigned i = 0; i < 4; i++) {
        struct query q = {.sql = "select sum(a), sum(b) from t",
                          .input = "csv",
                          .output = "csv",
                          .objects = {whole[i / 2]},
                          .nobjects = 1};
        bool cut = i % 2;

        if (cut)
            q.objects[0].len -= 3; /* of the checksum: all data is there */
        run(&q);
        assert_int_equal(q.rc, cut ? -EBADMSG : 0);
        assert_string_equal(q.answer, cut ? "" : "4,6\n");
        end(&q);
    }
}

static void test_refused(void **state)
{
    static const char *const bad[] = {
        "selec 1",
        "select 1; select 2",
        "",
        "-- nothing",
        "create table t (a int)",
        "copy (select 1) to '/tmp/x'",
        "select * from s3object where no_such_column = 1",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct query q = {.sql = bad[i],
                          .input = "csv",
                          .output = "csv",
                          .objects = {text(people)},
                          .nobjects = 1};

        run(&q);
        assert_int_equal(q.rc, -EINVAL);
        assert_true(strlen(q.text) > 10);
        assert_int_equal(q.answer_len, 0);
        end(&q);
    }
}

static void test_read_fails(void **state)
{
    struct query q = {.sql = "select * from s3object",
                      .input = "csv",
                      .output = "csv",
                      .objects = {text(people)},
                      .nobjects = 1,
                      .fail_rc = -ESTALE};

    run(&q);
    assert_int_equal(q.rc, -ESTALE);
    end(&q);
}

static void test_kill(void **state)
{
    struct qw_ctl c;
    char *window;
    pid_t pid;
    int fd;

    need_engine();
    fd = spawn(&window, &pid);
    send_ctl(QW_KILL, last_tag, NULL, 0);
    c = receive_ctl();
    assert_int_equal(le32_get(c.type), QW_EXITED);
    assert_int_equal(le32_get(c.tag), last_tag);
    assert_true(WIFSIGNALED((int)le64_get(c.value)));
    assert_int_equal(WTERMSIG((int)le64_get(c.value)), SIGKILL);
    munmap(window, QW_WINDOW_BYTES);
    close(fd);
}

static void test_daemon_hangs_up(void **state)
{
    struct qw_ctl c;
    char *window;
    pid_t pid;
    int fd;

    need_engine();
    fd = spawn(&window, &pid);
    close(fd);
    c = receive_ctl();
    assert_int_equal(le32_get(c.type), QW_EXITED);
    munmap(window, QW_WINDOW_BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_csv),
        cmocka_unit_test(test_several_objects),
        cmocka_unit_test(test_large),
        cmocka_unit_test(test_formats),
        cmocka_unit_test(test_arrow),
        cmocka_unit_test(test_describe),
        cmocka_unit_test(test_schema_comes_back_broken),
        cmocka_unit_test(test_ahead),
        cmocka_unit_test(test_table_names),
        cmocka_unit_test(test_schema_comes_back),
        cmocka_unit_test(test_schema_given),
        cmocka_unit_test(test_bad_objects),
        cmocka_unit_test(test_compressed),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_read_fails),
        cmocka_unit_test(test_kill),
        cmocka_unit_test(test_daemon_hangs_up),
    };

    return cmocka_run_group_tests(tests, start_zygote, stop_zygote);
}
