/* SPDX-License-Identifier: Apache-2.0 */
/* The KV driver `blob:`: what a URI says, and which file a request goes to. */
#include "kv/drivers/blobkv/large.h"
#include "kv/drivers/blobkv/check.h"
#include "kv/drivers/blobkv/list.h"
#include "kv/drivers/blobkv/shards.h"
#include "kv/drivers/blobkv/snap.h"

#include "rt/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Whether the request reads the present. */
static bool reads(const struct kv_req *req)
{
    return req->op == KV_RETRIEVE || req->op == KV_STAT || req->op == KV_LIST ||
           req->op == KV_RETRIEVE_OPEN;
}

void bkv_shard_here(struct bkv *s, struct kv_req *req)
{
    if (s->nshards > 1 && reads(req) && bkv_undecided_hold(s, req))
        return;
    switch (req->op) {
    case KV_RETRIEVE:
    case KV_STAT:
        if (UNLIKELY(bkv_snap_of(req) != NULL))
            bkv_snap_get_submit(s, req);
        else
            bkv_get_submit(s, req);
        break;
    case KV_SNAP_OPEN:
    case KV_SNAP_CLOSE:
        bkv_snap_submit(s, req);
        break;
    case KV_STORE:
    case KV_DELETE:
    case KV_BATCH:
    case KV_FLUSH:
        bkv_put_submit(s, req);
        break;
    case KV_LIST:
        bkv_list_submit(s, req);
        break;
    case KV_STORE_OPEN:
    case KV_WRITE:
    case KV_COMMIT:
    case KV_ABORT:
    case KV_RETRIEVE_OPEN:
    case KV_READ:
    case KV_READ_CLOSE:
        bkv_stream_submit(s, req);
        break;
    case BKV_OP_PART:
        bkv_part_here(s, req);
        break;
    default:
        kv_complete(req, -ENOTSUP);
        break;
    }
}

static void blob_kv_submit(struct kv_chan *chan, struct kv_req *req)
{
    struct bkv_shards *set = kv_driver_dev(kv_chan_dev(chan));

    if (set->n > 1)
        bkv_shards_submit(set, req);
    else
        bkv_shard_submit(set->shard[0], req);
}

static void blob_kv_arrive(struct kv_dev *dev, struct kv_req *req)
{
    (void)dev;
    if (req->part != NULL)
        bkv_shard_here(req->part, req);
    else
        bkv_shards_arrive(req);
}

/* --- URIs ------------------------------------------------------------------------------------- */

/* The block device: a file or disk by its path, or whatever ?bdev= names. */
static int block_uri(struct rt_task *t, const char *path, const struct param_values *params,
                     bool make, char *out, size_t max, struct err *why)
{
    bool bdev = param_given(params, "bdev");
    struct lvol_file_opts file = {
        .path = path,
        .readonly = param_flag(params, "readonly"),
        .size_bytes = make ? param_u64(params, "size") : 0,
        .block_bytes = param_given(params, "block_size") ? param_u64(params, "block_size") : 0,
        .direct = param_given(params, "direct") ? param_str(params, "direct") : NULL,
    };

    if (bdev == (path[0] != '\0'))
        return err_set(why, -EINVAL,
                       "blob: needs a path (blob:/srv/data.kv) or ?bdev=URI of a "
                       "block device, and not both");
    if (bdev) {
        if (strlen(param_str(params, "bdev")) >= max)
            return err_set(why, -ENAMETOOLONG, "blob: bdev= is too long");
        memcpy(out, param_str(params, "bdev"), strlen(param_str(params, "bdev")) + 1);
        return 0;
    }
    if (file.block_bytes == 0)
        file.block_bytes = lvol_file_block_bytes(t, path);
    return lvol_file_uri(&file, out, max) < 0
               ? err_set(why, -ENAMETOOLONG, "blob: the path is too long")
               : 0;
}

/* Whether the file is to be made. In one that is a file of a file system what was never written has
 * no blocks yet, unless somebody has taken care of that. */
static bool look_at(struct rt_task *t, struct bkv_shards *s, const char *path,
                    const struct param_values *params)
{
    struct stat st;
    int rc;

    if (param_given(params, "bdev"))
        return false;
    rc = rt_stat(t, AT_FDCWD, path, &st);
    s->prepare = rc < 0 || (S_ISREG(st.st_mode) && st.st_blocks * 512ll < st.st_size / 100 * 99);
    return rc == -ENOENT && !s->opts.read_only;
}

static int take_opts(struct bkv_shards *s, const struct param_values *params, struct err *why)
{
    const char *store = param_str(params, "store");
    struct bkv_opts *o = &s->opts;

    if (store[0] == '\0' || strlen(store) >= sizeof(o->store))
        return err_set(why, -EINVAL, "blob: store= has 1 to %zu bytes", sizeof(o->store) - 1);
    memcpy(o->store, store, strlen(store) + 1);
    o->sync = param_flag(params, "sync");
    o->read_only = param_flag(params, "readonly");
    o->memory_bytes = param_u64(params, "memory");
    o->memory_given = param_given(params, "memory");
    o->nshards = 0;
    if (param_given(params, "shards")) {
        if (param_u64(params, "shards") < 1 || param_u64(params, "shards") > BKV_SHARDS_MAX)
            return err_set(why, -EINVAL, "blob: shards= is 1 to %u", BKV_SHARDS_MAX);
        o->nshards = (unsigned)param_u64(params, "shards");
    }
    o->table_bytes = param_u64(params, "table");
    o->checkpoint_bytes = param_u64(params, "checkpoint");
    o->segment_bytes = param_given(params, "segment") ? param_u64(params, "segment") : 0;
    if (o->memory_bytes < 4 * MIB)
        return err_set(why, -EINVAL, "blob: memory= is 4M at least");
    if (o->checkpoint_bytes < MIB)
        return err_set(why, -EINVAL, "blob: checkpoint= is 1M at least");
    o->extents = (uint32_t)MIN(param_u64(params, "extents"), (uint64_t)BKV_EXTENTS_MAX);
    o->snapshot_pin_bytes =
        param_given(params, "snapshot_pin") ? param_u64(params, "snapshot_pin") : 0;
    o->snapshot_max_age_ns =
        param_given(params, "snapshot_max_age") ? param_u64(params, "snapshot_max_age") : 0;
    o->codec.key_file = param_given(params, "key_file") ? param_str(params, "key_file") : NULL;
    o->codec.key_command =
        param_given(params, "key_command") ? param_str(params, "key_command") : NULL;
    return bkv_codec_parse(param_given(params, "compress") ? param_str(params, "compress") : NULL,
                           param_u64(params, "level"), &o->codec, why);
}

static int blob_kv_open(struct rt_task *t, struct kv_dev *dev, const char *path,
                        const struct param_values *params, struct kv_info *info, struct err *why)
{
    struct bkv_shards *set = kv_driver_dev(dev);
    CLEANUP(free_p) char *uri = malloc(URI_MAX);
    uint32_t caps = KV_CAP_RANGE | KV_CAP_VERSION | KV_CAP_APPEND | KV_CAP_BATCH |
                    KV_CAP_ORDERED_LIST | KV_CAP_SNAPSHOT | KV_CAP_UNKNOWN_LEN;
    int rc;

    if (uri == NULL)
        return err_set(why, -ENOMEM, "blob: no memory");
    rc = take_opts(set, params, why);
    if (rc == 0)
        rc = block_uri(t, path, params, look_at(t, set, path, params), uri, URI_MAX, why);
    if (rc < 0)
        return rc;
    snprintf(set->path, sizeof(set->path), "%s",
             param_given(params, "bdev") ? param_str(params, "bdev") : path);
    rc = bkv_shards_open(t, set, uri, why);
    if (rc < 0)
        return rc;
    if (set->opts.read_only)
        caps |= KV_CAP_READ_ONLY;
    if (!set->opts.sync)
        caps |= KV_CAP_VOLATILE_CACHE;
    *info = (struct kv_info){
        .key_max = KV_KEY_MAX,
        .val_max = bkv_large_val_max(set->shard[0]),
        .caps = caps,
        .size_bytes = (uint64_t)(set->shard[0]->nsegs - set->n) * set->shard[0]->segment_bytes,
        .optimal_bytes = 4096,
    };
    memcpy(info->uuid, set->shard[0]->super.uuid, sizeof(info->uuid));
    return 0;
}

static int blob_kv_same(struct kv_dev *dev, const char *path, const struct param_values *params,
                        struct err *why)
{
    const struct bkv_shards *set = kv_driver_dev(dev);
    const char *on = param_given(params, "bdev") ? param_str(params, "bdev") : path;

    if (strcmp(on, set->path) != 0 || strcmp(param_str(params, "store"), set->opts.store) != 0)
        return 0;
    if (param_flag(params, "readonly") != set->opts.read_only)
        return err_set(why, -EINVAL, "blob: the store is open %s",
                       set->opts.read_only ? "for reading only" : "for writing");
    return 1;
}

static void blob_kv_close(struct rt_task *t, struct kv_dev *dev)
{
    bkv_shards_close(t, kv_driver_dev(dev));
}

static void blob_kv_abandon(struct kv_dev *dev)
{
    bkv_shards_abandon(kv_driver_dev(dev));
}

static const struct param blob_kv_params[] = {
    {"size", PARAM_SIZE, "16G", false, "makes the file with this size when it is not there"},
    {"bdev", PARAM_STR, NULL, false, "the URI of a block device, instead of a path"},
    {"store", PARAM_STR, "default", false, "several stores and volumes can share a device"},
    {"sync", PARAM_BOOL, "yes", false, "no: a change is acknowledged before it is durable"},
    {"readonly", PARAM_BOOL, "no", false, "nothing is written, not even after a crash"},
    {"memory", PARAM_SIZE, "64M", false, "for what was read and what was written last"},
    {"table", PARAM_SIZE, "1G", false, "at most this for the location table: 8 bytes a key"},
    {"checkpoint", PARAM_SIZE, "256M", false, "bytes of log from one checkpoint to the next"},
    {"shards", PARAM_U64, NULL, false, "of a new store, 1 to 64; default by its size and reactors"},
    {"segment", PARAM_SIZE, NULL, false, "of a new store; default by the size of the device"},
    {"block_size", PARAM_SIZE, NULL, false, "512 (what the device has, if more) or 4096"},
    {"direct", PARAM_STR, NULL, false, "auto, on or off: past the page cache"},
    {"snapshot_pin", PARAM_SIZE, NULL, false, "dead data snapshots may keep; default a quarter"},
    {"snapshot_max_age", PARAM_TIME, NULL, false, "a snapshot goes stale then; default never"},
    {"extents", PARAM_U64, "0", false, "chunks a value names without lists; 0: 1365; for tests"},
    {"compress", PARAM_STR, NULL, false, "none, lz4 or zstd"},
    {"level", PARAM_U64, "0", false, "of compression; 0: the library's own"},
    {"key_file", PARAM_STR, NULL, false, "encrypts, with the key in this file"},
    {"key_command", PARAM_STR, NULL, false, "encrypts, with the key this command prints"},
    {0},
};

const struct kv_driver kv_blob_driver = {
    .name = "blob",
    .help = "the engine: values in a file, a disk or a block device",
    .params = blob_kv_params,
    .dev_bytes = sizeof(struct bkv_shards),
    .open = blob_kv_open,
    .same = blob_kv_same,
    .close = blob_kv_close,
    .submit = blob_kv_submit,
    .arrive = blob_kv_arrive,
    .usage = bkv_shards_usage,
    .check = bkv_shards_check,
    .counters = bkv_shards_counters,
    .abandon = blob_kv_abandon,
};
