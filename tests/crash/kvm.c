/* SPDX-License-Identifier: Apache-2.0 */
#include "kvm.h"
#include "own.h"

#include "disk.h"

#include "base/must.h"

#include <stdio.h>
#include <string.h>

#define KEY_TEXT_MAX 2048

struct change {
    uint32_t key;
    struct kvm_state to;
};

struct op {
    uint32_t first, n; /* of the changes; n 0: a flush */
    uint32_t issued;   /* event */
};

struct event {
    uint32_t tick, op;
    uint8_t kind; /* 0 issue, 1 + enum kvm_end */
};

unsigned kvm_blamed;
bool kvm_any_order;

static struct {
    struct bytes key[KVM_KEYS + KVM_EXTRA];
    bool durable;
    struct change *change;
    struct op *op;
    struct event *event;
    uint32_t nchanges, nops, nevents;
    uint32_t change_cap, op_cap, event_cap;
    uint32_t at; /* events taken into the view */
    struct kvm_view view[KVM_KEYS];
} m;

/* --- keys and values -------------------------------------------------------------------------- */

/* Keys of all lengths, in ascending order. */
void kvm_init(void)
{
    static const unsigned lens[] = {4, 5, 8, 16, 16, 24, 31, 32, 60, 127, 128, 255, 300, 16};

    for (unsigned i = 0; i < KVM_KEYS + KVM_EXTRA; i++) {
        unsigned len = i % 61 == 60 ? KEY_TEXT_MAX : lens[i % ARRAY_LEN(lens)];
        char *text = own_alloc(len + 1);

        must(text != NULL);
        memset(text, 'a' + (int)(i % 3), len + 1);
        text[0] = i < KVM_KEYS ? 'k' : 'x';
        text[1] = (char)('0' + i / 100);
        text[2] = (char)('0' + i / 10 % 10);
        text[3] = (char)('0' + i % 10);
        m.key[i] = bytes_make(text, len);
    }
}

struct bytes kvm_key(unsigned i)
{
    must(i < KVM_KEYS + KVM_EXTRA);
    return m.key[i];
}

int kvm_key_find(struct bytes key)
{
    unsigned i;
    const char *p = (const char *)key.ptr;

    if (key.len < 4)
        return -1;
    i = (unsigned)(p[1] - '0') * 100 + (unsigned)(p[2] - '0') * 10 + (unsigned)(p[3] - '0');
    return i < KVM_KEYS + KVM_EXTRA && bytes_eq(m.key[i], key) ? (int)i : -1;
}

uint64_t kvm_len(const struct kvm_state *s)
{
    uint64_t len = 0;

    for (unsigned i = 0; i < s->n; i++)
        len += s->piece[i].len;
    return len;
}

/* The bytes of a short value. */
static void content(const struct kvm_state *s, uint8_t *out)
{
    for (unsigned i = 0; i < s->n; i++) {
        kvm_fill(out, s->piece[i].id, 0, s->piece[i].len);
        out += s->piece[i].len;
    }
}

/* Short values of several writers may be the same: those of one byte are. */
bool kvm_state_eq(const struct kvm_state *a, const struct kvm_state *b)
{
    uint8_t bytes[2][16];

    if (a->there != b->there)
        return false;
    if (!a->there)
        return true;
    if (kvm_len(a) == kvm_len(b) && kvm_len(a) <= sizeof(bytes[0])) {
        content(a, bytes[0]);
        content(b, bytes[1]);
        return memcmp(bytes[0], bytes[1], kvm_len(a)) == 0;
    }
    return a->n == b->n && memcmp(a->piece, b->piece, a->n * sizeof(a->piece[0])) == 0;
}

static uint64_t word(uint32_t id, uint64_t i)
{
    uint64_t z = (uint64_t)id << 32 ^ i * 0x9e3779b97f4a7c15u;

    z = (z ^ z >> 29) * 0xbf58476d1ce4e5b9u;
    return i == 0 ? (uint64_t)id << 8 | 0xa5 : z ^ z >> 31;
}

/* A third of the values can be compressed: their words repeat. */
void kvm_fill(uint8_t *out, uint32_t id, uint64_t off, size_t len)
{
    uint64_t mask = id % 3 == 0 ? 7 : UINT64_MAX;

    for (size_t i = 0; i < len;) {
        uint64_t w = word(id, (off + i) / 8 & mask);
        size_t skip = (off + i) % 8, n = MIN(8 - skip, len - i);

        memcpy(out + i, (uint8_t *)&w + skip, n);
        i += n;
    }
}

bool kvm_is(const struct kvm_state *s, const uint8_t *buf, uint64_t off, size_t len)
{
    uint8_t want[1024];

    for (unsigned i = 0; i < s->n && len > 0; i++) {
        uint64_t left;

        if (off >= s->piece[i].len) {
            off -= s->piece[i].len;
            continue;
        }
        left = MIN(len, s->piece[i].len - off);
        while (left > 0) {
            size_t n = MIN(left, sizeof(want));

            kvm_fill(want, s->piece[i].id, off, n);
            if (memcmp(want, buf, n) != 0)
                return false;
            buf += n;
            off += n;
            left -= n;
            len -= n;
        }
        off = 0;
    }
    return len == 0;
}

const char *kvm_text(const struct kvm_state *s)
{
    static char text[4][160];
    static unsigned turn;
    char *out = text[turn++ % 4];
    size_t at = 0;

    if (!s->there)
        return "absent";
    at = (size_t)snprintf(out, 160, "value");
    for (unsigned i = 0; i < s->n; i++)
        at += (size_t)snprintf(out + at, 160 - at, " %u:%u", s->piece[i].id, s->piece[i].len);
    return out;
}

/* --- what happened ---------------------------------------------------------------------------- */

static void *grow(void *p, uint32_t n, uint32_t *cap, size_t each)
{
    if (n < *cap)
        return p;
    *cap = MAX(1024u, *cap * 2);
    p = own_realloc(p, *cap * each);
    must(p != NULL);
    return p;
}

void kvm_reset(bool acks_are_durable)
{
    m.durable = acks_are_durable;
    m.nchanges = m.nops = m.nevents = 0;
    kvm_begin();
}

static void note(uint32_t op, uint8_t kind)
{
    m.event = grow(m.event, m.nevents, &m.event_cap, sizeof(*m.event));
    m.event[m.nevents++] = (struct event){disk.log.ticks, op, kind};
}

uint32_t kvm_issue(unsigned n, const unsigned *key, const struct kvm_state *to)
{
    m.op = grow(m.op, m.nops, &m.op_cap, sizeof(*m.op));
    m.op[m.nops] = (struct op){.first = m.nchanges, .n = n, .issued = m.nevents};
    for (unsigned i = 0; i < n; i++) {
        m.change = grow(m.change, m.nchanges, &m.change_cap, sizeof(*m.change));
        m.change[m.nchanges++] = (struct change){key[i], to[i]};
    }
    note(m.nops, 0);
    return m.nops++;
}

uint32_t kvm_issue_flush(void)
{
    return kvm_issue(0, NULL, NULL);
}

void kvm_end(uint32_t op, enum kvm_end how)
{
    note(op, (uint8_t)(1 + how));
}

/* --- what may be there ------------------------------------------------------------------------ */

void kvm_begin(void)
{
    m.at = 0;
    for (unsigned i = 0; i < KVM_KEYS; i++)
        m.view[i] = (struct kvm_view){.n = 1, .maybe = {{.op = UINT32_MAX}}};
}

static void drop_before(struct kvm_view *v, unsigned keep)
{
    v->n -= keep;
    memmove(v->maybe, v->maybe + keep, v->n * sizeof(v->maybe[0]));
}

static void end_change(struct kvm_view *v, uint32_t op, enum kvm_end how, uint32_t event)
{
    for (unsigned i = 1; i < v->n; i++) {
        if (v->maybe[i].op != op)
            continue;
        if (how == KVM_NOT_DONE) {
            memmove(&v->maybe[i], &v->maybe[i + 1], (v->n - i - 1) * sizeof(v->maybe[0]));
            v->n--;
        } else if (how == KVM_DONE) {
            v->maybe[i].acked = event;
            if (m.durable)
                drop_before(v, i);
        }
        return;
    }
}

static void flushed(uint32_t event)
{
    for (unsigned k = 0; k < KVM_KEYS; k++) {
        struct kvm_view *v = &m.view[k];
        unsigned keep = 0;

        for (unsigned i = 1; i < v->n; i++)
            if (v->maybe[i].acked < event)
                keep = i;
        drop_before(v, keep);
    }
}

static void take_in(uint32_t at)
{
    const struct event *ev = &m.event[at];
    const struct op *op = &m.op[ev->op];

    if (op->n == 0 && ev->kind == 1 + KVM_DONE)
        flushed(op->issued);
    for (uint32_t i = 0; i < op->n; i++) {
        const struct change *c = &m.change[op->first + i];
        struct kvm_view *v = &m.view[c->key];

        if (ev->kind == 0) {
            must(v->n < KVM_MAYBE);
            v->maybe[v->n++] = (struct kvm_maybe){c->to, ev->op, UINT32_MAX};
        } else {
            end_change(v, ev->op, (enum kvm_end)(ev->kind - 1), at);
        }
    }
}

void kvm_to(uint32_t tick)
{
    for (; m.at < m.nevents && m.event[m.at].tick <= tick; m.at++)
        take_in(m.at);
}

const struct kvm_view *kvm_view(unsigned key)
{
    return &m.view[key];
}

void kvm_settle(const uint8_t at[KVM_KEYS])
{
    for (unsigned k = 0; k < KVM_KEYS; k++)
        m.view[k] = (struct kvm_view){
            .n = 1, .maybe = {{.state = m.view[k].maybe[at[k]].state, .op = UINT32_MAX}}};
    m.nchanges = m.nops = m.nevents = m.at = 0;
}

/* The same where requests may overtake each other: what another has left tells nothing of it. */
static int side_of_any_order(const struct kvm_view *v, uint32_t op, unsigned at)
{
    for (unsigned k = 0; k < v->n; k++)
        if (k != at && kvm_state_eq(&v->maybe[k].state, &v->maybe[at].state))
            return -1;
    if (at == 0)
        return 0;
    return v->maybe[at].op == op ? 1 : -1;
}

/* Whether the key is as after `op`: 1, before it: 0; -1 when one cannot tell. */
static int side(unsigned key, uint32_t op, unsigned at)
{
    const struct kvm_view *v = &m.view[key];

    for (unsigned i = 1; i < v->n; i++) {
        if (v->maybe[i].op != op)
            continue;
        if (kvm_any_order)
            return side_of_any_order(v, op, at);
        for (unsigned k = 0; k < v->n; k++)
            if ((k >= i) != (at >= i) && kvm_state_eq(&v->maybe[k].state, &v->maybe[at].state))
                return -1;
        return at >= i;
    }
    return -1;
}

int kvm_half(const uint8_t at[KVM_KEYS], char *out_text, size_t max)
{
    for (unsigned k = 0; k < KVM_KEYS; k++) {
        for (unsigned i = 1; i < m.view[k].n; i++) {
            const struct op *op = &m.op[m.view[k].maybe[i].op];
            int first = -1;

            for (unsigned c = 0; c < op->n; c++) {
                unsigned key = m.change[op->first + c].key;
                int s = side(key, m.view[k].maybe[i].op, at[key]);

                if (s < 0)
                    continue;
                if (first >= 0 && s != first) {
                    snprintf(out_text, max, "batch %u of %u keys is half there: key %u is %s",
                             m.view[k].maybe[i].op, op->n, key, s ? "new" : "old");
                    return (int)m.view[k].maybe[i].op;
                }
                first = s;
            }
        }
    }
    return -1;
}

/* --- for people ------------------------------------------------------------------------------- */

void kvm_show(unsigned key)
{
    static const char *const what[] = {"begins", "done", "not done", "unknown"};
    uint32_t begin = m.at > 4000 ? m.at - 4000 : 0;

    for (uint32_t e = begin; e < m.at; e++) {
        const struct op *op = &m.op[m.event[e].op];

        for (uint32_t i = 0; i < op->n; i++)
            if (m.change[op->first + i].key == key)
                printf("    tick %u: change %u of %u keys %s: key %u: %s\n", m.event[e].tick,
                       m.event[e].op, op->n, what[m.event[e].kind], key,
                       kvm_text(&m.change[op->first + i].to));
    }
}
