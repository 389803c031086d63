/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The model of a KV store: keys, each with the states it may be in after a crash. Workers own keys,
 * so that the changes of one key have an order; a change that was acknowledged is there, one that
 * was not is there or not, a batch whole or not at all.
 */
#ifndef KVASIR_CRASH_KVM_H
#define KVASIR_CRASH_KVM_H

#include "base/bytes.h"
#include "base/util.h"

#include <stdint.h>

#define KVM_KEYS 208u /* of the workload */
#define KVM_EXTRA 12u /* more keys, of what goes on after a crash */
#define KVM_PIECES 4u
#define KVM_BATCH_MAX 8u
#define KVM_MAYBE 96u

/** A value: pieces that were stored and appended. */
struct kvm_state {
    bool there;
    uint8_t n;
    struct kvm_piece {
        uint32_t id, len;
    } piece[KVM_PIECES];
};

void kvm_init(void);
/** Key i, i < KVM_KEYS + KVM_EXTRA, ascending. */
struct bytes kvm_key(unsigned i);
/** Which key this is; -1: none of ours. */
int kvm_key_find(struct bytes key);

uint64_t kvm_len(const struct kvm_state *s);
bool kvm_state_eq(const struct kvm_state *a, const struct kvm_state *b);
void kvm_fill(uint8_t *out, uint32_t id, uint64_t off, size_t len);
/** Whether buf is bytes [off, off + len) of the value. */
bool kvm_is(const struct kvm_state *s, const uint8_t *buf, uint64_t off, size_t len);
/** A value's state in words, for messages. */
const char *kvm_text(const struct kvm_state *s);

/* --- what happened ---------------------------------------------------------------------------- */

/**
 * Forgets everything. `acks_are_durable`: else (sync=no) what is promised is what completed flushes
 * covered: a key has the last change that was acknowledged before such a flush was asked for, or a
 * later one that was issued; a batch is whole or not there in any case.
 */
void kvm_reset(bool acks_are_durable);
/** Begins a change of n keys. Returns its number. */
uint32_t kvm_issue(unsigned n, const unsigned *key, const struct kvm_state *to);
uint32_t kvm_issue_flush(void);
/** It has ended: done; not done; or nobody knows. */
enum kvm_end { KVM_DONE, KVM_NOT_DONE, KVM_UNKNOWN };
void kvm_end(uint32_t op, enum kvm_end how);

/* --- what may be there ------------------------------------------------------------------------ */

struct kvm_maybe {
    struct kvm_state state;
    uint32_t op;    /* which made it; UINT32_MAX: the beginning */
    uint32_t acked; /* event; UINT32_MAX: not */
};
struct kvm_view {
    unsigned n; /* >= 1; the last one is the newest */
    struct kvm_maybe maybe[KVM_MAYBE];
};
void kvm_begin(void);
void kvm_to(uint32_t tick);
const struct kvm_view *kvm_view(unsigned key);
/** What was seen is what there is now: at[key] is the place in kvm_view(). What happened before is
 * forgotten. */
void kvm_settle(const uint8_t at[KVM_KEYS]);
/** What was done to a key, and which key a look found wrong last. */
void kvm_show(unsigned key);
extern unsigned kvm_blamed;
/** Requests in flight may overtake each other: a batch over shards waits for them, and what one of
 * them stores meanwhile does not wait for it. */
extern bool kvm_any_order;
/** Whether key `a` at place `ia` and so on fit: no batch is half there. `at[key]` is the place in
 * kvm_view() that was seen. Returns -1, or the number of a batch that is half there. */
int kvm_half(const uint8_t at[KVM_KEYS], char *out_text, size_t max);

#endif
