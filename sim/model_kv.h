/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What keys may hold, as their only writer is entitled to expect: the last value acknowledged, or
 * one whose store has an unknown outcome. A store that was never acknowledged, was seen after a
 * crash nevertheless, may go again with the next power cut, until the key is stored anew.
 */
#ifndef KVASIR_SIM_MODEL_KV_H
#define KVASIR_SIM_MODEL_KV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MODEL_KEY_MAX 16
#define MODEL_MAYBE_MAX 16
#define MODEL_ABSENT 0u /* the number of the value that is none */

struct model_maybe {
    uint32_t id;
    bool in_flight;
    uint64_t end_ns;
};

struct model_key {
    uint8_t key[MODEL_KEY_MAX];
    uint8_t len;
    uint64_t place; /* for the content */
    uint32_t last;  /* acknowledged, or settled */
    uint8_t nmaybe;
    struct model_maybe maybe[MODEL_MAYBE_MAX];
    uint8_t nback; /* what a power cut could bring back */
    uint32_t back[MODEL_MAYBE_MAX];
};

struct model_kv {
    unsigned nkeys;
    struct model_key *key;
    uint32_t next_id;
    uint32_t lens_cap;
    uint64_t *len_of; /* by id */
    uint64_t settled_ns;
    uint64_t crashes; /* of the server */
};

void model_kv_init(struct model_kv *m, unsigned nkeys);
void model_kv_fini(struct model_kv *m);

/** A new value of that length; its id. */
uint32_t model_kv_value(struct model_kv *m, uint64_t len);
uint64_t model_kv_len(const struct model_kv *m, uint32_t id);

bool model_kv_room(const struct model_key *k);
/** A store (or delete: MODEL_ABSENT) begins, and ends: it happened, did not, or nobody knows. */
void model_kv_begin(struct model_key *k, uint32_t id);
enum model_outcome { MODEL_DONE, MODEL_NOT_DONE, MODEL_UNKNOWN };
void model_kv_end(struct model_key *k, uint32_t id, enum model_outcome how);

/** The values that may be there now: ids into out (MODEL_MAYBE_MAX + 1); how many. */
unsigned model_kv_now(const struct model_key *k, uint32_t *out);
/** Value `id` was seen, which is among model_kv_now(), and no crash fell into the look. */
void model_kv_seen(struct model_kv *m, struct model_key *k, uint32_t id);

/** The server has crashed. */
void model_kv_crash(struct model_kv *m, bool power);
void model_kv_orphan(struct model_kv *m);

#endif
