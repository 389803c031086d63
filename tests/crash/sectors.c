/* SPDX-License-Identifier: Apache-2.0 */
#include "sectors.h"

#include "base/must.h"

#include <string.h>

static uint64_t word(uint64_t place, uint32_t id, unsigned i)
{
    uint64_t z = place * 0x9e3779b97f4a7c15u ^ (uint64_t)id << 20 ^ i;

    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    return z ^ z >> 31;
}

/* The first two words say who it is, the others follow from them. */
void sector_fill(uint8_t *out, uint64_t place, uint32_t id)
{
    uint64_t w[SECTOR_BYTES / 8];

    if (id == 0) {
        memset(out, 0, SECTOR_BYTES);
        return;
    }
    w[0] = place;
    w[1] = id;
    for (unsigned i = 2; i < SECTOR_BYTES / 8; i++)
        w[i] = word(place, id, i);
    memcpy(out, w, sizeof(w));
}

bool sector_is(const uint8_t *sector, uint64_t place, uint32_t id)
{
    static const uint8_t zeroes[SECTOR_BYTES];
    uint64_t w[SECTOR_BYTES / 8];

    if (id == 0)
        return memcmp(zeroes, sector, SECTOR_BYTES) == 0;
    memcpy(w, sector, sizeof(w));
    if (w[0] != place || w[1] != id)
        return false;
    for (unsigned i = 2; i < SECTOR_BYTES / 8; i++)
        if (w[i] != word(place, id, i))
            return false;
    return true;
}

void sector_reset(struct sector *s, uint32_t id)
{
    *s = (struct sector){.n = 1, .id = {id}};
}

void sector_write(struct sector *s, uint32_t id)
{
    must(s->n < SECTOR_MAYBE);
    s->id[s->n] = id;
    s->acked[s->n++] = UINT32_MAX;
}

void sector_acked(struct sector *s, uint32_t id, uint32_t event)
{
    for (unsigned i = 0; i < s->n; i++)
        if (s->id[i] == id)
            s->acked[i] = event;
}

void sector_flushed(struct sector *s, uint32_t event)
{
    unsigned keep = 0;

    for (unsigned i = 0; i < s->n; i++)
        if (s->acked[i] < event)
            keep = i;
    if (keep == 0)
        return;
    s->n = (uint8_t)(s->n - keep);
    memmove(s->id, s->id + keep, s->n * sizeof(s->id[0]));
    memmove(s->acked, s->acked + keep, s->n * sizeof(s->acked[0]));
}

int sector_match(const struct sector *s, const uint8_t *bytes, uint64_t place)
{
    for (unsigned i = s->n; i-- > 0;)
        if (sector_is(bytes, place, s->id[i]))
            return (int)i;
    return -1;
}

void sector_tell(const uint8_t *bytes, uint64_t *out_place, uint32_t *out_id)
{
    uint64_t w[2];

    memcpy(w, bytes, sizeof(w));
    *out_place = w[0];
    *out_id = (uint32_t)w[1];
}
