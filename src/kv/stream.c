/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams: what their users hold is a kv_held of their channel, which knows how much was declared
 * and how much has come, so that drivers need not check; the driver's own stream hangs below it.
 */
#include "kv/internal.h"

static struct kv_held *held_get(struct kv_chan *chan)
{
    struct kv_held *h = chan->free_held;

    if (h == NULL && chan->held_total < KV_STREAMS_MAX) {
        struct kv_held_block *block = calloc(1, sizeof(*block));

        if (block == NULL)
            return NULL;
        block->next = chan->held_blocks;
        chan->held_blocks = block;
        chan->held_total += KV_HELD_BLOCK;
        for (unsigned i = 0; i < KV_HELD_BLOCK; i++) {
            block->held[i].next_free = chan->free_held;
            chan->free_held = &block->held[i];
        }
        h = chan->free_held;
    }
    if (h == NULL)
        return NULL;
    chan->free_held = h->next_free;
    chan->held_out++;
    *h = (struct kv_held){.chan = chan};
    return h;
}

static void held_put(struct kv_held *h)
{
    struct kv_chan *chan = h->chan;

    h->chan = NULL;
    h->next_free = chan->free_held;
    chan->free_held = h;
    chan->held_out--;
}

void kv_streams_free(struct kv_chan *chan)
{
    while (chan->held_blocks != NULL) {
        struct kv_held_block *next = chan->held_blocks->next;

        free(chan->held_blocks);
        chan->held_blocks = next;
    }
}

/* 1 with the answer in *out_rc: nothing for the driver to do. */
static int write_begin(struct kv_chan *chan, struct kv_held *h, struct kv_req *req, int *out_rc)
{
    uint64_t room = (h->len == KV_LEN_UNKNOWN ? chan->val_max : h->len) - h->pos;

    must(h->writing);
    *out_rc = h->rc;
    if (h->rc < 0 || req->len == 0)
        return 1;
    if (h->busy > 0)
        *out_rc = -EINVAL;
    else if (req->len > room)
        *out_rc = h->rc = h->len == KV_LEN_UNKNOWN ? -EFBIG : -EINVAL;
    if (*out_rc < 0)
        return 1;
    req->off = h->pos;
    h->pos += req->len;
    return 0;
}

static int read_begin(struct kv_chan *chan, struct kv_held *h, struct kv_req *req, int *out_rc)
{
    must(!h->writing);
    *out_rc = 0;
    if (req->off >= h->len || req->len == 0)
        return 1;
    if ((chan->caps & KV_CAP_RANGE) != 0)
        return 0;
    if (h->busy > 0)
        *out_rc = -EINVAL;
    else if (h->rc < 0)
        *out_rc = h->rc;
    else if (req->off < h->pos)
        *out_rc = -ENOTSUP;
    return *out_rc < 0;
}

/* A commit of what is not whole is an abort that answers why. */
static void end_begin(struct kv_held *h, struct kv_req *req)
{
    must(h->busy == 0);
    must(h->writing == (req->op != KV_READ_CLOSE));
    if (req->op != KV_COMMIT)
        return;
    if (h->rc == 0 && h->len != KV_LEN_UNKNOWN && h->pos != h->len)
        h->rc = -EINVAL;
    if (h->rc == 0 && atomic_load(&h->chan->dev->removed))
        h->rc = -ENODEV;
    if (h->rc < 0) {
        h->commit_failed = true;
        req->op = KV_ABORT;
    }
}

int kv_stream_begin(struct kv_chan *chan, struct kv_req *req, int *out_rc)
{
    struct kv_held *h;
    int stop = 0;

    if (req->op == KV_STORE_OPEN || req->op == KV_RETRIEVE_OPEN) {
        req->held = held_get(chan);
        *out_rc = -ENOMEM;
        return req->held == NULL;
    }
    h = (struct kv_held *)req->stream;
    must(h->chan == chan);
    if (req->op == KV_WRITE)
        stop = write_begin(chan, h, req, out_rc);
    else if (req->op == KV_READ)
        stop = read_begin(chan, h, req, out_rc);
    else
        end_begin(h, req);
    if (stop != 0)
        return 1;
    h->busy++;
    req->held = h;
    req->stream = h->driver;
    return 0;
}

static void open_end(struct kv_held *h, struct kv_req *req, int rc)
{
    if (rc < 0) {
        held_put(h);
        return;
    }
    h->driver = req->stream;
    h->writing = req->op == KV_STORE_OPEN;
    h->len = h->writing ? req->len : req->value_len;
    req->stream = (struct kv_stream *)h;
}

int kv_stream_end(struct kv_req *req, int rc)
{
    struct kv_held *h = take_ptr(&req->held);

    if (req->op == KV_STORE_OPEN || req->op == KV_RETRIEVE_OPEN) {
        open_end(h, req, rc);
        return rc;
    }
    h->busy--;
    if (req->op == KV_WRITE || req->op == KV_READ) {
        req->stream = (struct kv_stream *)h;
        if (req->op == KV_READ)
            h->pos = req->off + req->moved;
        if (rc < 0 && h->rc == 0 && (h->writing || (h->chan->caps & KV_CAP_RANGE) == 0))
            h->rc = rc;
        return rc;
    }
    if (h->commit_failed) {
        req->op = KV_COMMIT;
        rc = h->rc;
    }
    req->stream = NULL;
    held_put(h);
    return rc;
}
