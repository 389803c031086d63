/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No engine: a file that is as long as the data set, each item at its place, written and read with
 * O_DIRECT, each write followed by fdatasync. What a durable write costs on this disk.
 */
#include "engine.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

struct raw {
    int fd;
    size_t slot_bytes;
    uint8_t *out[64]; /* aligned, per worker */
};

static int raw_open(struct bench *b)
{
    struct raw *r = calloc(1, sizeof(*r));
    char path[4096];

    if (r == NULL)
        return -ENOMEM;
    b->state = r;
    snprintf(path, sizeof(path), "%s/raw", b->dir);
    r->slot_bytes = round_up_u64(b->val_bytes, 4096);
    r->fd = open(path, O_RDWR | O_CREAT | O_DIRECT | O_CLOEXEC, 0644);
    if (r->fd < 0)
        return -errno;
    for (unsigned i = 0; i < ARRAY_LEN(r->out); i++) {
        r->out[i] = aligned_alloc(4096, r->slot_bytes);
        if (r->out[i] == NULL)
            return -ENOMEM;
    }
    return 0;
}

static void raw_close(struct bench *b)
{
    struct raw *r = b->state;

    for (unsigned i = 0; i < ARRAY_LEN(r->out); i++)
        free(r->out[i]);
    close(r->fd);
    free(r);
}

static int raw_op(struct bench *b, struct worker *w)
{
    struct raw *r = b->state;
    uint8_t *buf = r->out[w->index % ARRAY_LEN(r->out)];
    const uint8_t *from = buf;
    off_t at = (off_t)(w->item * r->slot_bytes);

    if (w->kind == OP_PUT) {
        if (((uintptr_t)w->val | b->val_bytes) % 4096 == 0)
            from = w->val;
        else
            memcpy(buf, w->val, b->val_bytes);
        if (pwrite(r->fd, from, r->slot_bytes, at) != (ssize_t)r->slot_bytes)
            return -EIO;
        return b->sync && fdatasync(r->fd) < 0 ? -errno : 0;
    }
    if (w->kind != OP_GET)
        return -ENOTSUP;
    if (pread(r->fd, buf, r->slot_bytes, at) != (ssize_t)r->slot_bytes)
        return -EIO;
    memcpy(w->buf, buf, b->val_bytes);
    w->got_len = b->val_bytes;
    return 0;
}

const struct engine engine_raw = {
    .name = "raw",
    .open = raw_open,
    .close = raw_close,
    .drive = threads_drive,
    .op = raw_op,
};
