/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/model_kv.h"

#include "sim/world.h"

#include <string.h>

#define ZOMBIE_NS (90 * NS_PER_S)

void model_kv_init(struct model_kv *m, unsigned nkeys)
{
    *m = (struct model_kv){.nkeys = nkeys, .next_id = 1};
    m->key = calloc(nkeys, sizeof(*m->key));
    must(m->key != NULL);
}

void model_kv_fini(struct model_kv *m)
{
    free(m->key);
    free(m->len_of);
}

uint32_t model_kv_value(struct model_kv *m, uint64_t len)
{
    if (m->next_id >= m->lens_cap) {
        m->lens_cap = MAX(m->lens_cap * 2, 256u);
        m->len_of = realloc(m->len_of, m->lens_cap * sizeof(m->len_of[0]));
        must(m->len_of != NULL);
    }
    m->len_of[m->next_id] = len;
    return m->next_id++;
}

uint64_t model_kv_len(const struct model_kv *m, uint32_t id)
{
    must(id != MODEL_ABSENT && id < m->next_id);
    return m->len_of[id];
}

bool model_kv_room(const struct model_key *k)
{
    return k->nmaybe < MODEL_MAYBE_MAX;
}

void model_kv_begin(struct model_key *k, uint32_t id)
{
    must(model_kv_room(k));
    k->maybe[k->nmaybe++] = (struct model_maybe){.id = id, .in_flight = true};
}

static void drop(struct model_key *k, unsigned i)
{
    k->nmaybe--;
    memmove(&k->maybe[i], &k->maybe[i + 1], (k->nmaybe - i) * sizeof(k->maybe[0]));
}

static void may_come_back(struct model_key *k, uint32_t id)
{
    if (k->nback < MODEL_MAYBE_MAX)
        k->back[k->nback++] = id;
}

void model_kv_end(struct model_key *k, uint32_t id, enum model_outcome how)
{
    unsigned i = k->nmaybe;

    while (i > 0 && !(k->maybe[i - 1].id == id && k->maybe[i - 1].in_flight))
        i--;
    must(i > 0);
    if (how == MODEL_UNKNOWN) {
        k->maybe[i - 1].in_flight = false;
        k->maybe[i - 1].end_ns = sim.now_ns;
        return;
    }
    drop(k, i - 1);
    if (how == MODEL_DONE) {
        k->last = id;
        k->nback = 0;
    }
}

unsigned model_kv_now(const struct model_key *k, uint32_t *out)
{
    unsigned n = 0;

    out[n++] = k->last;
    for (unsigned i = 0; i < k->nmaybe; i++)
        out[n++] = k->maybe[i].id;
    return n;
}

static bool settled(const struct model_kv *m, const struct model_maybe *w)
{
    return !w->in_flight && (w->end_ns <= m->settled_ns || w->end_ns + ZOMBIE_NS < sim.now_ns);
}

void model_kv_seen(struct model_kv *m, struct model_key *k, uint32_t id)
{
    bool late = id != k->last, is_settled = false;

    for (unsigned i = 0; i < k->nmaybe; i++)
        is_settled |= k->maybe[i].id == id && settled(m, &k->maybe[i]);
    if (late && !is_settled)
        return; /* it is there, but an older one may yet come */
    for (unsigned i = k->nmaybe; i > 0; i--) {
        if (!settled(m, &k->maybe[i - 1]))
            continue;
        if (late && k->maybe[i - 1].id != id)
            may_come_back(k, k->maybe[i - 1].id);
        drop(k, i - 1);
    }
    if (late)
        may_come_back(k, k->last);
    k->last = id;
}

void model_kv_crash(struct model_kv *m, bool power)
{
    m->settled_ns = sim.now_ns;
    m->crashes++;
    for (unsigned i = 0; power && i < m->nkeys; i++) {
        struct model_key *k = &m->key[i];

        while (k->nback > 0 && model_kv_room(k))
            k->maybe[k->nmaybe++] =
                (struct model_maybe){.id = k->back[--k->nback], .end_ns = sim.now_ns};
    }
}

void model_kv_orphan(struct model_kv *m)
{
    for (unsigned i = 0; i < m->nkeys; i++) {
        for (unsigned j = 0; j < m->key[i].nmaybe; j++) {
            if (m->key[i].maybe[j].in_flight) {
                m->key[i].maybe[j].in_flight = false;
                m->key[i].maybe[j].end_ns = sim.now_ns;
            }
        }
    }
}
