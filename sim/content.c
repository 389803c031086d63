/* SPDX-License-Identifier: Apache-2.0 */
#include "sim/content.h"

#include "base/bytes.h"
#include "base/map.h"
#include "base/must.h"

#include "sim/fs.h"

/* Word n of a content. Word 0 can be turned back into the id. */
static uint64_t word(uint64_t place, uint32_t id, uint64_t n)
{
    if (n == 0)
        return (uint64_t)id << 32 | (uint32_t)(hash_u64(place * 3 + 1) ^ id * 2654435761u);
    return hash_u64(place * 0x9e3779b97f4a7c15ull + ((uint64_t)id << 24) + n) | 1;
}

void sim_value_fill(uint8_t *out, uint64_t place, uint32_t id, uint64_t off, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint64_t w = word(place, id, (off + i) / 8);
        size_t at = (off + i) % 8;
        size_t n = len - i < 8 - at ? len - i : 8 - at;

        memcpy(out + i, (const uint8_t *)&w + at, n);
        i += n;
    }
}

bool sim_value_is(const uint8_t *buf, uint64_t place, uint32_t id, uint64_t off, size_t len)
{
    for (size_t i = 0; i < len;) {
        uint64_t w = word(place, id, (off + i) / 8);
        size_t at = (off + i) % 8;
        size_t n = len - i < 8 - at ? len - i : 8 - at;

        if (memcmp(buf + i, (const uint8_t *)&w + at, n) != 0)
            return false;
        i += n;
    }
    return true;
}

uint32_t sim_value_id(const uint8_t *first8, uint64_t place)
{
    uint64_t w;
    uint32_t id;

    memcpy(&w, first8, 8);
    id = (uint32_t)(w >> 32);
    return w == word(place, id, 0) ? id : SIM_NO_CONTENT;
}

void sim_sector_fill(uint8_t *out, uint64_t place, uint32_t id)
{
    if (id == SIM_ZEROES)
        memset(out, 0, SIM_SECTOR_BYTES);
    else
        sim_value_fill(out, place, id, 0, SIM_SECTOR_BYTES);
}

uint32_t sim_sector_id(const uint8_t *sector, uint64_t place)
{
    uint32_t id;

    if (bytes_are_zero(sector, SIM_SECTOR_BYTES))
        return SIM_ZEROES;
    id = sim_value_id(sector, place);
    if (id == SIM_NO_CONTENT || !sim_value_is(sector, place, id, 0, SIM_SECTOR_BYTES))
        return SIM_NO_CONTENT;
    return id;
}
