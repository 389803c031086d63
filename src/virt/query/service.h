/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the service share. Everything in struct query_service belongs to its home
 * reactor, but for the schema memory, which has a lock of its own; queries run on the reactor that
 * asks and reach home by messages.
 */
#ifndef KVASIR_VIRT_QUERY_SERVICE_H
#define KVASIR_VIRT_QUERY_SERVICE_H

#include "virt/query/query.h"
#include "virt/query/wire.h"

#include "rt/sock.h"

#include <pthread.h>
#include <sys/types.h>

struct query_run;

/* --- process.c: what blocks, for rt_offload() ------------------------------------------------- */

struct query_zygote_start {
    const char *worker; /* path of the program */
    const char *engine; /* NULL: it looks itself */
    uint64_t mem_bytes; /* that its queries will have, most of them */
    const int *cpus;    /* CPUs it stays away from */
    unsigned ncpus;
    /* out */
    int fd; /* our end of the control socket */
    pid_t pid;
};
int query_zygote_start(void *arg);

struct query_zygote_reap {
    pid_t pid;
    int status; /* out */
};
/** Kills it, if it has not ended, and waits for it. */
int query_zygote_reap(void *arg);

struct query_pair {
    int ours, theirs; /* ends of the stream */
    int window_fd;
    void *window;
};
int query_pair_make(void *arg);
int query_pair_drop(void *arg);
/** The worker program, to be freed: as told, beside this one, or where installing puts it. */
char *query_worker_find(const char *told, struct err *why);

/* --- workers (pool.c) ------------------------------------------------------------------------- */

enum query_worker_state { QUERY_SPAWNING, QUERY_READY, QUERY_TAKEN, QUERY_ENDING };

struct query_worker {
    struct list link; /* of all */
    struct list ready_link;
    struct query_service *svc;
    uint32_t tag;
    pid_t pid;
    enum query_worker_state state;
    uint64_t asked_ns; /* when the zygote was asked for it */
    struct query_pair pair;
    bool exited;
    bool killed; /* by us */
    int status;  /* of wait4(); -1: nobody knows */
    uint64_t cpu_us, rss_bytes;
    struct rt_cond gone; /* woken when it has exited */
    struct rt_timer patience;
    struct rt_offload_req drop;
    /* What its query tells when it ends. */
    struct rt_msg end_msg;
    struct query_end {
        int rc;
        bool answered; /* the worker has said how the query ended, and exits by itself */
        bool died;     /* without having said so */
        uint64_t object_bytes, read_bytes, result_bytes, run_ns, queue_ns;
    } end;
};

void query_pool_ready(struct query_service *svc, struct query_worker *w, int64_t value);
void query_pool_exited(struct query_worker *w, int status, uint64_t cpu_us, uint64_t rss_bytes);
/** The zygote is gone, and every worker with it. */
void query_pool_lost(struct query_service *svc);
struct query_worker *query_pool_find(struct query_service *svc, uint32_t tag);
struct query_worker *query_pool_take(struct query_service *svc);
/** The query is over: the worker ends, soon or at once, whatever it does. Its stream is closed. */
void query_pool_end(struct query_worker *w);
void query_pool_kill(struct query_worker *w);
/** Its stream has ended: it is killed unless it ends soon. */
void query_pool_expect_exit(struct query_worker *w);
/** The task that makes workers ahead. */
int query_pool_task(struct rt_task *t, void *arg);

/* --- the zygote (zygote.c) -------------------------------------------------------------------- */

enum query_zygote_state { QUERY_DOWN, QUERY_STARTING, QUERY_UP };

/** The task that starts the zygote, listens to it, and starts another when it has died. */
int query_zygote_task(struct rt_task *t, void *arg);
/** The first thing it says is to be that it is up. 0; -ENOTSUP with text, -ECANCELED. */
int query_zygote_greet(struct rt_task *t, struct query_service *svc, struct err *why);
/** Takes in what else it says, until the end: an errno. */
int query_zygote_listen(struct rt_task *t, struct query_service *svc);
/** Asks for a worker with these ends of its stream and its window. */
int query_zygote_spawn(struct rt_task *t, struct query_service *svc, uint32_t tag,
                       const int fds[2]);
/** Does not wait; what does not go through is given up, the worker dies when its stream ends. */
void query_zygote_tell(struct query_service *svc, enum qw_ctl_type type, uint32_t tag);

/* --- turns (queue.c) -------------------------------------------------------------------------- */

struct query_turn {
    struct rt_req req; /* first: completes on the reactor that asked */
    struct query_service *svc;
    struct rt_reactor *origin;
    struct bytes who;
    struct rt_msg msg, cancel_msg;
    struct list link;
    struct query_line *line; /* NULL: not waiting */
    struct query_worker *worker; /* out */
    int rc;
    bool answered;    /* at home */
    bool returned;    /* the answer is back */
    bool cancel_sent; /* and that is not back */
    struct err why;
};
/** Waits for a worker. 0, -EAGAIN, -ECANCELED, -ETIMEDOUT, ... with text. */
int query_turn_wait(struct rt_task *t, struct query_service *svc, struct bytes who,
                    struct query_turn *turn, struct err *why);
/** Gives the worker of a turn back; `end` says how it went. Never waits. */
void query_turn_end(struct query_worker *w, const struct query_end *end);
/** Hands ready workers to those whose turn it is. */
void query_queue_run(struct query_service *svc);
/** All that wait get this. */
void query_queue_fail(struct query_service *svc, int rc, const char *text);

/* --- the schema memory (schema.c) ------------------------------------------------------------- */

struct query_schemas {
    pthread_mutex_t lock;
    struct list entries; /* the last one used first */
    unsigned count, max;
    size_t bytes;
    uint64_t sniffed, remembered;
};
void query_schemas_init(struct query_schemas *s, unsigned max);
void query_schemas_fini(struct query_schemas *s);
/** What was found out about the same bytes with the same options: a copy to free(), or NULL. */
char *query_schemas_get(struct query_schemas *s, struct bytes key);
void query_schemas_put(struct query_schemas *s, struct bytes key, const char *text, size_t len);

/* --- one query (select.c, objects.c, ask.c, serve.c) ------------------------------------------ */

struct query_object {
    struct kv_stream *stream;
    uint8_t *key;
    size_t key_len;
    uint64_t size, version;
};

struct query_slot {
    struct kv_req req; /* first */
    struct iovec iov;
    struct query_run *run;
    uint32_t object;
    bool busy;
};

struct query_run {
    struct query_service *svc;
    struct kv_chan *chan;
    const struct kv_select *q;
    struct kv_select_result *res;
    struct err *why;
    struct query_worker *worker;
    struct rt_sock sock;
    struct kv_snap *snap;
    struct query_object *objects;
    unsigned nobjects, objects_room;
    struct query_slot slots[QW_SLOTS];
    unsigned reading; /* slots that are busy */
    struct rt_cond quiet;
    int broken;       /* what ended the talk with the worker, found in a completion */
    int read_rc;      /* the first failure of the device */
    uint32_t read_object;
    uint8_t *memory_key; /* of the schema memory; NULL: nothing to remember */
    size_t memory_key_len;
    char *known;
    bool told_schema;
    struct query_end end;
    uint8_t *buf; /* QW_RESULT_BYTES */
};

/* objects.c */
int query_objects_open(struct rt_task *t, struct query_run *run);
void query_objects_close(struct rt_task *t, struct query_run *run);
/** A key for a person: what cannot be printed as %XX. */
void query_key_text(const struct query_object *o, char *out, size_t size);

/* ask.c */
int query_ask_check(const struct kv_select *q, struct err *why);
/** The text of QW_QUERY, to be freed. */
int query_ask_make(const struct query_run *run, char **out_text, size_t *out_len,
                   struct err *why);
/** How much of the first object the worker gets without asking. */
uint32_t query_ask_ahead(const struct query_run *run);
/** Without control characters: they have no business on a person's terminal. */
void query_text_set(struct err *why, const char *text);
/** Reads QW_DONE: what the query gets, with text. */
int query_ask_done(struct query_run *run, const char *text, size_t len);
/** The name under which what is found out about these objects is remembered. */
int query_ask_memory_key(struct query_run *run);

/* serve.c */
int query_serve(struct rt_task *t, struct query_run *run);

/* --- the service ------------------------------------------------------------------------------ */

struct query_service {
    struct query_config cfg; /* defaults filled in */
    uint64_t usual_ns;       /* for a query that does not say how long it may take */
    char *worker, *engine;
    struct rt_reactor *home;
    bool stopping;

    struct rt_sock ctl;
    pid_t zygote_pid;
    enum query_zygote_state state;
    int down_rc;
    struct err down_why;
    struct rt_task *zygote_task, *pool_task;
    struct rt_req zygote_done, pool_done;
    unsigned ntasks;
    struct rt_cond changed; /* state, ntasks, nrunning, nworkers */

    struct list workers, ready;
    unsigned nworkers, nready, nspawning, nrunning;
    uint32_t next_tag;
    struct rt_cond need; /* the pool looks whether to make workers */

    struct list lines; /* of struct query_line, whose turn it is first */
    unsigned nwaiting;

    struct query_schemas schemas;
    struct query_stats stats;
};

#endif
