/* SPDX-License-Identifier: Apache-2.0 */
/*
 * dir: one file per key in a directory. Each request is a task, so many at a time; others stand in
 * line. All of it runs on the reactor that opened the device, so that the locks and the index need
 * no locks of their own.
 */
#include "kv/drivers/dir/dir.h"

#include <fcntl.h>
#include <stdio.h>

/* In kv_req.driver. */
struct job {
    struct list link;
    struct rt_task *task; /* NULL: in line */
};

static struct job *job_of(struct kv_req *req)
{
    return (struct job *)req->driver;
}

static struct kv_req *req_of(struct list *link)
{
    return (struct kv_req *)((char *)link - offsetof(struct job, link) -
                             offsetof(struct kv_req, driver));
}

static int dir_flush(struct rt_task *t, struct dir *d)
{
    return dir_sync_names(t, d);
}

static int run(struct rt_task *t, struct dir *d, struct kv_req *req)
{
    switch (req->op) {
    case KV_STORE:
        return dir_store(t, d, req);
    case KV_RETRIEVE:
        return dir_retrieve(t, d, req);
    case KV_STAT:
        return dir_stat(t, d, req);
    case KV_DELETE:
        return dir_delete(t, d, req);
    case KV_LIST:
        return dir_list(t, d, req);
    case KV_FLUSH:
        return dir_flush(t, d);
    case KV_STORE_OPEN:
        return dir_store_open(t, d, req);
    case KV_WRITE:
        return dir_write(t, d, req);
    case KV_COMMIT:
    case KV_ABORT:
        return dir_commit(t, d, req);
    case KV_RETRIEVE_OPEN:
        return dir_retrieve_open(t, d, req);
    case KV_READ:
        return dir_read(t, d, req);
    case KV_READ_CLOSE:
        return dir_read_close(t, d, req);
    default:
        return -ENOTSUP;
    }
}

static void start_next(struct dir *d);

static int job_task(struct rt_task *t, void *arg)
{
    struct kv_req *req = arg;
    struct dir *d = kv_driver_dev(kv_chan_dev(req->chan));
    int rc;

    rt_task_set_trace(t, req->req.trace_id);
    rc = run(t, d, req);
    kv_complete(req, rc);
    d->running--;
    start_next(d);
    return 0;
}

/* Starts what is in line while there is room. Without a task for the first it waits for the next
 * to end; when none runs it fails. */
static void start_next(struct dir *d)
{
    while (d->running < d->running_max && !list_empty(&d->queue)) {
        struct kv_req *req = req_of(list_pop(&d->queue));
        int rc = rt_task_start("dir", job_task, req, NULL, &job_of(req)->task);

        if (rc == 0) {
            d->running++;
            continue;
        }
        if (d->running > 0) {
            list_add_head(&d->queue, &job_of(req)->link);
            return;
        }
        kv_complete(req, rc);
    }
}

static void dir_submit(struct kv_chan *chan, struct kv_req *req)
{
    struct dir *d = kv_driver_dev(kv_chan_dev(chan));

    job_of(req)->task = NULL;
    list_init(&job_of(req)->link);
    list_add_tail(&d->queue, &job_of(req)->link);
    start_next(d);
}

static void dir_cancel(struct kv_chan *chan, struct kv_req *req)
{
    if (req->op == KV_ABORT || req->op == KV_READ_CLOSE)
        return; /* a stream has to end */
    if (job_of(req)->task != NULL) {
        rt_task_cancel(job_of(req)->task);
        return;
    }
    if (req->op == KV_COMMIT)
        return;
    list_del(&job_of(req)->link);
    kv_complete(req, -ECANCELED);
}

/* --- opening ---------------------------------------------------------------------------------- */

static int open_names(struct rt_task *t, struct dir *d, const char *path, struct err *why)
{
    size_t len = strlen(path) + 48;
    char *full = malloc(len);
    int rc = 0;

    if (full == NULL)
        return -ENOMEM;
    snprintf(full, len, "%s/%llu/%llu", path, (unsigned long long)d->bus,
             (unsigned long long)d->ns);
    if (!d->read_only)
        rc = rt_mkdir_all(t, full, 0777, d->sync);
    if (rc >= 0)
        rc = d->fd = rt_open(t, AT_FDCWD, full, O_RDONLY | O_DIRECTORY, 0);
    if (rc < 0)
        err_set(why, rc, "dir: %.160s: %s", full,
                rc == -ENOTDIR ? "not a directory" : err_str(dir_errno(rc)));
    free(full);
    return rc < 0 ? (rc == -ENOTDIR ? -EINVAL : dir_errno(rc)) : 0;
}

static void dir_free(struct dir *d)
{
    dir_index_fini(&d->index);
    map_fini(&d->locks);
    rt_pool_fini(&d->streams);
    free(d->copy);
    free(d->root);
}

static int open_memory(struct dir *d, const char *path, const struct param_values *params,
                       struct err *why)
{
    int rc = dir_index_init(&d->index, param_u64(params, "index"));

    if (rc == -EINVAL)
        return err_set(why, rc, "dir: index has to be at least 1M");
    if (rc == 0)
        rc = map_init(&d->locks, d->running_max);
    if (rc == 0)
        rc = rt_pool_init(&d->streams, sizeof(struct dir_stream),
                          (uint32_t)param_u64(params, "streams"));
    if (rc < 0)
        return rc;
    d->copy = malloc(DIR_COPY_BYTES);
    d->root = strdup(path);
    return d->copy == NULL || d->root == NULL ? -ENOMEM : 0;
}

static int check_params(const char *path, const struct param_values *params, struct err *why)
{
    if (path[0] == '\0')
        return err_set(why, -EINVAL, "dir: which directory? (dir:/srv/objects)");
    if (param_u64(params, "tasks") < 1 || param_u64(params, "tasks") > 4096)
        return err_set(why, -EINVAL, "dir: tasks has to be from 1 to 4096");
    if (param_u64(params, "streams") < 1 || param_u64(params, "streams") > 65536)
        return err_set(why, -EINVAL, "dir: streams has to be from 1 to 65536");
    return 0;
}

static int dir_open(struct rt_task *t, struct kv_dev *dev, const char *path,
                    const struct param_values *params, struct kv_info *info, struct err *why)
{
    struct dir *d = kv_driver_dev(dev);
    int rc = check_params(path, params, why);

    if (rc < 0)
        return rc;
    d->dev = dev;
    d->fd = d->temps_fd = d->temp_fd = d->temp_lock_fd = -1;
    d->sync = param_flag(params, "sync");
    d->read_only = param_flag(params, "read_only");
    d->bus = param_u64(params, "bus");
    d->ns = param_u64(params, "ns");
    d->running_max = (unsigned)param_u64(params, "tasks");
    list_init(&d->queue);
    rc = open_memory(d, path, params, why);
    if (rc == 0)
        rc = open_names(t, d, path, why);
    if (rc == 0 && !d->read_only)
        rc = dir_temps_open(t, d, why);
    if (rc < 0) {
        if (d->fd >= 0)
            rt_close(t, d->fd);
        dir_free(d);
        return rc;
    }
    *info = (struct kv_info){
        .key_max = KV_KEY_MAX,
        .val_max = DIR_VAL_MAX,
        .caps = KV_CAP_RANGE | KV_CAP_VERSION | KV_CAP_APPEND | KV_CAP_UNKNOWN_LEN |
                KV_CAP_ORDERED_LIST | (d->sync ? 0 : KV_CAP_VOLATILE_CACHE) |
                (d->read_only ? KV_CAP_READ_ONLY : 0),
        .optimal_bytes = 4096,
    };
    return 0;
}

static int dir_same(struct kv_dev *dev, const char *path, const struct param_values *params,
                    struct err *why)
{
    const struct dir *d = kv_driver_dev(dev);

    if (strcmp(path, d->root) != 0 || param_u64(params, "bus") != d->bus ||
        param_u64(params, "ns") != d->ns)
        return 0;
    if (param_flag(params, "sync") != d->sync || param_flag(params, "read_only") != d->read_only)
        return err_set(why, -EINVAL, "dir: %.128s is open with sync=%s and read_only=%s already",
                       d->root, d->sync ? "yes" : "no", d->read_only ? "yes" : "no");
    return 1;
}

static void dir_close(struct rt_task *t, struct kv_dev *dev)
{
    struct dir *d = kv_driver_dev(dev);

    if (!d->sync && !d->read_only)
        (void)dir_sync_names(t, d);
    dir_temps_close(t, d);
    rt_close(t, d->fd);
    dir_free(d);
}

static void dir_abandon(struct kv_dev *dev)
{
    struct dir *d = kv_driver_dev(dev);

    d->streams.free = d->streams.total;
    dir_free(d);
}

/* The number of keys is known when the index happens to hold all of them. */
static int dir_usage(struct rt_task *t, struct kv_dev *dev, uint64_t *out_used, uint64_t *out_keys)
{
    const struct dir *d = kv_driver_dev(dev);
    bool whole = d->index.valid && d->index.to_end && d->index.lo_len == 0;

    *out_used = 0;
    *out_keys = whole ? d->index.names.count : 0;
    return 0;
}

static const struct param dir_params[] = {
    {"bus", PARAM_U64, "0", false, "first directory below the path"},
    {"ns", PARAM_U64, "1", false, "second one: the namespace"},
    {"sync", PARAM_BOOL, "yes", false, "a completed store is durable; no: after a flush"},
    {"read_only", PARAM_BOOL, "no", false, "only reads, and makes no directory"},
    {"index", PARAM_SIZE, "64M", false, "memory for the sorted names of a list"},
    {"tasks", PARAM_U64, "64", false, "requests under way at a time"},
    {"streams", PARAM_U64, "1024", false, "open values at a time"},
    {0},
};

const struct kv_driver kv_dir_driver = {
    .name = "dir",
    .help = "one file per key in a directory, named in upper-case hexadecimal",
    .params = dir_params,
    .dev_bytes = sizeof(struct dir),
    .home = true,
    .open = dir_open,
    .same = dir_same,
    .close = dir_close,
    .submit = dir_submit,
    .cancel = dir_cancel,
    .usage = dir_usage,
    .abandon = dir_abandon,
};
