/* SPDX-License-Identifier: Apache-2.0 */
#include "blobm.h"
#include "own.h"

#include "disk.h"

#include "base/must.h"

#include <stdio.h>
#include <string.h>

struct event {
    uint32_t tick, op;
    uint8_t kind; /* 0 issue, 1 + enum blobm_end */
};

static struct {
    struct blobm_op *op;
    struct event *event;
    uint32_t nops, nevents, op_cap, event_cap;
    uint32_t contents;
    uint32_t at;
    struct blobm_family family[BLOBM_FAMILIES];
    uint32_t under_way[BLOBM_FAMILIES]; /* op + 1 of metadata */
} m;

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

void blobm_reset(void)
{
    m.nops = m.nevents = m.contents = 0;
    blobm_begin();
}

static void note(uint32_t op, uint8_t kind)
{
    m.event = grow(m.event, m.nevents, &m.event_cap, sizeof(*m.event));
    m.event[m.nevents++] = (struct event){disk.log.ticks, op, kind};
}

uint32_t blobm_issue(const struct blobm_op *op)
{
    m.op = grow(m.op, m.nops, &m.op_cap, sizeof(*m.op));
    m.op[m.nops] = *op;
    m.op[m.nops].issued = m.nevents;
    note(m.nops, 0);
    return m.nops++;
}

void blobm_end(uint32_t op, enum blobm_end how, uint64_t id)
{
    m.op[op].id = id;
    note(op, (uint8_t)(1 + how));
}

uint32_t blobm_content(void)
{
    return ++m.contents;
}

/* --- changes of metadata ---------------------------------------------------------------------- */

static void set_all(struct sector *s, uint32_t first, uint32_t n, uint32_t content)
{
    for (uint32_t i = first; i < first + n; i++)
        sector_reset(&s[i], content);
}

/* A blob that shows what another one has. */
static void share(struct blobm_slot *to, const struct blobm_slot *from)
{
    memcpy(to->sector, from->sector, BLOBM_SECTORS * sizeof(*to->sector));
    to->clusters = from->clusters;
    to->there = true;
    to->thin = true;
}

unsigned blobm_external(const struct blobm_family *fam, const struct blobm_slot *s)
{
    while (s->parent != 0)
        s = &fam->slot[s->parent - 1];
    return s->external;
}

/* New clusters of a clone show what its parent has there, or the external one it stands on. */
static void resize(struct blobm_family *fam, struct blobm_slot *s, uint32_t clusters)
{
    const struct blobm_slot *p = s->parent != 0 ? &fam->slot[s->parent - 1] : NULL;
    uint32_t end = clusters * BLOBM_CLUSTER_SECTORS;

    for (uint32_t i = s->clusters * BLOBM_CLUSTER_SECTORS; i < end; i++) {
        if (p != NULL && i < p->clusters * BLOBM_CLUSTER_SECTORS)
            s->sector[i] = p->sector[i];
        else
            sector_reset(&s->sector[i],
                         s->external != 0 ? external_sector(s->external - 1u, i) : 0);
    }
    s->clusters = clusters;
    s->allocated &= (1u << clusters) - 1;
}

static void remove_slot(struct blobm_family *fam, unsigned slot)
{
    struct blobm_slot *s = &fam->slot[slot];
    struct sector *sector = s->sector;

    for (unsigned i = 0; i < BLOBM_SLOTS; i++) {
        if (fam->slot[i].there && fam->slot[i].parent == slot + 1) {
            fam->slot[i].parent = s->parent;
            fam->slot[i].external = s->external;
            fam->slot[i].allocated |= s->allocated & ((1u << fam->slot[i].clusters) - 1);
        }
    }
    *s = (struct blobm_slot){.sector = sector};
}

/* A range of clusters is allocated, or given back. */
static void range(struct blobm_slot *s, const struct blobm_op *op)
{
    for (uint32_t c = op->first; c < op->first + op->n; c++) {
        bool has = (s->allocated >> c & 1) != 0;

        if (op->kind == BLOBM_RELEASE || !has)
            set_all(s->sector, c * BLOBM_CLUSTER_SECTORS, BLOBM_CLUSTER_SECTORS,
                    op->kind == BLOBM_RELEASE ? 0 : BLOBM_ANY);
        if (op->kind == BLOBM_RELEASE)
            s->allocated &= ~(1u << c);
        else
            s->allocated |= 1u << c;
    }
}

static void create(struct blobm_slot *s, const struct blobm_op *op)
{
    *s = (struct blobm_slot){.there = true,
                             .thin = op->thin,
                             .clusters = op->n,
                             .id = op->id,
                             .external = op->external,
                             .sector = s->sector,
                             .allocated = op->thin ? 0 : (1u << op->n) - 1};
    if (op->content != 0)
        s->xattr[0] = (struct blobm_xattr){op->content, (uint16_t)op->first};
    set_all(s->sector, 0, op->n * BLOBM_CLUSTER_SECTORS, 0);
    for (uint32_t i = 0; op->external != 0 && i < op->n * BLOBM_CLUSTER_SECTORS; i++)
        sector_reset(&s->sector[i], external_sector(op->external - 1u, i));
}

/* What the direct parent has becomes its own, or all that an external one shows. */
static void decouple(const struct blobm_family *fam, struct blobm_slot *s)
{
    const struct blobm_slot *p = s->parent != 0 ? &fam->slot[s->parent - 1] : NULL;

    s->allocated |= (p != NULL ? p->allocated : UINT32_MAX) & ((1u << s->clusters) - 1);
    s->parent = p != NULL ? p->parent : 0;
    s->external = p != NULL ? p->external : 0;
}

void blobm_apply(struct blobm_family *fam, const struct blobm_op *op)
{
    struct blobm_slot *s = &fam->slot[op->slot], *to = &fam->slot[op->slot2];

    switch (op->kind) {
    case BLOBM_CREATE:
        create(s, op);
        break;
    case BLOBM_DELETE:
        remove_slot(fam, op->slot);
        break;
    case BLOBM_RESIZE:
        resize(fam, s, op->n);
        break;
    case BLOBM_XATTR:
        s->xattr[op->first] = (struct blobm_xattr){op->content, (uint16_t)op->n};
        break;
    case BLOBM_SNAPSHOT:
        *to = (struct blobm_slot){.sector = to->sector};
        share(to, s);
        to->snapshot = true;
        to->parent = s->parent;
        to->external = s->external;
        s->external = 0;
        to->allocated = s->allocated;
        to->id = op->id;
        s->parent = (uint8_t)(op->slot2 + 1);
        s->thin = true;
        s->allocated = 0;
        break;
    case BLOBM_CLONE:
        *to = (struct blobm_slot){.sector = to->sector};
        share(to, s);
        to->parent = (uint8_t)(op->slot + 1);
        to->id = op->id;
        break;
    case BLOBM_INFLATE:
        s->parent = s->external = 0;
        s->thin = false;
        s->allocated = (1u << s->clusters) - 1;
        break;
    case BLOBM_DECOUPLE:
        decouple(fam, s);
        break;
    case BLOBM_ALLOCATE:
    case BLOBM_RELEASE:
        range(s, op);
        break;
    default:
        break;
    }
}

/* --- what may be there ------------------------------------------------------------------------ */

void blobm_begin(void)
{
    m.at = 0;
    for (unsigned f = 0; f < BLOBM_FAMILIES; f++) {
        m.under_way[f] = 0;
        for (unsigned i = 0; i < BLOBM_SLOTS; i++) {
            struct blobm_slot *s = &m.family[f].slot[i];
            struct sector *sector =
                s->sector != NULL ? s->sector : own_alloc(BLOBM_SECTORS * sizeof(*sector));

            must(sector != NULL);
            *s = (struct blobm_slot){.sector = sector};
        }
    }
}

static void flushed(uint32_t event)
{
    for (unsigned f = 0; f < BLOBM_FAMILIES; f++) {
        for (unsigned i = 0; i < BLOBM_SLOTS; i++) {
            struct blobm_slot *s = &m.family[f].slot[i];

            for (uint32_t k = 0; s->there && k < s->clusters * BLOBM_CLUSTER_SECTORS; k++)
                sector_flushed(&s->sector[k], event);
        }
    }
}

static void take_data(const struct blobm_op *op, uint32_t at)
{
    struct blobm_slot *s = &m.family[op->family].slot[op->slot];
    uint8_t kind = m.event[at].kind;

    if (op->kind == BLOBM_FLUSH) {
        if (kind == 1 + BLOBM_DONE)
            flushed(op->issued);
        return;
    }
    for (uint32_t i = op->first; i < op->first + op->n; i++) {
        if (kind == 0)
            sector_write(&s->sector[i], op->content);
        else if (kind == 1 + BLOBM_DONE)
            sector_acked(&s->sector[i], op->content, at);
        if (kind == 1 + BLOBM_DONE && op->kind == BLOBM_WRITE)
            s->allocated |= 1u << i / BLOBM_CLUSTER_SECTORS;
        if (kind == 1 + BLOBM_DONE && op->kind == BLOBM_UNMAP)
            s->allocated &= ~(1u << i / BLOBM_CLUSTER_SECTORS);
    }
}

/* Clusters that are being given back: each sector is old or zeroes until it is done. */
static void release_begins(const struct blobm_op *op)
{
    struct blobm_slot *s = &m.family[op->family].slot[op->slot];
    uint32_t first = op->first * BLOBM_CLUSTER_SECTORS;

    for (uint32_t i = first; i < first + op->n * BLOBM_CLUSTER_SECTORS; i++)
        sector_write(&s->sector[i], 0);
}

static void take_in(uint32_t at)
{
    const struct event *ev = &m.event[at];
    const struct blobm_op *op = &m.op[ev->op];

    if (op->kind >= BLOBM_WRITE) {
        take_data(op, at);
    } else if (ev->kind == 0) {
        m.under_way[op->family] = ev->op + 1;
        if (op->kind == BLOBM_RELEASE)
            release_begins(op);
    } else if (ev->kind == 1 + BLOBM_DONE) {
        blobm_apply(&m.family[op->family], op);
        m.under_way[op->family] = 0;
    } else if (ev->kind == 1 + BLOBM_NOT_DONE) {
        m.under_way[op->family] = 0;
    }
}

void blobm_to(uint32_t tick)
{
    for (; m.at < m.nevents && m.event[m.at].tick <= tick; m.at++)
        take_in(m.at);
}

const struct blobm_family *blobm_family(unsigned f)
{
    return &m.family[f];
}

bool blobm_next(unsigned f, struct blobm_family *out)
{
    static struct sector changed[2][BLOBM_SECTORS];
    const struct blobm_op *op;

    if (m.under_way[f] == 0)
        return false;
    op = &m.op[m.under_way[f] - 1];
    *out = m.family[f];
    for (unsigned i = 0; i < 2; i++) {
        struct blobm_slot *s = &out->slot[i == 0 ? op->slot : op->slot2];

        if (i == 1 && op->slot2 == op->slot)
            break;
        memcpy(changed[i], s->sector, sizeof(changed[i]));
        s->sector = changed[i];
    }
    blobm_apply(out, op);
    return true;
}

/* --- contents --------------------------------------------------------------------------------- */

void blobm_xattr_fill(uint8_t *out, uint32_t content, size_t len)
{
    for (size_t i = 0; i < len; i++)
        out[i] = (uint8_t)(content * 167 + i * (13 + content % 7));
}

bool blobm_sector_is(const struct blobm_slot *s, uint32_t sector, const uint8_t *bytes)
{
    const struct sector *want = &s->sector[sector];

    for (unsigned i = 0; i < want->n; i++)
        if (want->id[i] == BLOBM_ANY)
            return true;
    return sector_match(want, bytes, sector) >= 0;
}

/* --- for people ------------------------------------------------------------------------------- */

static void show_op(const struct blobm_op *op)
{
    static const char *const name[] = {"create", "delete",  "resize",   "xattr",    "snapshot",
                                       "clone",  "inflate", "decouple", "allocate", "release",
                                       "write",  "zero",    "unmap",    "flush"};

    printf("    under way: family %u: %s of %u (and %u), %u + %u, %s, blob %llx\n", op->family,
           name[op->kind], op->slot, op->slot2, op->first, op->n, op->thin ? "thin" : "thick",
           (unsigned long long)op->id);
}

void blobm_show(void)
{
    for (unsigned f = 0; f < BLOBM_FAMILIES; f++) {
        for (unsigned i = 0; i < BLOBM_SLOTS; i++) {
            const struct blobm_slot *s = &m.family[f].slot[i];

            if (s->there)
                printf("    family %u, %u: blob %llx, %u clusters, parent %d, external %d%s%s\n", f,
                       i, (unsigned long long)s->id, s->clusters, s->parent - 1, s->external - 1,
                       s->thin ? ", thin" : "", s->snapshot ? ", snapshot" : "");
        }
        if (m.under_way[f] != 0)
            show_op(&m.op[m.under_way[f] - 1]);
    }
}
