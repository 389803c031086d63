/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/model_blk.h"

#include "sim/content.h"
#include "sim/world.h"

#include <stdio.h>
#include <string.h>

#define ZOMBIE_NS                                                                                  \
    (90 * NS_PER_S) /* after which a write of unknown outcome does not happen any more */

void model_blk_init(struct model_blk *m, const char *name, uint64_t place, uint32_t nsectors)
{
    *m = (struct model_blk){.name = name, .place = place, .nsectors = nsectors, .next_id = 1};
    m->sector = calloc(nsectors, sizeof(*m->sector));
    must(m->sector != NULL);
}

void model_blk_fini(struct model_blk *m)
{
    free(m->sector);
}

static void drop(struct model_sector *s, unsigned i)
{
    s->nwrites--;
    memmove(&s->write[i], &s->write[i + 1], (s->nwrites - i) * sizeof(s->write[0]));
}

static struct model_write *find(struct model_sector *s, uint32_t id)
{
    for (unsigned i = s->nwrites; i > 0; i--) {
        if (s->write[i - 1].id == id)
            return &s->write[i - 1];
    }
    return NULL;
}

static bool settled(const struct model_blk *m, const struct model_write *w)
{
    return !w->acked && !w->in_flight &&
           (w->end_ns <= m->settled_ns || w->end_ns + ZOMBIE_NS < sim.now_ns);
}

/* What is to be seen when nothing of unknown outcome happened. */
static uint32_t last_acked(const struct model_sector *s)
{
    for (unsigned i = s->nwrites; i > 0; i--) {
        if (s->write[i - 1].acked)
            return s->write[i - 1].id;
    }
    return s->floor;
}

bool model_blk_room(const struct model_blk *m, uint32_t first, uint32_t n)
{
    for (uint32_t i = first; i < first + n; i++) {
        if (m->sector[i].nwrites == MODEL_WRITES_MAX)
            return false;
    }
    return true;
}

void model_blk_write(struct model_blk *m, uint32_t first, uint32_t n, uint32_t id)
{
    for (uint32_t i = first; i < first + n; i++) {
        struct model_sector *s = &m->sector[i];

        must(s->nwrites < MODEL_WRITES_MAX);
        s->write[s->nwrites++] = (struct model_write){.id = id, .in_flight = true};
    }
}

/* `id` is durable: what was acknowledged before it is history. */
static void raise_floor(struct model_sector *s, unsigned upto)
{
    s->floor = s->write[upto].id;
    for (unsigned i = upto + 1; i > 0; i--) {
        if (i - 1 == upto || s->write[i - 1].acked)
            drop(s, i - 1);
    }
}

void model_blk_written(struct model_blk *m, uint32_t first, uint32_t n, uint32_t id, bool acked,
                       bool durable)
{
    m->seq++;
    for (uint32_t i = first; i < first + n; i++) {
        struct model_sector *s = &m->sector[i];
        struct model_write *w = find(s, id);

        must(w != NULL);
        must(w->in_flight);
        w->in_flight = false;
        w->acked = acked;
        w->seq = m->seq;
        w->end_ns = sim.now_ns;
        if (acked && durable)
            raise_floor(s, (unsigned)(w - s->write));
    }
}

void model_blk_refused(struct model_blk *m, uint32_t first, uint32_t n, uint32_t id)
{
    for (uint32_t i = first; i < first + n; i++) {
        struct model_sector *s = &m->sector[i];
        struct model_write *w = find(s, id);

        must(w != NULL);
        drop(s, (unsigned)(w - s->write));
    }
}

struct model_flush model_blk_flush(const struct model_blk *m)
{
    return (struct model_flush){.seq = m->seq, .crashes = m->crashes};
}

/* A flush that a crash of the server fell into says nothing: what it was for may have been lost
 * before it began anew. */
void model_blk_flushed(struct model_blk *m, struct model_flush f)
{
    if (f.crashes != m->crashes)
        return;
    for (uint32_t k = 0; k < m->nsectors; k++) {
        struct model_sector *s = &m->sector[k];

        for (unsigned i = s->nwrites; i > 0 && !s->cut; i--) {
            if (s->write[i - 1].doubtful)
                break;
            if (s->write[i - 1].acked && s->write[i - 1].seq <= f.seq) {
                raise_floor(s, i - 1);
                break;
            }
        }
    }
}

void model_blk_flush_failed(struct model_blk *m)
{
    for (uint32_t k = 0; k < m->nsectors; k++) {
        for (unsigned i = 0; i < m->sector[k].nwrites; i++)
            m->sector[k].write[i].doubtful = true;
    }
}

void model_blk_crash(struct model_blk *m, bool power)
{
    m->crashes++;
    m->crash_seq = m->seq;
    m->settled_ns = sim.now_ns;
    for (uint32_t i = 0; power && i < m->nsectors; i++)
        m->sector[i].cut = true;
}

void model_blk_orphan(struct model_blk *m)
{
    for (uint32_t k = 0; k < m->nsectors; k++) {
        struct model_sector *s = &m->sector[k];

        for (unsigned i = 0; i < s->nwrites; i++) {
            if (s->write[i].in_flight) {
                s->write[i].in_flight = false;
                s->write[i].end_ns = sim.now_ns;
            }
        }
    }
}

static bool may_be_seen(const struct model_sector *s, uint32_t id)
{
    if (id == last_acked(s) || (s->cut && id == s->floor))
        return true;
    for (unsigned i = 0; i < s->nwrites; i++) {
        if (s->write[i].id == id && (s->cut || !s->write[i].acked))
            return true;
    }
    return false;
}

/* What is read after a power cut is what is on the disk, unless it was written since. */
static void seen_after_cut(struct model_blk *m, struct model_sector *s, uint32_t id)
{
    const struct model_write *w = find(s, id);

    s->cut = false;
    if (w != NULL && w->acked && w->seq > m->crash_seq)
        return;
    s->floor = id;
    for (unsigned i = s->nwrites; i > 0; i--) {
        if (s->write[i - 1].acked || settled(m, &s->write[i - 1]))
            drop(s, i - 1);
    }
}

/*
 * Settles what has an unknown outcome and cannot happen any more. If it is seen it happened after
 * all that was acknowledged. If something acknowledged is seen instead, it happened before that,
 * so a power cut could still bring it back, or never; below the floor it is of no interest.
 */
static void settle(struct model_blk *m, struct model_sector *s, uint32_t id)
{
    struct model_write first[MODEL_WRITES_MAX], rest[MODEL_WRITES_MAX], late = {0};
    bool is_late = id != last_acked(s), any_acked = is_late;
    unsigned nfirst = 0, nrest = 0;

    for (unsigned i = 0; i < s->nwrites; i++)
        any_acked |= s->write[i].acked;
    for (unsigned i = 0; i < s->nwrites; i++) {
        struct model_write w = s->write[i];

        if (!settled(m, &w)) {
            rest[nrest++] = w;
            continue;
        }
        w.acked = true;
        w.seq = ++m->seq;
        if (is_late && w.id == id)
            late = w;
        else if (any_acked)
            first[nfirst++] = w;
    }
    memcpy(s->write, first, nfirst * sizeof(first[0]));
    memcpy(s->write + nfirst, rest, nrest * sizeof(rest[0]));
    s->nwrites = (uint8_t)(nfirst + nrest);
    if (late.acked)
        s->write[s->nwrites++] = late;
}

bool model_blk_may(const struct model_blk *m, uint32_t sector, uint32_t id)
{
    return id != SIM_NO_CONTENT && may_be_seen(&m->sector[sector], id);
}

void model_blk_seen(struct model_blk *m, uint32_t sector, uint32_t id)
{
    struct model_sector *s = &m->sector[sector];

    must(may_be_seen(s, id));
    if (s->cut)
        seen_after_cut(m, s, id);
    else
        settle(m, s, id);
}

uint32_t model_blk_only(const struct model_blk *m, uint32_t sector)
{
    const struct model_sector *s = &m->sector[sector];

    if (s->cut)
        return SIM_NO_CONTENT;
    for (unsigned i = 0; i < s->nwrites; i++) {
        if (!s->write[i].acked)
            return SIM_NO_CONTENT;
    }
    return last_acked(s);
}

void model_blk_text(const struct model_blk *m, uint32_t sector, char *out, unsigned max)
{
    const struct model_sector *s = &m->sector[sector];
    int n = snprintf(out, max, "durable %u%s", s->floor, s->cut ? ", power cut," : "");

    for (unsigned i = 0; i < s->nwrites && n < (int)max; i++)
        n += snprintf(out + n, max - (unsigned)n, " %u%s", s->write[i].id,
                      s->write[i].acked       ? ""
                      : s->write[i].in_flight ? " in flight"
                                              : " unknown");
}
