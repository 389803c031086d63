/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole talk with a query worker that says what it likes: the input goes to query_serve() as it
 * is, heads and bodies. The answer has to be what was said, an end without an error has to have
 * been said, and what was told about the columns goes into the next query as a worker takes it.
 */
#include "fuzz/fuzz.h"

#include "rt/rt.h"
#include "virt/query/service.h"
#include "virt/query/worker/query.h"
#include "virt/query/worker/schema.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define ANSWER_MAX 8000 /* bytes of an answer that the service lets through */

static struct {
    struct rt *rt;
    struct kv_dev *dev;
    struct kv_chan *chan;
    void *window;
    const uint8_t *said; /* the input */
    size_t said_len;
    int status; /* of the worker, as wait4() has it; -1: not known */
    uint8_t answer[ANSWER_MAX];
    size_t answer_len;
    bool ended;
} f;

static struct bytes keys[2];

/* --- what was said ---------------------------------------------------------------------------- */

/* Whether an end without error was said, and what was answered before. Reads may end a talk too:
 * when is a matter of time, so that is no more than possible. */
struct told {
    bool done;
    uint8_t answer[ANSWER_MAX];
    size_t answer_len;
};

static bool take_told(struct told *told, const struct qw_head *h, const uint8_t *body)
{
    uint32_t len = le32_get(h->len);

    if (!qw_head_ok(h, true))
        return false;
    if (le32_get(h->type) == QW_RESULT) {
        if (len > sizeof(told->answer) - told->answer_len)
            return false;
        memcpy(told->answer + told->answer_len, body, len);
        told->answer_len += len;
    }
    told->done = le32_get(h->type) == QW_DONE;
    return !told->done;
}

static void read_told(struct told *told)
{
    size_t at = 0;
    struct qw_head h;

    memset(told, 0, sizeof(*told));
    while (f.said_len - at >= sizeof(h)) {
        memcpy(&h, f.said + at, sizeof(h));
        at += sizeof(h);
        if (le32_get(h.len) > f.said_len - at || !take_told(told, &h, f.said + at))
            break;
        at += le32_get(h.len);
    }
}

/* --- the talk --------------------------------------------------------------------------------- */

static int take_answer(struct rt_task *t, void *arg, const void *buf, size_t len)
{
    (void)t;
    (void)arg;
    must(len <= sizeof(f.answer) - f.answer_len);
    memcpy(f.answer + f.answer_len, buf, len);
    f.answer_len += len;
    return 0;
}

/* A text for a person's terminal. */
static void check_text(const char *text)
{
    json_t *s = json_string(text);

    must(s != NULL); /* UTF-8 */
    json_decref(s);
    for (; *text != '\0'; text++)
        must((unsigned char)*text >= ' ' || *text == '\n' || *text == '\t');
}

/* What is remembered comes back with the next query, whatever it is. */
static void check_next(struct query_run *run)
{
    static struct qw_text why;
    struct qw_query q;
    struct err err;
    size_t len;
    char *text;

    free(run->known);
    run->known = NULL;
    if (run->memory_key != NULL)
        run->known =
            query_schemas_get(&run->svc->schemas, bytes_make(run->memory_key, run->memory_key_len));
    must(query_ask_make(run, &text, &len, &err) == 0);
    must(qw_query_parse(text, len, &q, &why) == 0);
    must(q.nobjects == run->nobjects);
    if (q.known != NULL)
        qw_schema_ok(q.known);
    json_decref(q.root);
    free(q.objects);
    free(text);
}

static void check(struct query_run *run, int rc)
{
    static struct told told;

    read_told(&told);
    must(rc <= 0);
    must(rc < 0 || told.done);
    must(f.answer_len <= told.answer_len);
    must(memcmp(f.answer, told.answer, f.answer_len) == 0);
    must(rc < 0 || f.answer_len == told.answer_len);
    must(run->end.result_bytes >= f.answer_len);
    must(rc == 0 || run->why->text[0] != '\0');
    check_text(run->why->text);
    must(run->reading == 0);
    for (unsigned i = 0; i < QW_SLOTS; i++)
        must(!run->slots[i].busy);
}

static void say_all(int fd)
{
    size_t at = 0;

    while (at < f.said_len) {
        ssize_t n = send(fd, f.said + at, f.said_len - at, MSG_NOSIGNAL | MSG_DONTWAIT);

        must(n > 0); /* inputs are shorter than what a socket holds */
        at += (size_t)n;
    }
    must(shutdown(fd, SHUT_WR) == 0);
}

static int talk(struct rt_task *t, struct query_service *svc, struct err *why)
{
    struct kv_select q = {.keys = keys,
                          .nkeys = 2,
                          .sql = bytes_of_str("select 1"),
                          .input = KV_SELECT_CSV,
                          .output = KV_SELECT_CSV};
    struct kv_select_result res = {.data = take_answer};
    struct query_worker w = {
        .svc = svc, .exited = true, .status = f.status, .pair.window = f.window};
    CLEANUP(free_p) struct query_run *run = calloc(1, sizeof(*run));
    int fds[2], rc;

    must(run != NULL);
    *run = (struct query_run){
        .svc = svc, .chan = f.chan, .q = &q, .res = &res, .why = why, .worker = &w};
    run->buf = malloc(QW_RESULT_BYTES);
    must(run->buf != NULL);
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    must(rt_sock_attach(&run->sock, fds[0]) == 0);
    must(query_objects_open(t, run) == 0);
    must(query_ask_memory_key(run) == 0);
    say_all(fds[1]);
    rc = query_serve(t, run);
    rt_sock_close(&run->sock);
    check(run, rc);
    check_next(run);
    query_objects_close(t, run);
    close(fds[1]);
    free(run->memory_key);
    free(run->known);
    free(run->buf);
    return 0;
}

static int one(struct rt_task *t, void *arg)
{
    CLEANUP(free_p) struct query_service *svc = calloc(1, sizeof(*svc));
    struct err why = {""};

    (void)arg;
    must(svc != NULL);
    svc->home = rt_self();
    svc->cfg = (struct query_config){
        .mem_bytes = 256 * MIB, .cpu_seconds = 60, .result_bytes_max = ANSWER_MAX};
    query_schemas_init(&svc->schemas, 4);
    talk(t, svc, &why);
    query_schemas_fini(&svc->schemas);
    return 0;
}

/* --- the runtime, once ------------------------------------------------------------------------ */

static int begin(struct rt_task *t, void *arg)
{
    struct err why = {""};

    (void)arg;
    keys[0] = bytes_of_str("a key");
    keys[1] = bytes_of_str("another\x01%");
    f.window = calloc(1, QW_WINDOW_BYTES);
    must(f.window != NULL);
    must(kv_open(t, "mem:?size=4M", &f.dev, &why) == 0);
    must(kv_chan_get(t, f.dev, &f.chan) == 0);
    must(kv_store(t, f.chan, keys[0], bytes_make("a,b\n1,2\n", 8), 0) == 0);
    must(kv_store(t, f.chan, keys[1], bytes_make(f.window, 100000), 0) == 0);
    return 0;
}

static void on_end(struct rt_req *req)
{
    (void)req;
    f.ended = true;
}

static void run(rt_task_fn fn)
{
    struct rt_req done;

    f.ended = false;
    rt_req_init(&done, on_end);
    must(rt_loop_start(f.rt, "fuzz", fn, NULL, &done) == 0);
    while (!f.ended) {
        struct pollfd p = {.fd = rt_loop_fd(f.rt), .events = POLLIN};

        rt_loop_turn(f.rt);
        if (!f.ended)
            poll(&p, 1, MIN((unsigned)rt_loop_timeout_ms(f.rt), 1000u));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_len)
{
    struct rt_config cfg = {.tasks_max = 16, .offload_threads = 1, .buf_bytes = 4 * MIB};
    struct input in = {input, input_len};
    struct err why = {""};
    uint8_t *said;
    le16 status;

    if (f.rt == NULL) {
        must(rt_loop_new(&cfg, &f.rt, &why) == 0);
        run(begin);
    }
    input_fill(&in, &status, sizeof(status));
    f.status = le16_get(status) == 0xffff ? -1 : le16_get(status);
    f.said = said = input_take(&in, in.left, &f.said_len);
    f.answer_len = 0;
    run(one);
    free(said);
    return 0;
}
