/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store as a whole: the blob it lives in is found by its name in the device's lvolstore, or made;
 * its super slots are read, or written for the first time; its tasks are started, and at close
 * ended in good order. And the write that everybody here uses; the flush is flush.c's.
 */
#include "kv/drivers/blobkv/index_io.h"
#include "kv/drivers/blobkv/large.h"
#include "kv/drivers/blobkv/list.h"
#include "kv/drivers/blobkv/snap.h"

#include "base/log.h"
#include "base/plant.h"

#include <stdio.h>
#include <string.h>

#define SEGMENT_MIN (256 * KIB)
#define SEGMENT_MAX (8 * MIB)
#define CLUSTER_MIN (64 * KIB)
#define SEGMENTS_WANTED 2048u
#define SEGMENTS_MIN 8u
#define MEMTAB_MAX (64 * MIB)
#define OTHER_MEMORY (2 * MIB)         /* of the budget: buffers, streams, a merge */
#define SHARD_BYTES_WANTED (256 * MIB) /* of the device, for each shard of a new store */
#define SHARDS_WANTED_MAX 8u

/* --- the device ------------------------------------------------------------------------------- */

int bkv_poison(struct bkv *s, int rc, const char *what)
{
    if (s->poison == 0) {
        s->poison = rc;
        log_error("%s: %s failed: %s; the store takes no changes until it is opened again", s->name,
                  what, err_str(rc));
        bkv_space_wake(s);
        rt_cond_wake_all(&s->checkpoint_done);
    }
    return -EIO;
}

int bkv_write(struct rt_task *t, struct bkv *s, const void *buf, uint64_t addr, uint32_t len)
{
    int rc;

    if (s->poison != 0)
        return -EIO;
    rc = blob_write(t, s->chan, s->blob, buf, addr, len, 0);
    return rc < 0 ? bkv_poison(s, rc, "a write") : 0;
}

int bkv_seg_head_write(struct rt_task *t, struct bkv *s, const struct bkv_seg_info *info)
{
    CLEANUP(free_p) uint8_t *buf = aligned_alloc(4096, BKV_PAGE_BYTES);
    uint64_t addr = (uint64_t)info->segment << s->segment_shift;

    if (buf == NULL)
        return bkv_poison(s, -ENOMEM, "opening a segment"); /* it is open, without a head */
    bkv_seg_head_encode(info, s->super.uuid, addr, buf, s->sector_bytes);
    return bkv_write(t, s, buf, addr, s->sector_bytes);
}

/* --- tasks ------------------------------------------------------------------------------------ */

int bkv_task(struct bkv *s, const char *name, rt_task_fn fn, void *arg)
{
    int rc = rt_task_start(name, fn, arg, NULL, NULL);

    if (rc == 0)
        s->ntasks++;
    return rc;
}

void bkv_task_ended(struct bkv *s)
{
    s->ntasks--;
    rt_cond_wake_all(&s->task_ended);
}

struct patience {
    struct rt_timer timer; /* first */
    struct rt_cond *cond;
    bool over;
};

static void patience_ends(struct rt_timer *timer)
{
    struct patience *p = (struct patience *)timer;

    p->over = true;
    rt_cond_wake_all(p->cond);
}

bool bkv_cond_wait_until(struct rt_task *t, struct rt_cond *cond, uint64_t at_ns)
{
    struct patience p = {.timer = {.fn = patience_ends}, .cond = cond};

    rt_timer_start(&p.timer, at_ns);
    (void)rt_cond_wait(t, cond);
    rt_timer_stop(&p.timer);
    return !p.over;
}

#define SERVICES 2u /* supplier and checkpointer: needed for the last checkpoint */

static int start_tasks(struct bkv *s)
{
    static const struct {
        const char *name;
        rt_task_fn fn;
    } tasks[] = {{"blobkv supply", bkv_supplier},
                 {"blobkv checkpoint", bkv_checkpointer},
                 {"blobkv commit", bkv_committer},
                 {"blobkv collect", bkv_collector}};

    for (size_t i = 0; i < ARRAY_LEN(tasks); i++) {
        int rc = bkv_task(s, tasks[i].name, tasks[i].fn, s);

        if (rc < 0)
            return rc;
        s->collecting |= tasks[i].fn == bkv_collector;
    }
    return 0;
}

static void wait_tasks(struct rt_task *t, struct bkv *s, unsigned left)
{
    while (s->ntasks > left)
        (void)rt_cond_wait(t, &s->task_ended);
}

/* Ends the tasks; with a last checkpoint when there is something to keep. */
static void stop_tasks(struct rt_task *t, struct bkv *s)
{
    s->closing = true;
    bkv_commit_wake(s);
    bkv_collector_wake(s);
    wait_tasks(t, s, SERVICES);
    if (!s->opts.read_only && s->poison == 0 && s->ntasks == SERVICES)
        (void)bkv_checkpoint(t, s, NULL, NULL);
    s->stopped = true;
    bkv_supply_wake(s);
    rt_cond_wake_all(&s->checkpoint_wanted);
    wait_tasks(t, s, 0);
}

/* --- memory ----------------------------------------------------------------------------------- */

/* What the budget has for memtables and what has been read. */
static uint64_t shared_bytes(const struct bkv *s)
{
    return s->opts.memory_bytes - MIN(s->opts.memory_bytes, OTHER_MEMORY);
}

void bkv_memory_fit(struct bkv *s)
{
    uint64_t memtabs = bkv_memtab_bytes(s->active);

    if (s->frozen != NULL)
        memtabs += bkv_memtab_bytes(s->frozen);
    bkv_cache_limit(s->cache, shared_bytes(s) - MIN(memtabs, shared_bytes(s)));
}

static int alloc_memory(struct bkv *s)
{
    s->memtab_bytes = MIN(MAX(s->opts.memory_bytes * 5 / 16, MIB), (uint64_t)MEMTAB_MAX);
    s->active = bkv_memtab_new(s->memtab_bytes);
    s->cache = bkv_cache_new(shared_bytes(s));
    s->hot = bkv_hot_new(s->opts.table_bytes);
    s->scratch = malloc(BKV_SCRATCH_BYTES);
    if (s->active == NULL || s->cache == NULL || s->hot == NULL || s->scratch == NULL)
        return -ENOMEM;
    if (bkv_block_new(s) < 0 || bkv_gets_init(s) < 0 || bkv_checkpoints_init(s) < 0 ||
        bkv_lists_init(s) < 0 || bkv_large_init(s) < 0)
        return -ENOMEM;
    bkv_index_io_init(s);
    s->tree = bkv_tree_new(&s->tree_io);
    return s->tree != NULL ? 0 : -ENOMEM;
}

void bkv_free(struct bkv *s)
{
    if (s->freed)
        return; /* closed, while others of the set are not yet */
    s->freed = true;
    if (s->tree != NULL)
        bkv_tree_put(s->tree);
    bkv_memtab_free(s->active);
    bkv_memtab_free(s->frozen);
    bkv_memtab_free(s->spare);
    bkv_cache_free(s->cache);
    bkv_hot_free(s->hot);
    bkv_large_fini(s);
    bkv_codec_free(s->codec);
    bkv_lists_fini(s);
    bkv_snaps_fini(s);
    bkv_checkpoints_fini(s);
    bkv_block_free(s);
    bkv_space_fini(s);
    free(s->reads.memory);
    free(s->reads.free_objs);
    free(s->scratch);
}

/* --- the blob --------------------------------------------------------------------------------- */

/* A blob of the name of a shard that is not the first has to be one of this store: what another
 * store is called could look like it. */
static int check_owner(struct rt_task *t, struct bkv *s, uint64_t id, struct err *why)
{
    CLEANUP(free_p) struct lvol_info *info = malloc(sizeof(*info));
    int rc = info == NULL ? -ENOMEM : lvol_info(t, &s->lvs, id, info);

    if (rc == 0 && s->shard > 0 && strcmp(info->kv, s->opts.store) != 0)
        return err_set(why, -EEXIST,
                       "the volume %s is in the way of shard %u of the store \"%s\"; rename it",
                       s->name, s->shard, s->opts.store);
    return rc;
}

/* The blob of the shard's name; made when it is not there. */
static int find_blob(struct rt_task *t, struct bkv *s, struct err *why)
{
    struct blob_xattr xattr = {.name = LVOL_KV_XATTR,
                               .value = s->opts.store,
                               .value_len = (uint16_t)strlen(s->opts.store)};
    struct lvol_create_opts create = {
        .name = s->name, .thin = true, .xattrs = &xattr, .nxattrs = 1};
    struct blob_store_info info;
    uint64_t id;
    int rc = lvol_find(t, &s->lvs, s->name, &id);

    blob_store_info(s->lvs.bs, &info);
    if (rc == -ENOENT && info.unreadable > 0)
        return err_set(why, -EBADMSG,
                       "%s: not found, but %u volumes cannot be read, and it may be one of them; "
                       "kvasir blob check names them",
                       s->name, info.unreadable);
    if (rc == -ENOENT && s->shard > 0 && !s->making)
        return err_set(why, -EBADMSG, "shard %u of the store \"%s\" is missing (no volume %s)",
                       s->shard, s->opts.store, s->name);
    if (rc == -ENOENT && s->opts.read_only)
        return err_set(why, -ENOENT, "there is no store \"%s\" (no volume %s)", s->opts.store,
                       s->name);
    if (rc == -ENOENT) {
        create.len_bytes = info.clusters * info.cluster_bytes;
        rc = lvol_create(t, &s->lvs, &create, &id, why);
        if (rc < 0)
            return rc;
    } else if (rc == 0) {
        rc = check_owner(t, s, id, why);
        if (rc < 0)
            return rc;
    }
    if (rc == 0)
        rc = blob_open(t, s->lvs.bs, id, &s->blob);
    if (rc < 0)
        return err_set(why, rc, "%s: %s", s->name, err_str(rc));
    s->flush_failures = blob_flush_failures(s->lvs.bs);
    rc = blob_chan_get(t, s->lvs.bs, &s->chan);
    return rc < 0 ? err_set(why, rc, "%s: %s", s->name, err_str(rc)) : 0;
}

/* The blob takes in what the device has grown by. */
static int grow_blob(struct rt_task *t, struct bkv *s)
{
    struct blob_store_info info;
    struct blob_info blob;
    int rc;

    if (s->opts.read_only)
        return 0;
    rc = blob_store_grow(t, s->lvs.bs);
    if (rc < 0 && rc != -ENOSPC && rc != -ENOTSUP)
        return rc;
    blob_store_info(s->lvs.bs, &info);
    blob_info(s->blob, &blob);
    return info.clusters > blob.clusters ? blob_resize(t, s->blob, info.clusters) : 0;
}

static uint32_t log2_of(uint64_t v)
{
    return 63u - (uint32_t)__builtin_clzll(v);
}

/* --- a new store ------------------------------------------------------------------------------ */

static int choose_sizes(struct bkv *s, const struct blob_store_info *info, uint64_t len,
                        struct err *why)
{
    uint64_t segment = s->opts.segment_bytes;

    if ((info->cluster_bytes & (info->cluster_bytes - 1)) != 0)
        return err_set(why, -ENOTSUP, "%s: clusters of %u bytes: the engine needs a power of two",
                       s->name, info->cluster_bytes);
    if (info->block_bytes > BKV_PAGE_BYTES)
        return err_set(why, -ENOTSUP, "%s: blocks of %u bytes: the engine needs 4096 at most",
                       s->name, info->block_bytes);
    if (segment == 0) {
        segment = 1ull << log2_of(MAX(len / SEGMENTS_WANTED, 1ull));
        segment = MIN(MAX(segment, SEGMENT_MIN), SEGMENT_MAX);
        segment = MAX(segment, info->cluster_bytes);
    }
    if ((segment & (segment - 1)) != 0 || segment < SEGMENT_MIN || segment > 1u << 30 ||
        segment < info->cluster_bytes)
        return err_set(why, -EINVAL,
                       "segment has to be a power of two from 256K to 1G, and a "
                       "cluster (%u bytes) at least",
                       info->cluster_bytes);
    if (len / segment < SEGMENTS_MIN)
        return err_set(why, -ENOSPC,
                       "%s: %llu bytes are too few: %u segments of %llu bytes are "
                       "the least",
                       s->name, (unsigned long long)len, SEGMENTS_MIN, (unsigned long long)segment);
    s->super.segment_bytes = le32_make((uint32_t)segment);
    s->super.sector_bytes = le32_make(MAX(info->block_bytes, 512u));
    s->super.nsegments = le32_make((uint32_t)(len / segment));
    return 0;
}

/* What was asked for is for the whole store. */
static int take_share(struct bkv *s, struct err *why)
{
    struct bkv_opts *o = &s->opts;

    s->nshards = MAX((unsigned)le16_get(s->super.shards.nshards), 1u);
    if (le16_get(s->super.shards.shard) != s->shard)
        return err_set(why, -EINVAL, "%s is no store of its own: it is shard %u of another one",
                       s->name, le16_get(s->super.shards.shard));
    if (s->shard == 0 && o->nshards != 0 && o->nshards != s->nshards)
        return err_set(why, -EINVAL,
                       "the store has %u shard%s, which is chosen when it is made: leave shards= "
                       "out",
                       s->nshards, s->nshards > 1 ? "s" : "");
    if (s->shard > 0 && memcmp(s->super.shards.set, s->set_uuid, sizeof(s->set_uuid)) != 0)
        return err_set(why, -EBADMSG, "%s: a shard of another store", s->name);
    if (s->nshards == 1)
        return 0;
    if (!o->memory_given)
        o->memory_bytes = MAX(o->memory_bytes, s->nshards * BKV_SHARD_MEMORY_MIN);
    if (o->memory_bytes < s->nshards * BKV_SHARD_MEMORY_MIN)
        return err_set(why, -EINVAL, "blob: memory= is %uM at least for a store of %u shards",
                       (unsigned)(s->nshards * BKV_SHARD_MEMORY_MIN / MIB), s->nshards);
    o->memory_bytes /= s->nshards;
    o->table_bytes /= s->nshards;
    o->checkpoint_bytes = MAX(o->checkpoint_bytes / s->nshards, MIB);
    o->snapshot_pin_bytes /= s->nshards;
    return 0;
}

/* Everything about sizes comes from the super slot. */
static int take_sizes(struct bkv *s, struct err *why)
{
    struct blob_store_info info;
    struct blob_info blob;
    uint32_t nsegs;
    int rc = take_share(s, why);

    if (rc < 0)
        return rc;
    blob_store_info(s->lvs.bs, &info);
    blob_info(s->blob, &blob);
    s->sector_bytes = le32_get(s->super.sector_bytes);
    s->segment_bytes = le32_get(s->super.segment_bytes);
    s->segment_shift = log2_of(s->segment_bytes);
    s->cluster_bytes = info.cluster_bytes;
    nsegs = (uint32_t)MIN(blob.len_bytes / s->segment_bytes, UINT32_MAX);
    if (info.block_bytes > s->sector_bytes)
        return err_set(why, -EINVAL, "%s: made on sectors of %u bytes, the device now has %u",
                       s->name, s->sector_bytes, info.block_bytes);
    if (s->segment_bytes % s->cluster_bytes != 0)
        return err_set(why, -EBADMSG, "%s: segments are no multiple of the clusters", s->name);
    if (nsegs < le32_get(s->super.nsegments))
        return err_set(why, -EBADMSG, "%s: the volume has been cut: %u segments, it had %u",
                       s->name, nsegs, le32_get(s->super.nsegments));
    s->checkpoint_log_bytes = MIN(s->opts.checkpoint_bytes, blob.len_bytes / 8 / s->nshards);
    return bkv_space_init(s, nsegs) < 0 ? err_set(why, -ENOMEM, "no memory for segments") : 0;
}

/* One log has the largest groups for a flush, and one core keeps up with most disks: a second shard
 * is for when reactors bring more work than that core can do. And each shall have room enough that
 * what it keeps in reserve does not count. */
static unsigned choose_shards(const struct bkv *s, const struct blob_store_info *info)
{
    uint64_t most = info->clusters * info->cluster_bytes / SHARD_BYTES_WANTED;

    if (s->opts.nshards != 0)
        return s->opts.nshards;
    return (unsigned)MAX(MIN(MIN(rt_reactors() / 2ull, most), SHARDS_WANTED_MAX), 1u);
}

static void set_shards(struct bkv *s, const struct blob_store_info *info)
{
    struct bkv_super_shards *sh = &s->super.shards;
    unsigned n = s->shard == 0 ? choose_shards(s, info) : s->nshards;

    if (n == 1)
        return;
    s->super.incompat = le32_make(le32_get(s->super.incompat) | BKV_INCOMPAT_SHARDS);
    sh->nshards = le16_make((uint16_t)n);
    sh->shard = le16_make((uint16_t)s->shard);
    sh->making = s->shard == 0;
    memcpy(sh->set, s->shard == 0 ? s->super.uuid : s->set_uuid, sizeof(sh->set));
}

static int make_new(struct rt_task *t, struct bkv *s, struct err *why)
{
    struct blob_store_info info;
    struct blob_info blob;
    struct bkv_super super;
    uint64_t key[2];
    int rc;

    blob_store_info(s->lvs.bs, &info);
    blob_info(s->blob, &blob);
    memset(&s->super, 0, sizeof(s->super));
    memcpy(s->super.magic, BKV_SUPER_MAGIC, sizeof(s->super.magic));
    s->super.version = le32_make(BKV_VERSION);
    s->super.epoch = s->super.table_epoch = le32_make(1);
    rt_random(s->super.uuid, sizeof(s->super.uuid));
    s->super.uuid[6] = (uint8_t)((s->super.uuid[6] & 0x0f) | 0x40);
    s->super.uuid[8] = (uint8_t)((s->super.uuid[8] & 0x3f) | 0x80);
    rt_random(key, sizeof(key));
    s->super.hash_key[0] = le64_make(key[0]);
    s->super.hash_key[1] = le64_make(key[1]);
    rc = choose_sizes(s, &info, blob.len_bytes, why);
    if (rc == 0)
        rc = bkv_codec_create(t, &s->opts.codec, &s->super, &s->codec, why);
    s->super.incompat = le32_make(le32_get(s->super.incompat) | BKV_INCOMPAT_UNFLUSHED);
    set_shards(s, &info);
    if (rc == 0)
        rc = take_sizes(s, why);
    if (rc < 0)
        return rc;
    rc = blob_allocate(t, s->blob, 0, s->segment_bytes / s->cluster_bytes);
    super = s->super;
    if (rc == 0)
        rc = bkv_super_write(t, s, &super);
    return rc < 0 ? err_set(why, rc, "%s: cannot begin a store: %s", s->name, err_str(rc)) : 0;
}

/* --- opening ---------------------------------------------------------------------------------- */

/* Chooses between the slots. 0; -ENODATA: nobody has finished making this store. */
static int read_super(struct rt_task *t, struct bkv *s, struct err *why)
{
    CLEANUP(free_p) struct bkv_super *page = aligned_alloc(4096, sizeof(*page));
    struct err text[2];
    int state[2];

    if (page == NULL)
        return err_set(why, -ENOMEM, "no memory");
    memset(&s->super, 0, sizeof(s->super));
    for (unsigned i = 0; i < 2; i++) {
        int rc = blob_read(t, s->chan, s->blob, page, bkv_super_addr(i), sizeof(*page));

        if (rc < 0)
            return err_set(why, rc, "%s: cannot read: %s", s->name, err_str(rc));
        state[i] = bkv_super_check(page, i, &text[i]);
        if (state[i] == 0 && le64_get(page->slot_seq) > le64_get(s->super.slot_seq)) {
            s->super = *page;
            s->super_slot = 1 - i;
        }
    }
    for (unsigned i = 0; i < 2; i++) {
        if (state[i] == -ENOTSUP)
            return err_set(why, -ENOTSUP, "%s: %s", s->name, text[i].text);
    }
    if (state[0] == 0 || state[1] == 0) {
        for (unsigned i = 0; i < 2; i++) {
            if (state[i] != 0)
                log_warn("%s: %s; the other one is good", s->name, text[i].text);
        }
        return 0;
    }
    /* The second slot is written when the first one is durable: it was never finished. */
    if (state[1] == -ENODATA)
        return -ENODATA;
    return err_set(why, -EBADMSG, "%s: %s; %s", s->name, text[0].text, text[1].text);
}

static int open_made(struct rt_task *t, struct bkv *s, struct err *why)
{
    int rc;

    if (s->super.shards.making != 0 && s->opts.read_only)
        return err_set(why, -ENODATA, "%s: the store was never finished", s->name);
    rc = bkv_codec_open(t, &s->opts.codec, &s->super, &s->codec, why);
    return rc == 0 ? take_sizes(s, why) : rc;
}

static int open_blob(struct rt_task *t, struct bkv *s, bool *out_new, struct err *why)
{
    int rc = find_blob(t, s, why);

    if (rc < 0)
        return rc;
    rc = grow_blob(t, s);
    if (rc < 0)
        return err_set(why, rc, "%s: cannot grow: %s", s->name, err_str(rc));
    /* What an earlier try to make the store has left is of no use. */
    rc = s->shard > 0 && s->making ? -ENODATA : read_super(t, s, why);
    if (rc == -ENODATA && s->shard > 0 && !s->making)
        return err_set(why, -EBADMSG, "%s: both super slots are empty", s->name);
    *out_new = rc == -ENODATA;
    if (rc == -ENODATA && s->opts.read_only)
        return err_set(why, -ENODATA, "%s: the store was never finished", s->name);
    if (rc == -ENODATA)
        rc = make_new(t, s, why);
    else if (rc == 0)
        rc = open_made(t, s, why);
    s->making = s->super.shards.making != 0;
    return rc;
}

/* An epoch begins before anything else is written: no nonce and no generation of a segment that it
 * uses has been used before, whatever a crash has left of what was written then. */
static int begin_epoch(struct rt_task *t, struct bkv *s, bool is_new)
{
    struct bkv_super super = s->super;
    int rc = 0;

    if (s->opts.read_only)
        return 0;
    if (!is_new) {
        super.epoch = le32_make(le32_get(super.epoch) + 1);
        rc = bkv_super_write(t, s, &super);
    }
    if (rc == 0 && s->codec != NULL)
        bkv_codec_start(s->codec, le32_get(super.epoch));
    return rc;
}

static int open_rest(struct rt_task *t, struct bkv *s, bool is_new, struct err *why)
{
    int rc = begin_epoch(t, s, is_new);

    if (rc < 0)
        return err_set(why, rc, "%s: cannot be written: %s; readonly=yes opens it for reading",
                       s->name, err_str(rc));
    s->secret[0] = le64_get(s->super.hash_key[0]);
    s->secret[1] = le64_get(s->super.hash_key[1]);
    if (s->codec != NULL)
        bkv_codec_hash_key(s->codec, s->secret);
    rc = alloc_memory(s);
    if (rc < 0)
        return err_set(why, rc, "%s: %s", s->name, err_str(rc));
    s->checkpoint_no = 1;
    s->seg[0].allocated = true;
    if (!is_new)
        rc = bkv_recover(t, s, why);
    if (rc == 0) {
        bkv_memory_fit(s);
        bkv_share_tell(s);
    }
    if (rc == 0 && !s->opts.read_only) {
        rc = start_tasks(s);
        if (rc < 0)
            err_set(why, rc, "%s: cannot start its tasks: %s", s->name, err_str(rc));
    }
    return rc;
}

static void let_go(struct rt_task *t, struct bkv *s)
{
    stop_tasks(t, s);
    if (s->chan != NULL)
        blob_chan_put(t, s->chan);
    if (s->blob != NULL)
        blob_close(t, s->blob);
    if (s->shard == 0)
        lvs_close(t, &s->lvs);
    bkv_free(s);
}

/* Clusters of a device that becomes a store: half a segment, for each costs a page of metadata. */
static uint32_t choose_clusters(struct rt_task *t, const char *blk_uri)
{
    struct blk_dev *dev;
    struct err why;
    uint64_t len, cluster;

    if (blk_open(t, blk_uri, &dev, &why) < 0)
        return 0; /* opening the store will say why */
    len = blk_info(dev)->nblocks * blk_info(dev)->block_bytes;
    blk_close(t, dev);
    cluster = len < 128 * MIB ? CLUSTER_MIN : 1ull << log2_of(len / (2 * SEGMENTS_WANTED));
    return (uint32_t)MIN(MAX(cluster, len < 128 * MIB ? CLUSTER_MIN : SEGMENT_MIN),
                         SEGMENT_MAX / 2);
}

int bkv_open(struct rt_task *t, struct bkv *s, const char *blk_uri, struct err *why)
{
    /* Nothing is unmapped: a file that somebody has written ahead stays so. */
    struct lvs_format_opts format = {.name = "kvasir", .blob.clear = BLOB_CLEAR_NONE};
    unsigned flags = s->opts.read_only ? LVS_OPEN_READ_ONLY : LVS_OPEN_FORMAT;
    bool is_new = false;
    int rc;

    if (!s->opts.read_only && s->shard == 0)
        format.blob.cluster_bytes = choose_clusters(t, blk_uri);
    if (s->shard == 0)
        snprintf(s->name, sizeof(s->name), "kv.%s", s->opts.store);
    else
        snprintf(s->name, sizeof(s->name), "kv.%s.%u", s->opts.store, s->shard);
    if (strlen(s->name) > LVOL_NAME_MAX)
        return err_set(why, -ENAMETOOLONG, "blob: store= has %d bytes at most with shards",
                       LVOL_NAME_MAX - 6);
    s->reactor = rt_self();
    list_init(&s->queue);
    list_init(&s->snaps);
    rc = s->shard == 0 ? lvs_open(t, blk_uri, flags, &format, &s->lvs, why) : 0;
    if (rc < 0)
        return rc;
    rt_task_shield(t, true);
    rc = open_blob(t, s, &is_new, why);
    if (rc == 0)
        rc = open_rest(t, s, is_new, why);
    if (rc < 0)
        let_go(t, s);
    rt_task_shield(t, false);
    return rc;
}

void bkv_close(struct rt_task *t, struct bkv *s)
{
    let_go(t, s);
}
