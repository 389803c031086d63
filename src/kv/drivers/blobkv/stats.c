/* SPDX-License-Identifier: Apache-2.0 */
/* The numbers of an open store, for `kvasir stats`: what it is made of, what it has done. */
#include "kv/drivers/blobkv/blobkv.h"

typedef void (*each_fn)(void *arg, const char *name, uint64_t value);

#define FIELD(name)                                                                                \
    {                                                                                              \
#name, offsetof(struct bkv_stats, name)                                                    \
    }
static const struct {
    const char *name;
    size_t off;
} fields[] = {
    FIELD(user_bytes),
    FIELD(log_bytes),
    FIELD(moved_bytes),
    FIELD(large_bytes),
    FIELD(index_bytes),
    FIELD(checkpoint_bytes),
    FIELD(prepared_bytes),
    FIELD(read_bytes),
    FIELD(commits),
    FIELD(ops),
    FIELD(flushes),
    FIELD(waits_space),
    FIELD(waits_memtab),
    FIELD(get_cache),
    FIELD(get_hot),
    FIELD(get_index),
    FIELD(get_absent),
    FIELD(hot_wrong),
    FIELD(lists),
    FIELD(checkpoints),
    FIELD(checkpoint_ns),
    FIELD(gc_segments),
    FIELD(gc_records),
    FIELD(gc_read_bytes),
    FIELD(segments_released),
};

static void segments(const struct bkv *s, each_fn each, void *arg)
{
    static const char *const names[] = {"segments_free", "segments_hot", "segments_cold",
                                        "segments_large", "segments_index"};
    uint64_t n[BKV_STREAMS] = {0}, live[BKV_STREAMS] = {0}, allocated = 0;

    for (uint32_t i = 1; i < s->nsegs; i++) {
        const struct bkv_seg *g = &s->seg[i];
        unsigned stream = g->state >= BKV_SEG_OPEN && g->stream < BKV_STREAMS ? g->stream : 0;

        n[stream]++;
        live[stream] += bkv_seg_live(g);
        allocated += g->allocated;
    }
    each(arg, "segment_bytes", s->segment_bytes);
    each(arg, "segments", s->nsegs - 1);
    each(arg, "segments_allocated", allocated);
    for (unsigned i = 0; i < BKV_STREAMS; i++)
        each(arg, names[i], n[i]);
    each(arg, "live_data_bytes", live[BKV_HOT] + live[BKV_COLD] + live[BKV_LARGE]);
    each(arg, "live_index_bytes", live[BKV_INDEX]);
}

void bkv_counters(const struct bkv *s, each_fn each, void *arg)
{
    each(arg, "keys_in_index", bkv_tree_nkeys(s->tree));
    each(arg, "changes_since_checkpoint", bkv_memtab_count(s->active));
    each(arg, "last_version", s->last_seq);
    segments(s, each, arg);
    each(arg, "leaves", bkv_tree_nleaves(s->tree));
    each(arg, "memory_fences_bytes", bkv_tree_bytes(s->tree));
    each(arg, "memory_memtable_bytes", bkv_memtab_bytes(s->active));
    each(arg, "memory_table_bytes", bkv_hot_bytes(s->hot));
    each(arg, "memory_cache_bytes", bkv_cache_bytes(s->cache));
    for (unsigned i = 0; i < ARRAY_LEN(fields); i++) {
        const uint64_t *v = (const uint64_t *)((const char *)&s->stats + fields[i].off);

        each(arg, fields[i].name, *v);
    }
}
