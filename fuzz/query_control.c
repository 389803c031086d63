/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A query zygote that says what it likes on the control socket: messages of any type, length and
 * value about workers in every state, through the daemon's own code. Its greeting is taken for what
 * it is, texts are fit for a terminal, and after each talk every worker is where the messages
 * that are good have brought it; the counts agree, and nothing is left when all has ended.
 */
#include "fuzz/fuzz.h"

#include "rt/rt.h"
#include "virt/query/service.h"

#include <jansson.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define WORKERS 6u /* of the tags 1 to 6 */
#define MESSAGES_MAX 100

/* What the input is made of, one after the other: a message in short. */
struct said {
    uint8_t cut; /* 0: whole; else it ends after so many bytes */
    le32 type, tag;
    le64 value, cpu_us, rss_bytes;
    uint8_t text_len; /* follows, at most as much as has room */
} __attribute__((packed));

static struct {
    struct rt *rt;
    struct qw_ctl said[MESSAGES_MAX];
    uint16_t len[MESSAGES_MAX];
    unsigned nsaid;
    bool ended;
} f;

/* --- what was said ---------------------------------------------------------------------------- */

static void read_said(struct input in)
{
    for (f.nsaid = 0; in.left > 0 && f.nsaid < MESSAGES_MAX; f.nsaid++) {
        struct qw_ctl *c = &f.said[f.nsaid];
        struct said s;

        input_fill(&in, &s, sizeof(s));
        *c = (struct qw_ctl){.type = s.type,
                             .tag = s.tag,
                             .value = s.value,
                             .cpu_us = s.cpu_us,
                             .rss_bytes = s.rss_bytes};
        input_fill(&in, c->text, MIN(s.text_len, sizeof(c->text)));
        f.len[f.nsaid] = s.cut != 0 ? s.cut : (uint16_t)sizeof(*c);
    }
}

static void say_all(int fd)
{
    for (unsigned i = 0; i < f.nsaid; i++) /* fewer than what a socket holds */
        must(send(fd, &f.said[i], f.len[i], MSG_NOSIGNAL | MSG_DONTWAIT) == f.len[i]);
    must(shutdown(fd, SHUT_WR) == 0);
}

/* --- what that makes of the workers ----------------------------------------------------------- */

struct expect {
    bool spawning, exited;
    int status;
    uint64_t cpu_us, rss_bytes;
};

static bool is_taken(unsigned i)
{
    return i % 3 == 2;
}

static bool value_fits(const struct qw_ctl *c)
{
    int64_t value = (int64_t)le64_get(c->value);

    return value <= INT32_MAX && value >= (le32_get(c->type) == QW_SPAWNED ? -4095 : 0);
}

/* What the i-th message does; false: it ends the talk. */
static bool expect_message(struct expect all[WORKERS], unsigned i)
{
    const struct qw_ctl *c = &f.said[i];
    uint32_t tag = le32_get(c->tag), type = le32_get(c->type);
    struct expect *e = tag >= 1 && tag <= WORKERS ? &all[tag - 1] : NULL;

    if (f.len[i] != sizeof(*c) || (type != QW_SPAWNED && type != QW_EXITED) || !value_fits(c))
        return false;
    if (e == NULL || e->exited || (type == QW_SPAWNED && !e->spawning))
        return true;
    e->spawning = false;
    e->exited = type == QW_EXITED || (int64_t)le64_get(c->value) <= 0;
    e->status = type == QW_EXITED ? (int)le64_get(c->value) : -1;
    e->cpu_us = type == QW_EXITED ? le64_get(c->cpu_us) : 0;
    e->rss_bytes = type == QW_EXITED ? le64_get(c->rss_bytes) : 0;
    return true;
}

/* Those that had not been taken have gone, or are on their way, when they have exited. */
static void check_workers(struct query_service *svc, const struct expect all[WORKERS])
{
    unsigned nready = 0, nspawning = 0;

    for (unsigned i = 0; i < WORKERS; i++) {
        struct query_worker *w = query_pool_find(svc, i + 1);

        if (w == NULL) {
            must(all[i].exited && !is_taken(i));
            continue;
        }
        must(w->exited == all[i].exited);
        must((w->state == QUERY_TAKEN) == is_taken(i));
        must((w->state == QUERY_SPAWNING) == all[i].spawning);
        must((w->state == QUERY_ENDING) == (all[i].exited && !is_taken(i)));
        must(!all[i].exited || (w->status == all[i].status && w->cpu_us == all[i].cpu_us &&
                                w->rss_bytes == all[i].rss_bytes));
        nready += w->state == QUERY_READY;
        nspawning += w->state == QUERY_SPAWNING;
    }
    must(svc->nready == nready && svc->nspawning == nspawning);
}

/* A text for a person's terminal. */
static void check_text(const char *text)
{
    json_t *s = json_string(text);

    must(s != NULL); /* UTF-8 */
    json_decref(s);
    must(*text != '\0');
    for (; *text != '\0'; text++)
        must((unsigned char)*text >= ' ' || *text == '\n' || *text == '\t');
}

/* --- the talk --------------------------------------------------------------------------------- */

static void add_worker(struct query_service *svc, unsigned i)
{
    struct query_worker *w = calloc(1, sizeof(*w));

    must(w != NULL);
    *w = (struct query_worker){.svc = svc,
                               .tag = i + 1,
                               .status = -1,
                               .pair = {.ours = -1, .theirs = -1, .window_fd = -1},
                               .asked_ns = rt_now_exact(),
                               .state = is_taken(i) ? QUERY_TAKEN : QUERY_SPAWNING};
    list_add_tail(&svc->workers, &w->link);
    svc->nworkers++;
    svc->nrunning += is_taken(i);
    svc->nspawning += !is_taken(i);
}

static void end_all(struct rt_task *t, struct query_service *svc)
{
    query_pool_lost(svc);
    for (unsigned i = 0; i < WORKERS; i++)
        if (is_taken(i))
            query_pool_end(query_pool_find(svc, i + 1));
    while (svc->nworkers > 0)
        must(rt_cond_wait(t, &svc->changed) == 0);
    must(svc->nready == 0 && svc->nspawning == 0 && svc->nrunning == 0);
    must(list_empty(&svc->ready) && list_empty(&svc->workers));
}

static int listen_to(struct rt_task *t, struct query_service *svc)
{
    struct expect all[WORKERS];
    unsigned i = 1;
    int rc;

    for (unsigned w = 0; w < WORKERS; w++) {
        add_worker(svc, w);
        all[w] = (struct expect){.spawning = !is_taken(w)};
    }
    svc->state = QUERY_UP;
    rc = query_zygote_listen(t, svc);
    while (i < f.nsaid && expect_message(all, i))
        i++;
    must(rc == (i < f.nsaid ? -EPROTO : -ECONNRESET));
    check_workers(svc, all);
    svc->state = QUERY_DOWN;
    end_all(t, svc);
    return 0;
}

static int one(struct rt_task *t, void *arg)
{
    CLEANUP(free_p) struct query_service *svc = calloc(1, sizeof(*svc));
    const struct qw_ctl *first = &f.said[0];
    char worker[] = "kvasir-query";
    struct err why = {""};
    int fds[2], rc;

    (void)arg;
    must(svc != NULL);
    svc->home = rt_self();
    svc->worker = worker;
    svc->cfg = (struct query_config){.workers_ready = WORKERS, .workers_max = WORKERS};
    list_init(&svc->workers);
    list_init(&svc->ready);
    list_init(&svc->lines);
    must(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) == 0);
    must(rt_sock_attach(&svc->ctl, fds[0]) == 0);
    say_all(fds[1]);
    rc = query_zygote_greet(t, svc, &why);
    must((rc == 0) == (f.nsaid > 0 && f.len[0] == sizeof(*first) &&
                       le32_get(first->type) == QW_READY && le64_get(first->value) == QW_VERSION));
    if (rc == 0)
        rc = listen_to(t, svc);
    else
        check_text(why.text);
    rt_sock_close(&svc->ctl);
    close(fds[1]);
    return 0;
}

/* --- the runtime, once ------------------------------------------------------------------------ */

static void on_end(struct rt_req *req)
{
    (void)req;
    f.ended = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_len)
{
    struct rt_config cfg = {.tasks_max = 16, .offload_threads = 1, .buf_bytes = 4 * MIB};
    struct err why = {""};
    struct rt_req done;

    if (f.rt == NULL)
        must(rt_loop_new(&cfg, &f.rt, &why) == 0);
    read_said((struct input){input, input_len});
    f.ended = false;
    rt_req_init(&done, on_end);
    must(rt_loop_start(f.rt, "fuzz", one, NULL, &done) == 0);
    while (!f.ended) {
        struct pollfd p = {.fd = rt_loop_fd(f.rt), .events = POLLIN};

        rt_loop_turn(f.rt);
        if (!f.ended)
            poll(&p, 1, MIN((unsigned)rt_loop_timeout_ms(f.rt), 1000u));
    }
    return 0;
}
