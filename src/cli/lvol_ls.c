/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir lvol ls: the store and its volumes, as lines or as JSON. */
#include "cli/lvol.h"

#include <string.h>

static void add_u64(json_t *obj, const char *name, uint64_t v)
{
    json_object_set_new(obj, name, json_integer((json_int_t)MIN(v, (uint64_t)INT64_MAX)));
}

static void print_store(struct lvol_cli *l, const struct blob_store_info *info)
{
    uint64_t free_bytes = info->free_clusters * info->cluster_bytes;
    char size[CLI_SIZE_TEXT], avail[CLI_SIZE_TEXT], cluster[CLI_SIZE_TEXT];

    if (l->c->json) {
        json_t *obj = json_pack("{s:s, s:s, s:s, s:s}", "kind", "store", "store", l->lvs.name,
                                "uuid", l->lvs.uuid, "device", l->uri);

        add_u64(obj, "size_bytes", info->size_bytes);
        add_u64(obj, "free_bytes", free_bytes);
        add_u64(obj, "cluster_bytes", info->cluster_bytes);
        add_u64(obj, "block_bytes", info->block_bytes);
        add_u64(obj, "clusters", info->clusters);
        add_u64(obj, "free_clusters", info->free_clusters);
        add_u64(obj, "md_pages", info->md_pages);
        add_u64(obj, "free_md_pages", info->free_md_pages);
        add_u64(obj, "max_size_bytes", info->max_size_bytes);
        add_u64(obj, "unreadable", info->unreadable);
        json_object_set_new(obj, "was_clean", json_boolean(info->was_clean));
        cli_json(l->c, obj);
        return;
    }
    cli_print(l->c, "%s  %s: %s, %s free, clusters of %s\n", l->lvs.name, l->lvs.uuid,
              cli_size_text(info->size_bytes, size), cli_size_text(free_bytes, avail),
              cli_size_text(info->cluster_bytes, cluster));
    if (info->unreadable > 0)
        cli_print(l->c, "%u blobs cannot be read; `kvasir blob check` names them\n",
                  info->unreadable);
}

/* The name of the volume that this one stands on; empty when there is none. */
static void parent_name(struct rt_task *t, struct lvol_cli *l, const struct lvol_info *info,
                        char *out, size_t max)
{
    struct lvol_info parent;

    out[0] = '\0';
    if (info->blob.parent == BLOB_ID_NONE)
        return;
    if (lvol_info(t, &l->lvs, info->blob.parent, &parent) == 0)
        snprintf(out, max, "%s", parent.name);
    else
        snprintf(out, max, "0x%lx", info->blob.parent);
}

static void print_json(struct lvol_cli *l, const struct lvol_info *info, const char *parent,
                       uint32_t cluster_bytes)
{
    const struct blob_info *b = &info->blob;
    json_t *obj =
        json_pack("{s:s, s:s, s:s, s:s, s:s}", "kind", "volume", "name", info->name, "uuid",
                  info->uuid, "store", l->lvs.name, "uri", lvol_cli_uri(l, info->name, NULL));

    if (obj == NULL) { /* a name that is no UTF-8 */
        cli_json(l->c, NULL);
        return;
    }
    json_object_set_new(obj, "id", json_sprintf("0x%lx", b->id));
    add_u64(obj, "size_bytes", b->len_bytes);
    add_u64(obj, "allocated_bytes", b->allocated_clusters * cluster_bytes);
    json_object_set_new(obj, "thin", json_boolean(b->thin));
    json_object_set_new(obj, "read_only", json_boolean(b->read_only));
    json_object_set_new(obj, "snapshot", json_boolean(b->snapshot));
    json_object_set_new(obj, "clone", json_boolean(b->clone || b->esnap_clone));
    json_object_set_new(obj, "parent", parent[0] != '\0' ? json_string(parent) : json_null());
    add_u64(obj, "clones", b->nclones);
    json_object_set_new(obj, "external",
                        info->external[0] != '\0' ? json_string(info->external) : json_null());
    json_object_set_new(obj, "external_uri",
                        info->external_uri[0] != '\0' ? json_string(info->external_uri)
                                                      : json_null());
    json_object_set_new(obj, "kv", info->kv[0] != '\0' ? json_string(info->kv) : json_null());
    cli_json(l->c, obj);
}

static void print_line(struct lvol_cli *l, const struct lvol_info *info, const char *parent,
                       uint32_t cluster_bytes)
{
    const struct blob_info *b = &info->blob;
    char size[CLI_SIZE_TEXT], own[CLI_SIZE_TEXT];

    cli_print(l->c, "%10s %10s  %-5s %s", cli_size_text(b->len_bytes, size),
              cli_size_text(b->allocated_clusters * cluster_bytes, own), b->thin ? "thin" : "thick",
              info->name);
    if (b->snapshot)
        cli_print(l->c, ", snapshot");
    else if (b->read_only)
        cli_print(l->c, ", read-only");
    if (info->kv[0] != '\0')
        cli_print(l->c, ", key-value store %s", info->kv);
    if (parent[0] != '\0')
        cli_print(l->c, ", on %s", parent);
    if (b->esnap_clone)
        cli_print(l->c, ", on the external snapshot %s", info->external);
    if (b->esnap_clone && info->external_uri[0] != '\0')
        cli_print(l->c, " (made on %s)", info->external_uri);
    cli_print(l->c, "\n");
}

static int print_volume(struct rt_task *t, struct lvol_cli *l, uint64_t id)
{
    struct blob_store_info store;
    struct lvol_info info;
    char parent[LVOL_NAME_MAX + 1];
    int rc = lvol_cli_info(t, l, id, &info);

    if (rc < 0)
        return rc;
    blob_store_info(l->lvs.bs, &store);
    parent_name(t, l, &info, parent, sizeof(parent));
    if (l->c->json)
        print_json(l, &info, parent, store.cluster_bytes);
    else
        print_line(l, &info, parent, store.cluster_bytes);
    return cli_flush(t, l->c, false);
}

int lvol_cli_ls(struct rt_task *t, struct lvol_cli *l)
{
    struct blob_store_info store;
    uint64_t id, from = 0;
    int rc;

    blob_store_info(l->lvs.bs, &store);
    print_store(l, &store);
    while ((rc = lvol_next(t, &l->lvs, from, &id)) == 0) {
        rc = print_volume(t, l, id);
        if (rc < 0)
            return rc;
        from = id + 1;
    }
    if (rc != -ENOENT)
        return cli_fail(l->c, rc, "the volumes of %s cannot be listed: %s", l->lvs.name,
                        err_str(rc));
    return 0;
}

int lvol_cli_show(struct rt_task *t, struct lvol_cli *l, uint64_t id)
{
    struct lvol_info info;
    int rc;

    if (l->c->json)
        return print_volume(t, l, id);
    rc = lvol_cli_info(t, l, id, &info);
    if (rc == 0)
        cli_print(l->c, "%s\n", lvol_cli_uri(l, info.name, NULL));
    return rc;
}
