/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The block driver `lvol:`: a logical volume as a device. Requests become requests of the blobstore
 * one for one; it finds the clusters, and allocates them for volumes that are thin.
 */
#include "blob/lvol/internal.h"

#include "rt/buf.h"

#include <assert.h>
#include <string.h>

#define OPS 256                  /* per channel, in flight at the blobstore; more wait in line */
#define ZERO_MAX_BYTES (1 * GIB) /* of one request, so that zeroing much can be cancelled */

struct lvol_dev {
    struct blk_dev *dev;
    struct lvs lvs;
    struct blob *blob;
    struct lvol_external *external; /* what it stands on outside of the store; NULL */
    struct lvol_watch watch;
    struct blk_watch base_watch;
    uint32_t block_shift;
    bool readonly;
    bool by_path;
    char *place;                  /* path or bdev= of the URI */
    char name[LVOL_NAME_MAX + 1]; /* under lvs.shared->lock */
    char uuid[LVOL_UUID_MAX];
};

struct lvol_op {
    struct blob_req req; /* first */
    struct blk_req *parent;
};

struct lvol_chan {
    struct blob_chan *blobs;
    struct blob *blob;
    uint32_t block_shift;
    struct rt_pool ops;
    struct list waiting; /* requests that found it empty */
};

/* In blk_req.driver. */
struct lvol_req {
    struct lvol_op *op; /* NULL: waits for one */
    struct list link;
};

static const struct param lvol_params[] = {
    {"bdev", PARAM_STR, NULL, false, "URI of the store's device, percent-encoded, for a path"},
    {"block_size", PARAM_SIZE, NULL, false,
     "of the file at the path; as the store was made, if not given"},
    {"size", PARAM_SIZE, NULL, false, "makes the file at the path when it is not there"},
    {"direct", PARAM_STR, NULL, false, "on, off or auto: as for file:"},
    {"readonly", PARAM_BOOL, "no", false, "opens store and volume for reading only"},
    {"create", PARAM_SIZE, NULL, false,
     "makes the volume with this size when it is not there, and the store on an empty device"},
    {"thin", PARAM_BOOL, "yes", false, "of a volume that is made: space is taken when written"},
    {"cluster_size", PARAM_SIZE, NULL, false, "of a store that is made"},
    {"external", PARAM_STR, NULL, false,
     "where the external snapshot is that the volume stands on: a percent-encoded URI or a path; "
     "with "
     "create= the volume is made as its clone"},
    {.name = NULL},
};

/* --- which one -------------------------------------------------------------------------------- */

static uint64_t size_param(const struct param_values *params, const char *name)
{
    return param_given(params, name) ? param_u64(params, name) : 0;
}

/* The URI of the store's device, in URI_MAX bytes. */
static int base_uri(struct rt_task *t, const char *path, const struct param_values *params,
                    char *out, struct err *why)
{
    struct lvol_file_opts file = {
        .path = path,
        .block_bytes = size_param(params, "block_size"),
        .size_bytes = size_param(params, "size"),
        .direct = param_str(params, "direct"),
        .readonly = param_flag(params, "readonly"),
    };
    const char *bdev = param_str(params, "bdev");

    if ((bdev == NULL) == (path[0] == '\0'))
        return err_set(why, -EINVAL,
                       "lvol: needs the path of a file or disk, as in lvol:/srv/disk.img#NAME, or "
                       "bdev=URI");
    if (bdev != NULL && (file.block_bytes != 0 || file.size_bytes != 0 || file.direct != NULL))
        return err_set(why, -EINVAL,
                       "lvol: block_size, size and direct are for a path; with bdev= they belong "
                       "into its URI");
    if (bdev == NULL && file.block_bytes == 0)
        file.block_bytes = lvol_file_block_bytes(t, path);
    if (bdev != NULL)
        memcpy(out, bdev, strlen(bdev) + 1); /* is part of a URI, so it fits */
    else if (lvol_file_uri(&file, out, URI_MAX) < 0)
        return err_set(why, -ENAMETOOLONG, "lvol: the path is too long");
    return 0;
}

/* "name", "uuid" or "store/name". */
static bool fragment_names(const struct lvol_dev *d, const char *fragment)
{
    size_t store_len = strlen(d->lvs.name);

    if (strncmp(fragment, d->lvs.name, store_len) == 0 && fragment[store_len] == '/' &&
        strcmp(fragment + store_len + 1, d->name) == 0)
        return true;
    return strcmp(fragment, d->name) == 0 || strcmp(fragment, d->uuid) == 0;
}

static int lvol_same(struct blk_dev *dev, const char *path, const struct param_values *params,
                     struct err *why)
{
    struct lvol_dev *d = blk_driver_dev(dev);
    const char *bdev = param_str(params, "bdev");
    bool same;

    if (params->fragment == NULL || d->by_path != (bdev == NULL) ||
        strcmp(d->place, bdev != NULL ? bdev : path) != 0)
        return 0;
    pthread_mutex_lock(&d->lvs.shared->lock);
    same = fragment_names(d, params->fragment);
    pthread_mutex_unlock(&d->lvs.shared->lock);
    if (same && param_flag(params, "readonly") != d->readonly)
        return err_set(why, -EBUSY, "volume %s is open for %s: %s", d->name,
                       d->readonly ? "reading only" : "writing", blk_uri(dev));
    if (same && param_given(params, "block_size") &&
        param_u64(params, "block_size") != blk_info(dev)->block_bytes)
        return err_set(why, -EINVAL, "volume %s is open with blocks of %u bytes: %s", d->name,
                       blk_info(dev)->block_bytes, blk_uri(dev));
    return same;
}

/* --- open and close --------------------------------------------------------------------------- */

static void renamed(struct lvol_watch *w, const char *name)
{
    struct lvol_dev *d = container_of(w, struct lvol_dev, watch);

    memset(d->name, 0, sizeof(d->name));
    memcpy(d->name, name, MIN(strlen(name), sizeof(d->name) - 1));
}

static void resized(struct lvol_watch *w, uint64_t len_bytes)
{
    struct lvol_dev *d = container_of(w, struct lvol_dev, watch);

    blk_resized(d->dev, len_bytes >> d->block_shift);
}

static void base_event(struct blk_watch *w, enum blk_event ev)
{
    if (ev == BLK_EVENT_REMOVED)
        blk_removed(container_of(w, struct lvol_dev, base_watch)->dev);
}

/* Opens the store; makes it, named as the fragment says, when that was asked for. */
static int store_open(struct rt_task *t, struct lvol_dev *d, const char *uri,
                      const struct param_values *params, struct err *why)
{
    const char *slash = params->fragment != NULL ? strchr(params->fragment, '/') : NULL;
    uint64_t cluster_bytes = size_param(params, "cluster_size");
    char name[LVOL_NAME_MAX + 1] = "lvs";
    struct lvs_format_opts fopts = {.name = name};
    unsigned flags = d->readonly ? LVS_OPEN_READ_ONLY : 0;

    if (!param_given(params, "create"))
        return lvs_open(t, uri, flags, NULL, &d->lvs, why);
    if (d->readonly)
        return err_set(why, -EINVAL, "lvol: create= and readonly=yes contradict each other");
    if (cluster_bytes > UINT32_MAX)
        return err_set(why, -EINVAL, "lvol: cluster_size has to be less than 4G");
    if (slash != NULL && slash > params->fragment && slash - params->fragment <= LVOL_NAME_MAX) {
        memcpy(name, params->fragment, (size_t)(slash - params->fragment));
        name[slash - params->fragment] = '\0';
    }
    fopts.blob.cluster_bytes = (uint32_t)cluster_bytes;
    return lvs_open(t, uri, flags | LVS_OPEN_FORMAT, &fopts, &d->lvs, why);
}

static int volume_make(struct rt_task *t, struct lvol_dev *d, const struct param_values *params,
                       const char *name, uint64_t *out_id, struct err *why)
{
    struct lvol_create_opts opts = {
        .name = name, .len_bytes = param_u64(params, "create"), .thin = param_flag(params, "thin")};

    if (param_given(params, "external"))
        return lvol_clone_external(t, &d->lvs, param_str(params, "external"), name, opts.len_bytes,
                                   out_id, why);
    return lvol_create(t, &d->lvs, &opts, out_id, why);
}

static int volume_find(struct rt_task *t, struct lvol_dev *d, const struct param_values *params,
                       uint64_t *out_id, struct err *why)
{
    const char *name = params->fragment;
    size_t store_len = strlen(d->lvs.name);
    int rc = lvol_lookup(t, &d->lvs, params->fragment, out_id, why);

    if (rc != -ENOENT || !param_given(params, "create"))
        return rc;
    if (strncmp(name, d->lvs.name, store_len) == 0 && name[store_len] == '/')
        name += store_len + 1;
    rc = volume_make(t, d, params, name, out_id, why);
    return rc == -EEXIST ? lvol_lookup(t, &d->lvs, params->fragment, out_id, why) : rc;
}

static void volume_close(struct rt_task *t, struct lvol_dev *d)
{
    if (d->blob != NULL)
        blob_close(t, take_ptr(&d->blob));
    lvol_external_close(t, take_ptr(&d->external));
}

static int volume_open(struct rt_task *t, struct lvol_dev *d, uint64_t id, const char *external,
                       struct err *why)
{
    struct lvol_info info;
    int rc = lvol_external_open(t, &d->lvs, id, external, &d->external, why);

    if (rc < 0)
        return rc;
    rc = lvol_info(t, &d->lvs, id, &info);

    if (rc == 0 && info.kv[0] != '\0' && !d->readonly && !info.blob.read_only)
        return err_set(why, -EACCES,
                       "volume %s holds the key-value store '%s', which writing blocks would "
                       "destroy; readonly=yes opens it for reading",
                       info.name, info.kv);
    if (rc == 0)
        rc = blob_open(t, d->lvs.bs, id, &d->blob);
    if (rc < 0)
        return err_set(why, rc, "the volume cannot be opened: %s", err_str(rc));
    memcpy(d->name, info.name, sizeof(d->name));
    memcpy(d->uuid, info.uuid, sizeof(d->uuid));
    return 0;
}

static void describe(struct lvol_dev *d, const struct blob_info *blob, struct blk_info *info)
{
    const struct blk_info *base = blk_info(blob_store_dev(d->lvs.bs));
    const uint32_t kept = BLK_CAP_VOLATILE_CACHE | BLK_CAP_NO_FLUSH | BLK_CAP_READ_ONLY;

    info->block_bytes = base->block_bytes;
    info->phys_block_bytes = base->phys_block_bytes;
    info->caps = (base->caps & kept) | BLK_CAP_FUA | BLK_CAP_WRITE_ZEROES | BLK_CAP_UNMAP;
    if (d->readonly || blob->read_only)
        info->caps |= BLK_CAP_READ_ONLY;
    info->max_zero_bytes = ZERO_MAX_BYTES;
    info->buf_align = 1;
    lvol_uuid_parse(d->uuid, info->uuid);
    d->block_shift = (uint32_t)__builtin_ctz(info->block_bytes);
}

static int lvol_open(struct rt_task *t, struct blk_dev *dev, const char *path,
                     const struct param_values *params, struct blk_info *info, struct err *why)
{
    CLEANUP(free_p) char *uri = malloc(URI_MAX);
    struct lvol_dev *d = blk_driver_dev(dev);
    struct blob_info blob;
    uint64_t id;
    int rc;

    if (uri == NULL)
        return err_set(why, -ENOMEM, "lvol: out of memory");
    rc = base_uri(t, path, params, uri, why);
    if (rc < 0)
        return rc;
    d->dev = dev;
    d->readonly = param_flag(params, "readonly");
    d->by_path = path[0] != '\0';
    d->place = strdup(d->by_path ? path : param_str(params, "bdev"));
    if (d->place == NULL)
        return err_set(why, -ENOMEM, "lvol: out of memory");
    rc = store_open(t, d, uri, params, why);
    if (rc < 0) {
        free_p(&d->place);
        return rc;
    }
    rc = volume_find(t, d, params, &id, why);
    if (rc == 0)
        rc = volume_open(t, d, id, param_str(params, "external"), why);
    if (rc == 0) {
        blob_info(d->blob, &blob);
        if (blob.len_bytes == 0)
            rc = err_set(why, -EINVAL, "volume %s is empty; `kvasir lvol resize` gives it a size",
                         d->name);
    }
    if (rc < 0) {
        volume_close(t, d);
        lvs_close(t, &d->lvs);
        free_p(&d->place);
        return rc;
    }
    describe(d, &blob, info);
    d->watch = (struct lvol_watch){.id = id, .resized = resized, .renamed = renamed};
    info->nblocks = lvol_watch_add(&d->lvs, &d->watch, d->blob) >> d->block_shift;
    d->base_watch.fn = base_event;
    blk_watch_add(blob_store_dev(d->lvs.bs), &d->base_watch);
    return 0;
}

static void lvol_close(struct rt_task *t, struct blk_dev *dev)
{
    struct lvol_dev *d = blk_driver_dev(dev);

    blk_watch_del(t, blob_store_dev(d->lvs.bs), &d->base_watch);
    lvol_watch_del(&d->lvs, &d->watch);
    volume_close(t, d);
    lvs_close(t, &d->lvs);
    free_p(&d->place);
}

static void lvol_abandon(struct blk_dev *dev)
{
    struct lvol_dev *d = blk_driver_dev(dev);

    if (d->lvs.shared != NULL) {
        lvol_watch_del(&d->lvs, &d->watch);
        lvol_external_abandon(d->external);
        lvs_abandon(&d->lvs);
    }
    free_p(&d->place);
}

/* --- requests --------------------------------------------------------------------------------- */

static struct lvol_chan *lvol_chan(const struct blk_chan *chan)
{
    return blk_driver_chan(chan);
}

static struct lvol_req *lvol_req(struct blk_req *req)
{
    static_assert(sizeof(struct lvol_req) <= sizeof(req->driver), "room in a request");
    return (struct lvol_req *)req->driver;
}

static int lvol_chan_open(struct rt_task *t, struct blk_dev *dev, struct blk_chan *chan)
{
    struct lvol_dev *d = blk_driver_dev(dev);
    struct lvol_chan *c = lvol_chan(chan);
    int rc = rt_pool_init(&c->ops, sizeof(struct lvol_op), OPS);

    if (rc < 0)
        return rc;
    list_init(&c->waiting);
    c->blob = d->blob;
    c->block_shift = d->block_shift;
    rc = blob_chan_get(t, d->lvs.bs, &c->blobs);
    if (rc < 0)
        rt_pool_fini(&c->ops);
    return rc;
}

static void lvol_chan_close(struct rt_task *t, struct blk_chan *chan)
{
    struct lvol_chan *c = lvol_chan(chan);

    must(list_empty(&c->waiting));
    blob_chan_put(t, c->blobs);
    rt_pool_fini(&c->ops);
}

static void op_done(struct rt_req *rreq);

static uint8_t blob_op_of(const struct blk_req *req)
{
    switch (req->op) {
    case BLK_READ:
        return BLOB_READ;
    case BLK_WRITE:
        return BLOB_WRITE;
    case BLK_FLUSH:
        return BLOB_FLUSH;
    case BLK_WRITE_ZEROES:
        return BLOB_WRITE_ZEROES;
    case BLK_UNMAP:
        return BLOB_UNMAP;
    default:
        must(!"an operation this driver does not claim");
        return BLOB_READ;
    }
}

static void op_submit(struct blk_req *req, struct lvol_op *op)
{
    struct lvol_chan *c = lvol_chan(req->chan);

    lvol_req(req)->op = op;
    op->parent = req;
    rt_req_init(&op->req.req, op_done);
    op->req.req.trace_id = req->req.trace_id;
    op->req.op = blob_op_of(req);
    op->req.flags = req->flags & BLK_F_FUA ? BLOB_F_FUA : 0;
    op->req.iov = req->iov;
    op->req.iovcnt = req->iovcnt;
    op->req.off_bytes = req->lba << c->block_shift;
    op->req.len_bytes = (uint64_t)req->nblocks << c->block_shift;
    op->req.blob = c->blob;
    blob_submit(c->blobs, &op->req);
}

static void op_done(struct rt_req *rreq)
{
    struct lvol_op *op = container_of(rreq, struct lvol_op, req.req);
    struct blk_req *req = op->parent;
    struct lvol_chan *c = lvol_chan(req->chan);
    struct lvol_req *next = list_pop_entry(&c->waiting, struct lvol_req, link);

    lvol_req(req)->op = NULL;
    if (next != NULL)
        op_submit(container_of((void *)next, struct blk_req, driver), op);
    else
        rt_pool_put(&c->ops, op);
    blk_complete(req, rreq->rc);
}

static void lvol_submit(struct blk_chan *chan, struct blk_req *req)
{
    struct lvol_chan *c = lvol_chan(chan);
    struct lvol_req *r = lvol_req(req);
    struct lvol_op *op = rt_pool_get(&c->ops);

    r->op = NULL;
    list_init(&r->link);
    if (op != NULL)
        op_submit(req, op);
    else
        list_add_tail(&c->waiting, &r->link);
}

static void lvol_cancel(struct blk_chan *chan, struct blk_req *req)
{
    struct lvol_req *r = lvol_req(req);

    if (r->op != NULL) {
        rt_req_cancel(&r->op->req.req);
        return;
    }
    list_del(&r->link);
    blk_complete(req, -ECANCELED);
}

const struct blk_driver blk_lvol_driver = {
    .name = "lvol",
    .help = "a logical volume of a store in SPDK's format: lvol:PATH#STORE/NAME, #NAME or #UUID",
    .params = lvol_params,
    .fragment = true,
    .dev_bytes = sizeof(struct lvol_dev),
    .chan_bytes = sizeof(struct lvol_chan),
    .open = lvol_open,
    .same = lvol_same,
    .close = lvol_close,
    .chan_open = lvol_chan_open,
    .chan_close = lvol_chan_close,
    .submit = lvol_submit,
    .cancel = lvol_cancel,
    .abandon = lvol_abandon,
};

struct blob_store *lvol_dev_store(const struct blk_dev *dev)
{
    if (blk_driver_of(dev) != &blk_lvol_driver)
        return NULL;
    return ((const struct lvol_dev *)blk_driver_dev(dev))->lvs.bs;
}
