/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Behind include/kvasir. lib.c has the library's own runtime and the error text; kv*.c and blk.c
 * the synchronous calls, each one task on that runtime; loop.c the event-loop form.
 */
#ifndef KVASIR_CAPI_CAPI_H
#define KVASIR_CAPI_CAPI_H

#include "kvasir/kvasir.h"

#include "blk/blk.h"
#include "kv/select.h"

#include <assert.h>

/* Either form: a device with the channel of its one reactor. */
struct kvasir_kv {
    struct kvasir_loop *loop; /* NULL: the synchronous form */
    struct kv_dev *dev;
    struct kv_chan *chan;
    struct kv_snap *snap;     /* a snapshot of the device, which has references of its own */
};

struct kvasir_blk {
    struct kvasir_loop *loop;
    struct blk_dev *dev;
    struct blk_chan *chan;
    uint32_t block_shift;
};

/** Sets this thread's error text and returns rc. text NULL or empty: what the errno means. */
int capi_fail(int rc, const char *text);

/** The library's runtime: started by the first user, stopped after the last one. Sets the text. */
int capi_enter(void);
void capi_leave(void);
/** Runs fn as a task there and waits. -EDEADLK inside a callback. Sets no text. */
int capi_call(rt_task_fn fn, void *arg);
struct query_service;
/** The query service of a runtime of one reactor, started when it is first asked for. */
struct capi_queries {
    struct query_service *svc;
    bool starting;
    struct rt_cond started;
};
/** That of the library's own runtime. */
struct capi_queries *capi_lib_queries(void);
void capi_queries_end(struct rt_task *t, struct capi_queries *queries);

struct kvasir_loop {
    struct rt *rt;
    unsigned kvs; /* that are open */
    struct capi_queries queries;
};

/* Shared by both forms; tasks. On failure nothing is open. */
int capi_kv_open(struct rt_task *t, const char *uri, struct kvasir_kv *kv, struct err *why);
void capi_kv_close(struct rt_task *t, struct kvasir_kv *kv);
int capi_blk_open(struct rt_task *t, const char *uri, struct kvasir_blk *blk, struct err *why);
void capi_blk_close(struct rt_task *t, struct kvasir_blk *blk);

#define CAPI_STORE_FLAGS                                                                           \
    (KVASIR_MUST_EXIST | KVASIR_MUST_NOT_EXIST | KVASIR_IF_VERSION | KVASIR_APPEND)

/** One request of the synchronous form, set up but for req.req. */
struct capi_request {
    struct kvasir_kv *kv;
    struct kv_req req;
};
/** Submits it and waits. Sets the text. */
int capi_run(struct capi_request *c);

/** A question as the layers have it, in `keys` those of its objects. -EINVAL with text. */
int capi_select_understand(const struct kvasir_select *q, struct bytes *keys,
                           struct kv_select *out);
/** Where it can be asked: on the device, else here. */
int capi_select_run(struct rt_task *t, const struct kvasir_kv *kv, struct capi_queries *queries,
                    const struct kv_select *q, struct kv_select_result *res, struct err *why);
void capi_select_result(const struct kv_select_result *res, struct kvasir_select_result *out);

/** Bytes to blocks. -EINVAL when they are no multiple. */
int capi_blocks(const struct kvasir_blk *blk, uint64_t off, uint64_t len, uint64_t *out_lba,
                uint64_t *out_nblocks);

#endif
