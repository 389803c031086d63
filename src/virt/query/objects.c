/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The objects of a query: opened once, read as they were then. With a prefix, or several keys,
 * they are of one moment where the device has snapshots.
 */
#include "virt/query/service.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LIST_BYTES (32 * KIB)

void query_key_text(const struct query_object *o, char *out, size_t size)
{
    size_t used = 0;

    for (size_t i = 0; i < o->key_len && used + 4 < size; i++) {
        uint8_t c = o->key[i];

        if (c > ' ' && c < 0x7f && c != '%' && c != '\'' && c != '"')
            out[used++] = (char)c;
        else
            used += (size_t)snprintf(out + used, size - used, "%%%02X", c);
    }
    out[used] = '\0';
}

static int run_req(struct rt_task *t, struct query_run *run, struct kv_req *req)
{
    rt_req_init_task(&req->req, t);
    kv_submit(run->chan, req);
    return rt_wait(t, &req->req);
}

static int add(struct query_run *run, struct bytes key)
{
    struct query_object *o;

    if (run->nobjects == KV_SELECT_KEYS_MAX)
        return err_set(run->why, -EINVAL,
                       "more than %u objects: take a longer prefix, or fewer keys",
                       KV_SELECT_KEYS_MAX);
    if (run->nobjects == run->objects_room) {
        unsigned room = MAX(run->objects_room * 2, 4u);
        struct query_object *more = realloc(run->objects, room * sizeof(*more));

        if (more == NULL)
            return -ENOMEM;
        run->objects = more;
        run->objects_room = room;
    }
    o = &run->objects[run->nobjects];
    *o = (struct query_object){.key = malloc(key.len + 1), .key_len = key.len};
    if (o->key == NULL)
        return -ENOMEM;
    memcpy(o->key, key.ptr, key.len);
    run->nobjects++;
    return 0;
}

static int by_key(const void *a, const void *b)
{
    const struct query_object *x = a, *y = b;

    return bytes_cmp(bytes_make(x->key, x->key_len), bytes_make(y->key, y->key_len));
}

static int list_page(struct rt_task *t, struct query_run *run, void *buf, struct bytes start,
                     bool *out_more)
{
    struct iovec iov = {.iov_base = buf, .iov_len = LIST_BYTES};
    struct kv_req req = {.op = KV_LIST,
                         .flags = start.len > 0 ? KV_F_AFTER : 0,
                         .key = start,
                         .prefix = run->q->prefix,
                         .snap = run->snap,
                         .iov = &iov,
                         .iovcnt = 1,
                         .len = LIST_BYTES};
    int rc = run_req(t, run, &req);
    struct kv_list_iter it;
    struct bytes key;

    if (rc < 0)
        return err_set(run->why, rc, "listing the objects: %s", err_str(rc));
    it = kv_list_begin(buf, req.moved);
    while (rc == 0 && kv_list_next(&it, &key))
        rc = add(run, key);
    *out_more = req.more;
    return rc;
}

static int list(struct rt_task *t, struct query_run *run)
{
    CLEANUP(free_p) void *buf = malloc(LIST_BYTES);
    struct bytes start = {NULL, 0};
    bool more = true;
    int rc = 0;

    if (buf == NULL)
        return -ENOMEM;
    while (rc == 0 && more) {
        unsigned before = run->nobjects;

        rc = list_page(t, run, buf, start, &more);
        if (rc == 0 && more && run->nobjects == before)
            return err_set(run->why, -EIO, "listing the objects does not get on");
        if (run->nobjects > 0)
            start = bytes_make(run->objects[run->nobjects - 1].key,
                               run->objects[run->nobjects - 1].key_len);
    }
    if (rc == 0 && run->nobjects == 0)
        return err_set(run->why, -ENOENT, "no object has a key with this prefix");
    if (rc == 0)
        qsort(run->objects, run->nobjects, sizeof(run->objects[0]), by_key);
    return rc;
}

static int open_one(struct rt_task *t, struct query_run *run, struct query_object *o)
{
    struct kv_req req = {
        .op = KV_RETRIEVE_OPEN, .key = bytes_make(o->key, o->key_len), .snap = run->snap};
    int rc = run_req(t, run, &req);
    char name[96];

    if (rc < 0) {
        query_key_text(o, name, sizeof(name));
        return err_set(run->why, rc, "object %s: %s", name, err_str(rc));
    }
    o->stream = req.stream;
    o->size = req.value_len;
    o->version = req.version;
    run->end.object_bytes += o->size;
    return 0;
}

/* One moment for all of them, if the device can; a single object is of one version anyway. */
static int open_snap(struct rt_task *t, struct query_run *run)
{
    struct kv_req req = {.op = KV_SNAP_OPEN};
    int rc;

    if (run->q->nkeys == 1 || (kv_info(kv_chan_dev(run->chan))->caps & KV_CAP_SNAPSHOT) == 0)
        return 0;
    rc = run_req(t, run, &req);
    if (rc == 0)
        run->snap = req.snap;
    return rc == -ENOTSUP ? 0 : rc;
}

int query_objects_open(struct rt_task *t, struct query_run *run)
{
    int rc = open_snap(t, run);

    if (rc == 0 && run->q->nkeys == 0)
        rc = list(t, run);
    for (unsigned i = 0; rc == 0 && i < run->q->nkeys; i++)
        rc = add(run, run->q->keys[i]);
    for (unsigned i = 0; rc == 0 && i < run->nobjects; i++)
        rc = open_one(t, run, &run->objects[i]);
    if (rc < 0 && run->why != NULL && run->why->text[0] == '\0')
        err_set(run->why, rc, "opening the objects: %s", err_str(rc));
    return rc;
}

void query_objects_close(struct rt_task *t, struct query_run *run)
{
    for (unsigned i = 0; i < run->nobjects; i++) {
        struct query_object *o = &run->objects[i];
        struct kv_req req = {.op = KV_READ_CLOSE, .stream = o->stream};

        if (o->stream != NULL)
            run_req(t, run, &req);
        free(o->key);
    }
    if (run->snap != NULL) {
        struct kv_req req = {.op = KV_SNAP_CLOSE, .snap = run->snap};

        run_req(t, run, &req);
    }
    free(run->objects);
    run->objects = NULL;
    run->nobjects = 0;
}
