/* SPDX-License-Identifier: Apache-2.0 */
/* The KV driver `blob:`: what a URI says, and which file a request goes to. */
#include "kv/drivers/blobkv/large.h"
#include "kv/drivers/blobkv/check.h"
#include "kv/drivers/blobkv/list.h"
#include "kv/drivers/blobkv/snap.h"

#include "rt/io.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static struct bkv *store_of(struct kv_chan *chan)
{
    return kv_driver_dev(kv_chan_dev(chan));
}

static void blob_kv_submit(struct kv_chan *chan, struct kv_req *req)
{
    struct bkv *s = store_of(chan);

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
        bkv_stream_submit(store_of(chan), req);
        break;
    default:
        kv_complete(req, -ENOTSUP);
        break;
    }
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
static bool look_at(struct rt_task *t, struct bkv *s, const char *path,
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

static int take_opts(struct bkv *s, const struct param_values *params, struct err *why)
{
    const char *store = param_str(params, "store");
    struct bkv_opts *o = &s->opts;

    if (store[0] == '\0' || strlen(store) >= sizeof(o->store))
        return err_set(why, -EINVAL, "blob: store= has 1 to %zu bytes", sizeof(o->store) - 1);
    memcpy(o->store, store, strlen(store) + 1);
    o->sync = param_flag(params, "sync");
    o->read_only = param_flag(params, "readonly");
    o->memory_bytes = param_u64(params, "memory");
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
    struct bkv *s = kv_driver_dev(dev);
    CLEANUP(free_p) char *uri = malloc(URI_MAX);
    uint32_t caps = KV_CAP_RANGE | KV_CAP_VERSION | KV_CAP_APPEND | KV_CAP_BATCH |
                    KV_CAP_ORDERED_LIST | KV_CAP_SNAPSHOT | KV_CAP_UNKNOWN_LEN;
    int rc;

    if (uri == NULL)
        return err_set(why, -ENOMEM, "blob: no memory");
    rc = take_opts(s, params, why);
    if (rc == 0)
        rc = block_uri(t, path, params, look_at(t, s, path, params), uri, URI_MAX, why);
    if (rc < 0)
        return rc;
    snprintf(s->path, sizeof(s->path), "%s",
             param_given(params, "bdev") ? param_str(params, "bdev") : path);
    rc = bkv_open(t, s, uri, why);
    if (rc < 0)
        return rc;
    if (s->opts.read_only)
        caps |= KV_CAP_READ_ONLY;
    if (!s->opts.sync)
        caps |= KV_CAP_VOLATILE_CACHE;
    *info = (struct kv_info){
        .key_max = KV_KEY_MAX,
        .val_max = bkv_large_val_max(s),
        .caps = caps,
        .size_bytes = (uint64_t)(s->nsegs - 1) * s->segment_bytes,
        .optimal_bytes = 4096,
    };
    memcpy(info->uuid, s->super.uuid, sizeof(info->uuid));
    return 0;
}

static int blob_kv_same(struct kv_dev *dev, const char *path, const struct param_values *params,
                        struct err *why)
{
    const struct bkv *s = kv_driver_dev(dev);
    const char *on = param_given(params, "bdev") ? param_str(params, "bdev") : path;

    if (strcmp(on, s->path) != 0 || strcmp(param_str(params, "store"), s->opts.store) != 0)
        return 0;
    if (param_flag(params, "readonly") != s->opts.read_only)
        return err_set(why, -EINVAL, "blob: the store is open %s",
                       s->opts.read_only ? "for reading only" : "for writing");
    return 1;
}

static void blob_kv_close(struct rt_task *t, struct kv_dev *dev)
{
    bkv_close(t, kv_driver_dev(dev));
}

static int blob_kv_usage(struct rt_task *t, struct kv_dev *dev, uint64_t *out_used,
                         uint64_t *out_keys)
{
    struct bkv *s = kv_driver_dev(dev);

    /* How many keys there are is known when the leaves know them. */
    if (!s->opts.read_only && s->poison == 0)
        (void)bkv_checkpoint(t, s, NULL, NULL);
    *out_used = bkv_space_data(s);
    return bkv_usage_keys(t, s, out_keys);
}

static int blob_kv_check(struct rt_task *t, struct kv_dev *dev, const struct kv_check_opts *opts,
                         struct kv_check_report *out)
{
    return bkv_check(t, kv_driver_dev(dev), opts, out);
}

static int blob_kv_counters(struct rt_task *t, struct kv_dev *dev,
                            void (*each)(void *arg, const char *name, uint64_t value), void *arg)
{
    bkv_counters(kv_driver_dev(dev), each, arg);
    return 0;
}

static void blob_kv_abandon(struct kv_dev *dev)
{
    struct bkv *s = kv_driver_dev(dev);

    lvs_abandon(&s->lvs);
    bkv_free(s);
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
    .dev_bytes = sizeof(struct bkv),
    .home = true,
    .open = blob_kv_open,
    .same = blob_kv_same,
    .close = blob_kv_close,
    .submit = blob_kv_submit,
    .usage = blob_kv_usage,
    .check = blob_kv_check,
    .counters = blob_kv_counters,
    .abandon = blob_kv_abandon,
};
