/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each sector of something may hold: what was last made durable, and what was written since.
 * Sectors say whose they are (their place and the number of the write), so a mix is seen.
 */
#ifndef KVASIR_CRASH_SECTORS_H
#define KVASIR_CRASH_SECTORS_H

#include <stdbool.h>
#include <stdint.h>

#define SECTOR_BYTES 512u
#define SECTOR_MAYBE 12 /* then the workload flushes */

/** A write's number; 0 is what was never written: zeroes. */
struct sector {
    uint8_t n;                   /* >= 1 */
    uint32_t id[SECTOR_MAYBE];   /* in the order of the writes, the oldest durable */
    uint32_t acked[SECTOR_MAYBE]; /* the model's event of its acknowledgement, or UINT32_MAX */
};

void sector_fill(uint8_t *out, uint64_t place, uint32_t id);
/** Whether this is write `id` at `place`. */
bool sector_is(const uint8_t *sector, uint64_t place, uint32_t id);

void sector_reset(struct sector *s, uint32_t id);
void sector_write(struct sector *s, uint32_t id);
void sector_acked(struct sector *s, uint32_t id, uint32_t event);
/** A flush that began at `event` has completed. */
void sector_flushed(struct sector *s, uint32_t event);
/** The place in `s` of what the bytes are, -1 when they are nothing allowed. */
int sector_match(const struct sector *s, const uint8_t *bytes, uint64_t place);
/** Who these bytes say they are, for messages. */
void sector_tell(const uint8_t *bytes, uint64_t *out_place, uint32_t *out_id);

#endif
