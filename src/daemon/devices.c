/* SPDX-License-Identifier: Apache-2.0 */
/* Named devices, and the methods that make them. */
#include "daemon/method.h"

#include <string.h>

static const struct method_param kvdev_create_params[] = {
    {"name", METHOD_STR, true, "name for nvmf_subsystem_add_kv_ns", NULL},
    {"uri", METHOD_STR, true, "what to open, as for the kvasir command", NULL},
    {NULL},
};

static const struct method_param bdev_kvasir_create_params[] = {
    {"name", METHOD_STR, true, "name for nvmf_subsystem_add_ns", NULL},
    {"uri", METHOD_STR, true, "what to open, as for the kvasir command", NULL},
    {NULL},
};

static const struct method_param bdev_malloc_create_params[] = {
    {"name", METHOD_STR, false, "name for nvmf_subsystem_add_ns; MallocN without it", NULL},
    {"num_blocks", METHOD_U64, true, "size in blocks", NULL},
    {"block_size", METHOD_U64, true, "bytes of a block", NULL},
    {"physical_block_size", METHOD_U64, false, NULL, NULL},
    {"uuid", METHOD_STR, false, NULL, NULL},
    {"optimal_io_boundary", METHOD_U64, false, NULL, NULL},
    {"numa_id", METHOD_U64, false, NULL, NULL},
    {NULL},
};

static const struct method_param bdev_file_create_params[] = {
    {"name", METHOD_STR, true, "name for nvmf_subsystem_add_ns", NULL},
    {"filename", METHOD_STR, true, "regular file or block device", NULL},
    {"block_size", METHOD_U64, false, "bytes of a block; the driver's default without it", NULL},
    {"readonly", METHOD_BOOL, false, "refuse writes", NULL},
    {"fallocate", METHOD_BOOL, false, NULL, NULL},
    {"nowait", METHOD_BOOL, false, NULL, NULL},
    {"uuid", METHOD_STR, false, NULL, NULL},
    {NULL},
};

struct daemon_dev *daemon_dev_find(struct daemon *d, const char *name)
{
    struct daemon_dev *dev;

    list_for_each (dev, &d->devs, struct daemon_dev, link) {
        if (strcmp(dev->name, name) == 0)
            return dev;
    }
    return NULL;
}

/* An entry for a device that is going to be opened. */
static int dev_new(struct daemon *d, const char *name, struct daemon_dev **out, struct err *why)
{
    struct daemon_dev *dev;

    if (name[0] == '\0' || strlen(name) >= DAEMON_NAME_MAX)
        return err_set(why, -EINVAL, "a device's name has 1 to %d bytes", DAEMON_NAME_MAX - 1);
    if (daemon_dev_find(d, name) != NULL)
        return err_set(why, -EEXIST, "there is a device '%s' already", name);
    dev = calloc(1, sizeof(*dev));
    if (dev == NULL)
        return err_set(why, -ENOMEM, "device '%s': no memory", name);
    snprintf(dev->name, sizeof(dev->name), "%s", name);
    *out = dev;
    return 0;
}

static int dev_opened(struct daemon *d, struct daemon_dev *dev, const char *uri, int rc,
                      struct err *open_why, struct err *why)
{
    if (rc < 0) {
        err_set(why, rc, "device '%.60s' (%.100s): %s", dev->name, uri,
                open_why->text[0] != '\0' ? open_why->text : err_str(rc));
        free(dev);
        return rc;
    }
    list_add_tail(&d->devs, &dev->link);
    return 0;
}

int daemon_kv_add(struct rt_task *t, struct daemon *d, const char *name, const char *uri,
                  struct err *why)
{
    struct err open_why = {""};
    struct daemon_dev *dev;
    int rc = dev_new(d, name, &dev, why);

    if (rc < 0)
        return rc;
    rc = kv_open(t, uri, &dev->kv, &open_why);
    return dev_opened(d, dev, uri, rc, &open_why, why);
}

int daemon_blk_add(struct rt_task *t, struct daemon *d, const char *name, const char *uri,
                   struct err *why)
{
    struct err open_why = {""};
    struct daemon_dev *dev;
    int rc = dev_new(d, name, &dev, why);

    if (rc < 0)
        return rc;
    rc = blk_open(t, uri, &dev->blk, &open_why);
    return dev_opened(d, dev, uri, rc, &open_why, why);
}

/* What SPDK answers: the name of the device. */
static int created(int rc, const char *name, json_t **out_result)
{
    if (rc == 0)
        *out_result = json_string(name);
    return rc;
}

static int kvdev_create(struct rt_task *t, struct daemon *d, const json_t *params,
                        json_t **out_result, struct err *why)
{
    const char *name = method_str(params, "name");

    return created(daemon_kv_add(t, d, name, method_str(params, "uri"), why), name, out_result);
}

static int bdev_kvasir_create(struct rt_task *t, struct daemon *d, const json_t *params,
                              json_t **out_result, struct err *why)
{
    const char *name = method_str(params, "name");

    return created(daemon_blk_add(t, d, name, method_str(params, "uri"), why), name, out_result);
}

/* Text as it stands in a URI. */
static int to_uri(const char *text, char *out, size_t max)
{
    static const char hex[] = "0123456789ABCDEF";
    size_t used = 0;

    for (; *text != '\0'; text++) {
        unsigned char ch = (unsigned char)*text;

        if (used + 4 > max)
            return -ENAMETOOLONG;
        if (ch <= ' ' || ch >= 0x7f || strchr("%?#&=+", ch) != NULL) {
            out[used++] = '%';
            out[used++] = hex[ch >> 4];
            out[used++] = hex[ch & 15];
        } else {
            out[used++] = (char)ch;
        }
    }
    out[used] = '\0';
    return 0;
}

static int bdev_malloc_create(struct rt_task *t, struct daemon *d, const json_t *params,
                              json_t **out_result, struct err *why)
{
    uint64_t nblocks = method_u64(params, "num_blocks", 0);
    uint64_t block_bytes = method_u64(params, "block_size", 0), size_bytes;
    const char *name = method_str(params, "name");
    char uri[1024], encoded[3 * DAEMON_NAME_MAX + 4], numbered[32];

    if (nblocks == 0 || block_bytes == 0 ||
        __builtin_mul_overflow(nblocks, block_bytes, &size_bytes))
        return err_set(why, -EINVAL, "%lu blocks of %lu bytes make no device", nblocks,
                       block_bytes);
    for (unsigned i = 0; name == NULL; i++) {
        snprintf(numbered, sizeof(numbered), "Malloc%u", i);
        if (daemon_dev_find(d, numbered) == NULL)
            name = numbered;
    }
    if (to_uri(name, encoded, sizeof(encoded)) < 0)
        return err_set(why, -EINVAL, "a device's name has 1 to %d bytes", DAEMON_NAME_MAX - 1);
    snprintf(uri, sizeof(uri), "mem:?size=%lu&block_size=%lu&name=%s", size_bytes, block_bytes,
             encoded);
    return created(daemon_blk_add(t, d, name, uri, why), name, out_result);
}

static int bdev_file_create(struct rt_task *t, struct daemon *d, const json_t *params,
                            json_t **out_result, struct err *why)
{
    CLEANUP(free_p) char *uri = NULL;
    CLEANUP(free_p) char *path = malloc(URI_MAX);
    const char *name = method_str(params, "name");
    uint64_t block_bytes = method_u64(params, "block_size", 0);
    char block[40] = "";

    if (path == NULL)
        return err_set(why, -ENOMEM, "no memory");
    if (to_uri(method_str(params, "filename"), path, URI_MAX) < 0)
        return err_set(why, -ENAMETOOLONG, "filename is too long");
    if (block_bytes > 0)
        snprintf(block, sizeof(block), "&block_size=%lu", block_bytes);
    if (asprintf(&uri, "file:%s?readonly=%s%s", path,
                 method_bool(params, "readonly", false) ? "yes" : "no", block) < 0)
        return err_set(why, -ENOMEM, "no memory");
    return created(daemon_blk_add(t, d, name, uri, why), name, out_result);
}

static int nothing_to_do(struct rt_task *t, struct daemon *d, const json_t *params,
                         json_t **out_result, struct err *why)
{
    *out_result = json_true();
    return 0;
}

const struct method method_kvdev[] = {
    {"kvdev_create", "Opens a key-value device.", kvdev_create_params, kvdev_create},
    {NULL},
};

const struct method method_bdev[] = {
    {"bdev_kvasir_create", "Opens a block device by its URI.", bdev_kvasir_create_params,
     bdev_kvasir_create},
    {"bdev_malloc_create", "Makes a block device in memory (mem:).", bdev_malloc_create_params,
     bdev_malloc_create},
    {"bdev_aio_create", "Opens a file or block device (file:).", bdev_file_create_params,
     bdev_file_create},
    {"bdev_uring_create", "The same as bdev_aio_create.", bdev_file_create_params,
     bdev_file_create},
    {"bdev_wait_for_examine", "Does nothing: each method waits until it is done.", NULL,
     nothing_to_do},
    {NULL},
};
