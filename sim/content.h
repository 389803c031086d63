/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes that say what they are: made from a place and a write's number, so that any mix is seen. */
#ifndef KVASIR_SIM_CONTENT_H
#define KVASIR_SIM_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SIM_ZEROES 0u /* the number of the content that is all zeroes */
#define SIM_NO_CONTENT UINT32_MAX

/** One sector (512 bytes) of write `id` at `place`. */
void sim_sector_fill(uint8_t *out, uint64_t place, uint32_t id);
/** The write whose sector this is; SIM_NO_CONTENT when it is nobody's, or a mix. */
uint32_t sim_sector_id(const uint8_t *sector, uint64_t place);

/** Bytes off..off+len of the value of write `id` of `place`. */
void sim_value_fill(uint8_t *out, uint64_t place, uint32_t id, uint64_t off, size_t len);
/** Whether these are bytes off..off+len of that value. */
bool sim_value_is(const uint8_t *buf, uint64_t place, uint32_t id, uint64_t off, size_t len);
/** The write that bytes 0..7 of a value name; check the rest with sim_value_is(). */
uint32_t sim_value_id(const uint8_t *first8, uint64_t place);

#endif
