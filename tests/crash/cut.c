/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a power cut may leave: everything a completed flush had covered, and of the rest any part,
 * sector by sector. Of two writes to one sector the later one never comes before the earlier one,
 * unless they were in flight together.
 */
#include "disk.h"
#include "own.h"

#include "base/must.h"

#include <stdio.h>
#include <string.h>

void disk_cut_begin(struct disk_cut *c, struct disk_log *log)
{
    *c = (struct disk_cut){.log = log, .cap = 256};
    c->pending = own_alloc(c->cap * sizeof(*c->pending));
    must(c->pending != NULL);
    c->newer = own_alloc(disk.bytes / DISK_SECTOR_BYTES * sizeof(*c->newer));
    for (uint32_t i = 0; i < log->n; i++)
        log->op[i].durable = false;
}

void disk_cut_end(struct disk_cut *c)
{
    own_free(c->pending);
    own_free(c->newer);
    c->pending = NULL;
}

static void add_pending(struct disk_cut *c, uint32_t op)
{
    if (c->npending == c->cap) {
        c->cap *= 2;
        c->pending = own_realloc(c->pending, c->cap * sizeof(*c->pending));
        must(c->pending != NULL);
    }
    c->pending[c->npending++] = op;
}

/* A write that failed has happened in part or not: it stays pending for ever. */
static bool is_kept_by(const struct disk_op *op, const struct disk_op *flush)
{
    return op->complete < flush->submit && !op->lost && !op->failed;
}

/* A completed flush: what had completed before it was sent is on the medium, in the order of
 * completion, which is the order in which reads saw it. */
static void make_durable(struct disk_cut *c, const struct disk_op *flush)
{
    struct disk_arena *arena = disk.undo_arena;
    uint32_t left = 0;

    if (!c->undoable)
        disk.undo_arena = NULL;
    for (;;) {
        struct disk_op *first = NULL;

        for (uint32_t i = 0; i < c->npending; i++) {
            struct disk_op *op = &c->log->op[c->pending[i]];

            if (!op->durable && is_kept_by(op, flush) &&
                (first == NULL || op->complete < first->complete))
                first = op;
        }
        if (first == NULL)
            break;
        disk_poke(first->off, first->data, first->len);
        for (uint64_t s = first->off / 512; s < (first->off + first->len + 511) / 512; s++)
            c->newer[s] = first->submit;
        first->durable = true;
    }
    for (uint32_t i = 0; i < c->npending; i++)
        if (!c->log->op[c->pending[i]].durable)
            c->pending[left++] = c->pending[i];
    c->npending = left;
    disk.undo_arena = arena;
}

void disk_cut_to(struct disk_cut *c, uint32_t tick)
{
    must(tick <= c->log->ticks);
    for (; c->tick < tick; c->tick++) {
        const struct disk_event *ev = &c->log->event[c->tick];
        struct disk_op *op = &c->log->op[ev->op];

        if (!ev->completes && op->kind != DISK_FLUSH)
            add_pending(c, ev->op);
        else if (ev->completes && op->kind == DISK_FLUSH && !op->failed)
            make_durable(c, op);
    }
}

/* --- images ----------------------------------------------------------------------------------- */

/* What failed, or was lost by a flush that failed, happened before it was answered: it does not
 * come over something newer that is durable. */
static bool is_old(const struct disk_cut *c, const struct disk_op *op, uint64_t off)
{
    return op->complete < c->newer[off / DISK_SECTOR_BYTES];
}

/* Applies each sector (page, where pages are whole) with a chance of `of_eight`. */
static void apply_torn(const struct disk_cut *c, const struct disk_op *op, struct dice *dice,
                       unsigned of_eight)
{
    uint64_t at = 0;

    while (at < op->len) {
        uint64_t n = disk_atom(op->off + at, op->len - at);

        if (dice_below(dice, 8) < of_eight && !is_old(c, op, op->off + at))
            disk_poke(op->off + at, op->data == NULL ? NULL : op->data + at, n);
        at += n;
    }
}

/* A moment for each pending write between its submission and its completion: their order. */
struct moment {
    double at;
    uint32_t op;
};

static int by_moment(const void *a, const void *b)
{
    const struct moment *x = a, *y = b;

    if (x->at != y->at)
        return x->at < y->at ? -1 : 1;
    return x->op < y->op ? -1 : 1;
}

static void order(struct disk_cut *c, struct dice *dice, struct moment *m)
{
    for (uint32_t i = 0; i < c->npending; i++) {
        const struct disk_op *op = &c->log->op[c->pending[i]];
        uint32_t end = MIN(op->complete, c->tick);

        m[i].op = c->pending[i];
        m[i].at = op->submit + (double)(end - op->submit) * (double)dice_below(dice, 1024) / 1024;
    }
    qsort(m, c->npending, sizeof(*m), by_moment);
}

static void apply_whole(const struct disk_cut *c, const struct disk_op *op)
{
    if (!op->failed && !op->lost) {
        disk_poke(op->off, op->data, op->len);
        return;
    }
    for (uint64_t at = 0; at < op->len; at += DISK_SECTOR_BYTES)
        if (!is_old(c, op, op->off + at))
            disk_poke(op->off + at, op->data == NULL ? NULL : op->data + at,
                      MIN(op->len - at, DISK_SECTOR_BYTES));
}

void disk_cut_image(struct disk_cut *c, struct dice *dice, char out_how[64])
{
    struct moment *m = own_alloc((c->npending + 1) * sizeof(*m));
    unsigned how = (unsigned)dice_below(dice, 8), n = c->npending;
    uint64_t edge;

    must(m != NULL);
    order(c, dice, m);
    edge = dice_below(dice, n + 1);
    switch (how) {
    case 0:
        snprintf(out_how, 64, "none of %u pending", n);
        break;
    case 1:
        snprintf(out_how, 64, "all of %u pending", n);
        for (unsigned i = 0; i < n; i++)
            apply_whole(c, &c->log->op[m[i].op]);
        break;
    case 2:
    case 3: /* in order up to some point, and there, perhaps, half a write */
        snprintf(out_how, 64, "the first %u of %u pending%s", (unsigned)edge, n,
                 how == 3 ? " and a torn one" : "");
        for (unsigned i = 0; i < edge; i++)
            apply_whole(c, &c->log->op[m[i].op]);
        if (how == 3 && edge < n)
            apply_torn(c, &c->log->op[m[edge].op], dice, 4);
        break;
    case 4: /* all but one */
        snprintf(out_how, 64, "all but number %u of %u pending", (unsigned)edge, n);
        for (unsigned i = 0; i < n; i++)
            if (i != edge)
                apply_whole(c, &c->log->op[m[i].op]);
        break;
    case 5: /* whole writes, any */
        snprintf(out_how, 64, "some of %u pending", n);
        for (unsigned i = 0; i < n; i++)
            if (dice_one_in(dice, 2))
                apply_whole(c, &c->log->op[m[i].op]);
        break;
    default: /* any sectors */
        snprintf(out_how, 64, "some sectors of %u pending (%u)", n, how);
        for (unsigned i = 0; i < n; i++)
            apply_torn(c, &c->log->op[m[i].op], dice, how == 6 ? 4 : 7);
    }
    own_free(m);
}
