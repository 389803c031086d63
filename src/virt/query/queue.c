/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whose turn it is. Those who ask stand in one line each, told apart by `who`, and the lines take
 * turns: a host with a hundred queries does not keep another's waiting for all of them.
 */
#include "virt/query/service.h"

#include <stdlib.h>
#include <string.h>

struct query_line {
    struct list link; /* of lines */
    struct list turns;
    size_t who_len;
    uint8_t who[];
};

static struct query_line *line_of(struct query_service *svc, struct bytes who)
{
    struct query_line *l;

    list_for_each (l, &svc->lines, struct query_line, link) {
        if (bytes_eq(bytes_make(l->who, l->who_len), who))
            return l;
    }
    l = malloc(sizeof(*l) + who.len);
    if (l == NULL)
        return NULL;
    *l = (struct query_line){.who_len = who.len};
    if (who.len > 0)
        memcpy(l->who, who.ptr, who.len);
    list_init(&l->turns);
    list_add_tail(&svc->lines, &l->link);
    return l;
}

static void leave(struct query_service *svc, struct query_turn *turn)
{
    struct query_line *l = turn->line;

    list_del(&turn->link);
    turn->line = NULL;
    svc->nwaiting--;
    if (list_empty(&l->turns)) {
        list_del(&l->link);
        free(l);
    }
}

static void maybe_complete(struct query_turn *turn)
{
    if (turn->returned && !turn->cancel_sent)
        rt_req_complete(&turn->req, turn->rc);
}

static void came_back(struct rt_msg *msg)
{
    struct query_turn *turn = container_of(msg, struct query_turn, msg);

    turn->returned = true;
    maybe_complete(turn);
}

static void answer(struct query_turn *turn, int rc, const char *text)
{
    turn->answered = true;
    turn->rc = rc;
    if (text != NULL)
        err_set(&turn->why, rc, "%s", text);
    turn->msg.fn = came_back;
    rt_send(turn->origin, &turn->msg);
}

void query_queue_run(struct query_service *svc)
{
    while (!list_empty(&svc->lines) && svc->nready > 0 && svc->nrunning < svc->cfg.workers_max) {
        struct query_line *l = list_first(&svc->lines, struct query_line, link);
        struct query_turn *turn = list_first(&l->turns, struct query_turn, link);

        list_del(&l->link);
        list_add_tail(&svc->lines, &l->link);
        leave(svc, turn);
        turn->worker = query_pool_take(svc);
        answer(turn, 0, NULL);
    }
}

void query_queue_fail(struct query_service *svc, int rc, const char *text)
{
    struct query_line *l;

    while ((l = list_first(&svc->lines, struct query_line, link)) != NULL) {
        struct query_turn *turn = list_first(&l->turns, struct query_turn, link);

        leave(svc, turn);
        answer(turn, rc, text);
    }
}

static void arrive(struct rt_msg *msg)
{
    struct query_turn *turn = container_of(msg, struct query_turn, msg);
    struct query_service *svc = turn->svc;

    if (svc->stopping) {
        answer(turn, -ECANCELED, "the query service is ending");
        return;
    }
    if (svc->state == QUERY_DOWN && svc->down_rc < 0) {
        answer(turn, svc->down_rc, svc->down_why.text);
        return;
    }
    if (svc->nwaiting >= svc->cfg.queue_max) {
        answer(turn, -EAGAIN, "too many queries wait for their turn: try again later");
        return;
    }
    turn->line = line_of(svc, turn->who);
    if (turn->line == NULL) {
        answer(turn, -ENOMEM, "no memory for another query");
        return;
    }
    list_add_tail(&turn->line->turns, &turn->link);
    svc->nwaiting++;
    query_queue_run(svc);
    rt_cond_wake_all(&svc->need);
}

static void cancel_back(struct rt_msg *msg)
{
    struct query_turn *turn = container_of(msg, struct query_turn, cancel_msg);

    turn->cancel_sent = false;
    maybe_complete(turn);
}

static void cancel_at_home(struct rt_msg *msg)
{
    struct query_turn *turn = container_of(msg, struct query_turn, cancel_msg);

    if (!turn->answered) {
        leave(turn->svc, turn);
        answer(turn, -ECANCELED, NULL);
    }
    turn->cancel_msg.fn = cancel_back;
    rt_send(turn->origin, &turn->cancel_msg);
}

static void turn_cancel(struct rt_req *req)
{
    struct query_turn *turn = container_of(req, struct query_turn, req);

    if (turn->returned || turn->cancel_sent)
        return;
    turn->cancel_sent = true;
    turn->cancel_msg.fn = cancel_at_home;
    rt_send(turn->svc->home, &turn->cancel_msg);
}

int query_turn_wait(struct rt_task *t, struct query_service *svc, struct bytes who,
                    struct query_turn *turn, struct err *why)
{
    int rc;

    *turn = (struct query_turn){.svc = svc, .origin = rt_self(), .who = who};
    rt_req_init_task(&turn->req, t);
    turn->req.cancel = turn_cancel;
    rt_req_begin(&turn->req);
    turn->msg.fn = arrive;
    rt_send(svc->home, &turn->msg);
    rc = rt_wait(t, &turn->req);
    if (rc < 0)
        return err_set(why, rc, "%s", turn->why.text);
    return 0;
}

static void count_end(struct query_service *svc, const struct query_end *e)
{
    struct query_stats *s = &svc->stats;

    if (e->rc == 0)
        s->done++;
    else if (e->rc == -ECANCELED)
        s->cancelled++;
    else if (e->rc == -ETIMEDOUT)
        s->timed_out++;
    else
        s->failed++;
    s->worker_deaths += e->died;
    s->object_bytes += e->object_bytes;
    s->read_bytes += e->read_bytes;
    s->result_bytes += e->result_bytes;
    hist_add(&s->run_ns, e->run_ns);
    hist_add(&s->queue_ns, e->queue_ns);
}

static void ended(struct rt_msg *msg)
{
    struct query_worker *w = container_of(msg, struct query_worker, end_msg);
    struct query_service *svc = w->svc;

    count_end(svc, &w->end);
    query_pool_end(w);
    query_queue_run(svc);
}

void query_turn_end(struct query_worker *w, const struct query_end *end)
{
    w->end = *end;
    w->end_msg.fn = ended;
    if (rt_self() == w->svc->home)
        ended(&w->end_msg);
    else
        rt_send(w->svc->home, &w->end_msg);
}
