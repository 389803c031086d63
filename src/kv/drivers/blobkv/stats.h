/* SPDX-License-Identifier: Apache-2.0 */
/* What an open store has done, and what it is made of: `kvasir stats`. Counted since the open. */
#ifndef KVASIR_KV_BLOBKV_STATS_H
#define KVASIR_KV_BLOBKV_STATS_H

#include <stdint.h>

struct bkv_stats {
    /* Bytes written, by what for. */
    uint64_t log_bytes;        /* blocks of the hot stream, with their padding */
    uint64_t moved_bytes;      /* by the collector */
    uint64_t large_bytes;      /* chunks */
    uint64_t index_bytes;      /* leaves */
    uint64_t checkpoint_bytes; /* fences, segment tables, super slots */
    uint64_t prepared_bytes;   /* zeroes, so that later flushes allocate nothing */
    uint64_t user_bytes;       /* keys and values of what was committed */
    /* Commits. */
    uint64_t commits, ops, flushes;
    uint64_t waits_space;      /* how often a commit had to wait for a segment */
    uint64_t waits_memtab;     /* or for a checkpoint */
    /* Gets, by how they ended. */
    uint64_t get_cache;        /* no read */
    uint64_t get_hot;          /* one read, found by the location table */
    uint64_t get_index;        /* by memtable or a leaf */
    uint64_t get_absent;
    uint64_t hot_wrong;        /* reads that the location table led astray */
    uint64_t lists;
    uint64_t snapshots, snapshots_stale;
    uint64_t read_bytes;
    /* In the background. */
    uint64_t checkpoints, checkpoint_ns;
    uint64_t gc_segments, gc_records, gc_read_bytes;
    uint64_t segments_released;
};

#endif
