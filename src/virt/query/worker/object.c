/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The bytes of objects. The daemon puts ranges into slots of the window; a slot that was read
 * whole in order is free for the next range at once, others stay until their place is needed, so
 * that what the engine reads twice (a footer, the first lines) crosses once.
 */
#include "virt/query/worker/worker.h"

#include <errno.h>
#include <string.h>

#define ALIGN_BYTES (4u << 10)
#define SPAN_MIN_BYTES (32u << 10) /* a smaller read costs the daemon as much */
#define TAIL_BYTES (64u << 10)     /* a first read near the end is a Parquet footer */

enum slot_state { SLOT_FREE, SLOT_ASKED, SLOT_THERE };

struct slot {
    enum slot_state state;
    unsigned object;
    uint64_t off;
    uint32_t len;  /* asked, then there */
    uint64_t used; /* when it was last of use */
};

static const struct qw_object *objects;
static unsigned nobjects;
static char *window;
static struct slot slots[QW_SLOTS];
static uint64_t now;
static int first_error;

void qw_objects_set(const struct qw_object *objs, unsigned n, void *win)
{
    objects = objs;
    nobjects = n;
    window = win;
    memset(slots, 0, sizeof(slots));
    first_error = 0;
}

void qw_objects_ahead(uint32_t len)
{
    if (len > 0)
        slots[0] = (struct slot){SLOT_ASKED, 0, 0, len, ++now};
}

unsigned qw_objects_count(void)
{
    return nobjects;
}

const struct qw_object *qw_object_at(unsigned object)
{
    return object < nobjects ? &objects[object] : NULL;
}

int qw_object_error(void)
{
    return first_error;
}

void qw_object_fail(int rc)
{
    if (!first_error)
        first_error = rc;
}

static struct slot *find(unsigned object, uint64_t at)
{
    for (unsigned i = 0; i < QW_SLOTS; i++) {
        struct slot *s = &slots[i];

        if (s->state != SLOT_FREE && s->object == object && at >= s->off && at - s->off < s->len)
            return s;
    }
    return NULL;
}

/* A slot that may be taken: a free one, else the one that was of no use for longest. NULL: all
 * are under way. `in_use` is not taken. */
static struct slot *victim(const struct slot *in_use)
{
    struct slot *best = NULL;

    for (unsigned i = 0; i < QW_SLOTS; i++) {
        struct slot *s = &slots[i];

        if (s->state == SLOT_FREE)
            return s;
        if (s->state == SLOT_THERE && s != in_use && (!best || s->used < best->used))
            best = s;
    }
    return best;
}

static void ask(struct slot *s, unsigned object, uint64_t off, uint32_t len)
{
    struct qw_head h = {
        .a = le64_make(object),
        .b = le64_make(off),
        .slot = le32_make((uint32_t)(s - slots)),
        .want = le32_make(len),
    };

    *s = (struct slot){SLOT_ASKED, object, off, len, ++now};
    qw_stream_send(QW_READ, &h, NULL, 0);
}

/* Takes one answer of the daemon, whichever slot it is for. */
static int take_answer(void)
{
    struct qw_head h;
    struct slot *s;
    int64_t n;

    qw_stream_recv(&h);
    if (le32_get(h.type) != QW_DATA)
        return -EPROTO;
    s = &slots[le32_get(h.slot)];
    n = (int64_t)le64_get(h.a);
    if (s->state != SLOT_ASKED || n > s->len)
        return -EPROTO;
    if (n <= 0) {
        s->state = SLOT_FREE;
        return n ? (int)n : -EIO; /* it is never asked behind the end */
    }
    s->state = SLOT_THERE;
    s->len = (uint32_t)n;
    return 0;
}

/* Whether the window can hold all there is to read of it. */
static bool fits(const struct qw_object *o)
{
    return o->size <= (uint64_t)QW_SLOT_BYTES * (QW_SLOTS - 2);
}

/* Leaves out what another slot has. */
static void clip(unsigned object, uint64_t at, uint64_t *off, uint64_t *end)
{
    for (unsigned i = 0; i < QW_SLOTS; i++) {
        const struct slot *s = &slots[i];

        if (s->state == SLOT_FREE || s->object != object)
            continue;
        if (s->off + s->len <= at && s->off + s->len > *off)
            *off = s->off + s->len;
        if (s->off > at && s->off < *end)
            *end = s->off;
    }
}

/* The range to ask for when `at` is wanted and `need` bytes from there are. */
static void span(unsigned object, uint64_t at, uint64_t need, bool ahead, uint64_t *out_off,
                 uint32_t *out_len)
{
    const struct qw_object *o = &objects[object];
    uint64_t off = at - at % ALIGN_BYTES;
    uint64_t end = at + need;

    if (ahead)
        end = off + QW_SLOT_BYTES;
    if (end - off < SPAN_MIN_BYTES)
        end = off + SPAN_MIN_BYTES;
    if (o->size - at <= TAIL_BYTES && !ahead) {
        off = o->size > TAIL_BYTES ? o->size - TAIL_BYTES : 0;
        end = o->size;
    }
    if (end > o->size)
        end = o->size;
    clip(object, at, &off, &end);
    if (end - off > QW_SLOT_BYTES)
        end = off + QW_SLOT_BYTES;
    *out_off = off;
    *out_len = (uint32_t)(end - off);
}

/* Asks for what follows `s` as far as `end`, as long as there are slots. */
static void ask_ahead(const struct slot *s, uint64_t end)
{
    const struct qw_object *o = &objects[s->object];
    uint64_t at = s->off + s->len;

    if (end > o->size)
        end = o->size;
    while (at < end) {
        struct slot *next = find(s->object, at);
        uint64_t off;
        uint32_t len;

        if (!next) {
            next = victim(s);
            if (!next)
                return;
            if (next->state == SLOT_THERE && next->object == s->object && next->off >= s->off &&
                next->off < end)
                return; /* that one is wanted too */
            span(s->object, at, end - at, false, &off, &len);
            ask(next, s->object, off, len);
        }
        at = next->off + next->len;
    }
}

static struct slot *slot_with(unsigned object, uint64_t at, size_t need, bool ahead)
{
    struct slot *s = find(object, at);
    uint64_t off;
    uint32_t len;

    if (s)
        return s;
    while (!(s = victim(NULL)))
        if (take_answer() < 0)
            return NULL;
    span(object, at, need, ahead, &off, &len);
    ask(s, object, off, len);
    return s;
}

static int failed(int rc)
{
    qw_object_fail(rc);
    return first_error;
}

/* One slot's worth: the bytes from `at` that are in the slot there. */
static ssize_t read_some(unsigned object, uint64_t at, char *buf, size_t len, bool ahead)
{
    struct slot *s = slot_with(object, at, len, ahead);
    uint64_t end = at + len;
    size_t n;

    if (!s)
        return failed(-EIO);
    if (ahead)
        end += (uint64_t)QW_SLOT_BYTES * (QW_SLOTS - 1);
    ask_ahead(s, end);
    while (s->state == SLOT_ASKED) {
        int rc = take_answer();

        if (rc < 0)
            return failed(rc);
    }
    if (s->state != SLOT_THERE || at < s->off || at - s->off >= s->len)
        return failed(-EIO);
    n = s->len - (size_t)(at - s->off);
    if (n > len)
        n = len;
    memcpy(buf, window + (size_t)(s - slots) * QW_SLOT_BYTES + (at - s->off), n);
    s->used = ++now;
    if (at - s->off + n == s->len && (ahead || n == QW_SLOT_BYTES) && !fits(&objects[object]))
        s->state = SLOT_FREE;
    return (ssize_t)n;
}

ssize_t qw_object_read(unsigned object, uint64_t off, void *buf, size_t len, bool ahead)
{
    const struct qw_object *o = &objects[object];
    size_t did = 0;

    if (off >= o->size)
        return 0;
    if (len > o->size - off)
        len = (size_t)(o->size - off);
    if (o->bytes) {
        memcpy(buf, (const char *)o->bytes + off, len);
        return (ssize_t)len;
    }
    if (first_error)
        return first_error;
    while (did < len) {
        ssize_t n = read_some(object, off + did, (char *)buf + did, len - did, ahead);

        if (n < 0)
            return n;
        did += (size_t)n;
    }
    return (ssize_t)did;
}
