/* SPDX-License-Identifier: Apache-2.0 */
#include "disk.h"
#include "own.h"

#include "base/must.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>

struct disk disk;

static void *map(size_t len)
{
    void *p =
        mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    must(p != MAP_FAILED);
    return p;
}

void disk_init(uint64_t bytes, uint32_t block_bytes)
{
    disk = (struct disk){.mem = map(bytes), .bytes = bytes, .block_bytes = block_bytes};
}

void disk_whole_add(uint64_t off, uint64_t len)
{
    must(disk.nwholes < DISK_WHOLES_MAX);
    disk.whole[disk.nwholes++] = (struct disk_whole){off, len};
}

static bool in_whole(uint64_t off)
{
    for (unsigned i = 0; i < disk.nwholes; i++)
        if (off >= disk.whole[i].off && off < disk.whole[i].off + disk.whole[i].len)
            return true;
    return false;
}

uint64_t disk_atom(uint64_t off, uint64_t len)
{
    uint64_t n = in_whole(off) ? DISK_PAGE_BYTES - off % DISK_PAGE_BYTES
                               : DISK_SECTOR_BYTES - off % DISK_SECTOR_BYTES;

    return MIN(n, len);
}

void disk_arena_init(struct disk_arena *a, size_t size)
{
    *a = (struct disk_arena){.base = map(size), .size = size};
}

void *disk_arena_get(struct disk_arena *a, size_t len)
{
    void *p = a->base + a->used;

    must(a->used + len <= a->size);
    a->used += round_up_u64(len, 64);
    return p;
}

/* --- the log ---------------------------------------------------------------------------------- */

void disk_log_begin(struct disk_log *log)
{
    log->n = 0;
    log->ticks = 0;
}

struct disk_log disk_log_take(void)
{
    struct disk_log log = disk.log;

    disk.log = (struct disk_log){.op = NULL};
    return log;
}

void disk_log_show(const struct disk_log *log, uint32_t n)
{
    static const char *const kind[] = {"write", "zero", "flush"};

    for (uint32_t i = log->n > n ? log->n - n : 0; i < log->n; i++) {
        const struct disk_op *op = &log->op[i];

        printf("    %u: %s %llu + %llu, ticks %u to %d%s%s\n", i, kind[op->kind],
               (unsigned long long)op->off, (unsigned long long)op->len, op->submit,
               (int)op->complete, op->failed ? ", failed" : "", op->lost ? ", lost" : "");
    }
}

static uint32_t tick(uint32_t op, bool completes)
{
    struct disk_log *log = &disk.log;

    if (log->ticks == log->event_cap) {
        log->event_cap = MAX(1024u, log->event_cap * 2);
        log->event = own_realloc(log->event, log->event_cap * sizeof(*log->event));
        must(log->event != NULL);
    }
    log->event[log->ticks] = (struct disk_event){.op = op, .completes = completes};
    return log->ticks++;
}

uint32_t disk_submit(enum disk_kind kind, uint64_t off, uint64_t len, const struct iovec *iov,
                     unsigned iovcnt)
{
    struct disk_log *log = &disk.log;
    struct disk_op *op;
    size_t at = 0;

    if (log->n == log->cap) {
        log->cap = MAX(1024u, log->cap * 2);
        log->op = own_realloc(log->op, log->cap * sizeof(*log->op));
        must(log->op != NULL);
    }
    op = &log->op[log->n];
    *op = (struct disk_op){.kind = (uint8_t)kind, .off = off, .len = len, .complete = DISK_NOT_YET};
    if (kind == DISK_WRITE) {
        op->data = disk.log_arena != NULL ? disk_arena_get(disk.log_arena, len) : own_alloc(len);
        must(op->data != NULL);
        for (unsigned i = 0; i < iovcnt; at += iov[i++].iov_len)
            memcpy(op->data + at, iov[i].iov_base, iov[i].iov_len);
    }
    op->submit = tick(log->n, false);
    disk.inflight++;
    return log->n++;
}

/* Whether this operation is the one that fails. */
static bool fails(unsigned kind)
{
    struct disk_fault *f = &disk.fault;

    if ((f->kinds & kind) == 0)
        return false;
    f->seen++;
    if (f->seen < f->nth || (f->seen > f->nth && !f->lasting))
        return false;
    f->hits++;
    return true;
}

/* What was completed and not made durable before is gone for good, whatever a later flush says. */
static void lose(const struct disk_op *flush)
{
    for (uint32_t i = 0; i < disk.log.n; i++) {
        struct disk_op *op = &disk.log.op[i];

        if (op->kind != DISK_FLUSH && op->complete < flush->submit && !op->durable)
            op->lost = true;
    }
}

static void keep(const struct disk_op *flush)
{
    for (uint32_t i = 0; i < disk.log.n; i++) {
        struct disk_op *op = &disk.log.op[i];

        if (op->kind != DISK_FLUSH && op->complete < flush->submit && !op->lost)
            op->durable = true;
    }
}

static int complete_flush(struct disk_op *op)
{
    disk.flushes++;
    if (fails(DISK_FAULT_FLUSH)) {
        op->failed = true;
        lose(op);
        return disk.fault.rc != 0 ? disk.fault.rc : -EIO;
    }
    if (disk.fault.kinds != 0)
        keep(op); /* only asked for by lose() */
    return 0;
}

/* A write that fails has happened in any part. */
static int fail_write(struct disk_op *op)
{
    uint64_t n;

    op->failed = true;
    for (uint64_t at = 0; at < op->len; at += n) {
        n = disk_atom(op->off + at, op->len - at);
        if (dice_one_in(&disk.dice, 3))
            disk_poke(op->off + at, op->data == NULL ? NULL : op->data + at, n);
    }
    return disk.fault.rc;
}

/* Some of it from its beginning; false: it cannot be short, being one atom. */
static bool cut_short(struct disk_op *op)
{
    uint64_t len = DISK_SECTOR_BYTES * dice_between(&disk.dice, 1, op->len / DISK_SECTOR_BYTES);
    uint64_t at = 0, n = 0;

    for (; at < len; at += n)
        n = disk_atom(op->off + at, op->len - at);
    if (at >= op->len)
        return false;
    op->len = at;
    disk_poke(op->off, op->data, op->len);
    return true;
}

int disk_complete(uint32_t idx)
{
    struct disk_op *op = &disk.log.op[idx];
    int rc = 0;

    disk.inflight--;
    if (op->kind == DISK_FLUSH) {
        rc = complete_flush(op);
    } else if (fails(op->kind == DISK_WRITE ? DISK_FAULT_WRITE : DISK_FAULT_ZERO) &&
               (disk.fault.rc != 0 || cut_short(op))) {
        rc = disk.fault.rc == 0 ? (int)op->len : fail_write(op);
        disk.writes++;
    } else {
        disk_poke(op->off, op->data, op->len);
        disk.writes++;
        disk.bytes_written += op->len;
        rc = op->kind == DISK_WRITE ? (int)op->len : 0;
    }
    op = &disk.log.op[idx];
    op->complete = tick(idx, true);
    if (disk.log_arena == NULL) {
        own_free(op->data);
        op->data = NULL;
    }
    return rc;
}

int disk_read_begin(uint64_t *out_max)
{
    bool fault = fails(DISK_FAULT_READ);

    disk.reads++;
    *out_max = fault ? DISK_SECTOR_BYTES : UINT32_MAX;
    return fault ? disk.fault.rc : 0;
}

int disk_read(uint64_t off, const struct iovec *iov, unsigned iovcnt)
{
    uint64_t at = off, end, max;
    int rc = disk_read_begin(&max);

    if (rc < 0)
        return rc;
    end = MIN(disk.bytes, off + max);
    for (unsigned i = 0; i < iovcnt && at < end; i++) {
        size_t n = MIN(iov[i].iov_len, end - at);

        memcpy(iov[i].iov_base, disk.mem + at, n);
        at += n;
    }
    return (int)(at > off ? at - off : 0);
}

/* --- the image and the way back --------------------------------------------------------------- */

void disk_poke(uint64_t off, const void *data, uint64_t len)
{
    must(off + len <= disk.bytes);
    if (disk.undo_arena != NULL) {
        struct disk_undo *u;

        if (disk.nundo == disk.undo_cap) {
            disk.undo_cap = MAX(1024u, disk.undo_cap * 2);
            disk.undo = own_realloc(disk.undo, disk.undo_cap * sizeof(*disk.undo));
            must(disk.undo != NULL);
        }
        u = &disk.undo[disk.nundo++];
        *u = (struct disk_undo){off, len, disk_arena_get(disk.undo_arena, len)};
        memcpy(u->old, disk.mem + off, len);
    }
    if (data != NULL)
        memcpy(disk.mem + off, data, len);
    else
        memset(disk.mem + off, 0, len);
}

uint32_t disk_mark(void)
{
    return disk.nundo;
}

void disk_back(uint32_t mark)
{
    while (disk.nundo > mark) {
        struct disk_undo *u = &disk.undo[--disk.nundo];

        memcpy(disk.mem + u->off, u->old, u->len);
        disk.undo_arena->used = (size_t)(u->old - disk.undo_arena->base);
    }
}
