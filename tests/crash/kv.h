/* SPDX-License-Identifier: Apache-2.0 */
/* The workload on a KV store, and the look at it afterwards. */
#ifndef KVASIR_CRASH_KV_H
#define KVASIR_CRASH_KV_H

#include "dice.h"
#include "kvm.h"
#include "walk.h"

#include "kv/kv.h"

#define KV_SUBJECT_URI "blob:" DISK_PATH "?block_size=512&memory=4M&checkpoint=1M&segment=256K"
#define KV_DISK_BYTES (16 * MIB)
#define KV_CHURN_BYTES (7 * MIB) /* of a disk that few operations fill */
#define KV_WORKERS 8
#define KV_VALUE_MAX (512 * KIB)

struct kv_work {
    uint64_t seed;
    unsigned ops;    /* of each worker */
    unsigned reads_in_16; /* so many of 16 operations only look */
    bool faulty;     /* operations may fail; what they answer then is noted, not judged */
    bool remote;     /* and connections may be lost */
    bool churn;      /* mostly stores, of values that fill the store but still lie in the log */
    bool pauses;     /* now and then nobody does anything, for seconds of the virtual clock */
    uint64_t paused_until;
    unsigned errors_max; /* of a faulty run: after so many a worker gives up; 0: some */
    uint64_t done, refused; /* out: operations; those the store answered with -ENOSPC */
    uint64_t errors;        /* with another error */
    char why[WHY_MAX];      /* out: what is wrong */
};
/** Runs KV_WORKERS tasks on an open store, each with keys of its own, which it knows by heart in
 * `kv_present`. 0, or -EILSEQ with text. */
int kv_work(struct rt_task *t, struct kv_dev *dev, struct kv_work *w);

/** What each key has, as its worker knows; `unknown`: a change failed and nobody knows. */
struct kv_present {
    struct kvm_state state;
    bool unknown;
};
extern struct kv_present kv_present[KVM_KEYS];
/** All keys absent, and the model begun. */
void kv_work_reset(bool acks_are_durable);

extern const char *kv_subject_uri;
/** The store has so many shards. */
void kv_subject_shards(unsigned n);
/** A store that is nearly full of what lives, few checkpoints: the collector has to free segments
 * by itself. */
void kv_subject_churn(void);
/** More parameters for its URI, as they stand there: "compress=lz4&sync=no". After the others. */
void kv_subject_opts(const char *params);

/** Reads the whole store and compares it with kvm_view(). 0 or -EILSEQ. `at` gets what was seen. */
int kv_look(struct rt_task *t, struct kv_dev *dev, struct look *l, uint8_t at[KVM_KEYS]);

/** The store's own checker, on one that is open for reading only: nobody may work on it. */
int kv_look_check(struct rt_task *t, struct kv_dev *dev, struct look *l);

#endif
