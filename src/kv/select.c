/* SPDX-License-Identifier: Apache-2.0 */
/* The names of SELECT's formats, and the way of a query into a device that can run it itself. */
#include "kv/select.h"

#include "kv/internal.h"

static const char *const names[KV_SELECT_FORMATS] = {
    [KV_SELECT_AUTO] = "auto",   [KV_SELECT_CSV] = "csv",         [KV_SELECT_JSON] = "json",
    [KV_SELECT_JSONL] = "jsonl", [KV_SELECT_PARQUET] = "parquet", [KV_SELECT_ARROW] = "arrow",
};

const char *kv_select_format_name(enum kv_select_format f)
{
    return f < KV_SELECT_FORMATS ? names[f] : "?";
}

int kv_select_format_parse(struct bytes name, enum kv_select_format *out)
{
    for (unsigned i = 0; i < KV_SELECT_FORMATS; i++) {
        if (bytes_eq(name, bytes_of_str(names[i]))) {
            *out = (enum kv_select_format)i;
            return 0;
        }
    }
    return -EINVAL;
}

int kv_select_push(struct rt_task *t, struct kv_chan *chan, const struct kv_select *q,
                   struct kv_select_result *res, struct err *why)
{
    const struct kv_driver *drv = kv_driver_of(kv_chan_dev(chan));

    if (drv->select == NULL)
        return err_set(why, -ENOTSUP, "the driver %s runs no queries itself", drv->name);
    return drv->select(t, chan, q, res, why);
}
