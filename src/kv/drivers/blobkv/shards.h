/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store of one or several shards, which is what a device of the driver is. Each shard is a whole
 * engine (struct bkv) in a blob of its own; keys go to shards by their hash, and shard i lives on
 * the i-th reactor from the one that opened the store, which may be another at each open. Requests
 * about one key are carried to the shard's reactor; what is about all of them is here:
 *
 *   shards.c       opening, closing, where a key belongs, flushes and the ends of snapshots
 *   shard_list.c   lists: the shards' in order, merged
 *   shard_look.c   usage, check and counters, of all together
 *   txn.c          a shard's side of a batch over shards
 *   shard_space.c  the device's free clusters, which they share
 *   shard_batch.c  who leads such batches, and makes snapshots of one instant
 */
#ifndef KVASIR_KV_BLOBKV_SHARDS_H
#define KVASIR_KV_BLOBKV_SHARDS_H

#include "kv/drivers/blobkv/blobkv.h"

struct bkv_shards {
    struct bkv_opts opts; /* of the whole */
    char path[512];       /* of the device, as the URI has it */
    bool prepare;         /* see struct bkv */
    unsigned n;
    struct bkv *shard[BKV_SHARDS_MAX];
    struct rt_reactor *home;
    uint64_t secret[2]; /* where keys belong */
    _Atomic uint32_t wants[BKV_SHARDS_MAX]; /* see bkv_share_tell() */
    _Atomic uint32_t taking;                /* and bkv_share_take() */

    /* On the home reactor: shards that a batch or a snapshot has to itself, and who is in line. */
    uint64_t led;
    struct list line;
};

/** Opens all shards. `set->opts`, `path`, `prepare` are set. With text. */
int bkv_shards_open(struct rt_task *t, struct bkv_shards *set, const char *blk_uri,
                    struct err *why);
/** Nothing is in flight. */
void bkv_shards_close(struct rt_task *t, struct bkv_shards *set);
/** After a simulated crash: frees memory only. */
void bkv_shards_abandon(struct bkv_shards *set);

/** Which shard a key belongs to. */
unsigned bkv_shard_of(const struct bkv_shards *set, struct bytes key);

/**
 * Runs fn(t, &arg_of_i) on the reactor of each shard, all at the same time, where arg_of_i is
 * {s, arg, i}. Returns the first failure, in the order of shards.
 */
struct bkv_each {
    struct bkv *s;
    void *arg;
};
int bkv_each_shard(struct rt_task *t, struct bkv_shards *set, rt_task_fn fn, void *arg);

/** Sends a request to a shard, wherever that lives. */
void bkv_shard_submit(struct bkv *s, struct kv_req *kv);
/** A request to a store of several shards. On the reactor it was submitted on. */
void bkv_shards_submit(struct bkv_shards *set, struct kv_req *kv);
/** One that has been carried to the home reactor for that. */
void bkv_shards_arrive(struct kv_req *kv);

/** What a request to each shard takes, made ahead. NULL: no memory. */
struct bkv_fan;
struct bkv_fan *bkv_fan_new(struct bkv_shards *set);
void bkv_fan_free(struct bkv_fan *fan);

/* shard_list.c: KV_LIST. */
void bkv_shards_list(struct kv_req *kv);
/* shard_batch.c: on the home reactor. KV_BATCH of several shards, KV_SNAP_OPEN. */
void bkv_shards_batch(struct kv_req *kv);
void bkv_shards_snap(struct kv_req *kv);
/** The only shard that the items of a batch belong to; NULL there are several. */
struct bkv *bkv_batch_shard(const struct bkv_shards *set, const struct kv_req *kv);

/* shard_look.c: what the driver's calls of the same names are. */
int bkv_shards_usage(struct rt_task *t, struct kv_dev *dev, uint64_t *out_used,
                     uint64_t *out_keys);
int bkv_shards_check(struct rt_task *t, struct kv_dev *dev, const struct kv_check_opts *opts,
                     struct kv_check_report *out);
int bkv_shards_counters(struct rt_task *t, struct kv_dev *dev,
                        void (*each)(void *arg, const char *name, uint64_t value), void *arg);

/* A step of our own, no operation of the contract: a shard's part of a batch. */
#define BKV_OP_PART ((uint8_t)KV_OPS)
void bkv_part_here(struct bkv *s, struct kv_req *kv);

/* commit.c: whether the read has to wait, and does, until it is known what becomes of a batch over
 * shards that changes what it reads. bkv_shard_here() has it again then. */
bool bkv_undecided_hold(struct bkv *s, struct kv_req *kv);
/* driver.c: on the shard's reactor. */
void bkv_shard_here(struct bkv *s, struct kv_req *kv);

#endif
