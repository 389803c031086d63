/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir rm: deletes keys, by name or by prefix. */
#include "cli/dev.h"
#include "cli/keys.h"
#include "cli/lanes.h"

#include <string.h>

#define RM_LANES 16

static struct rm {
    struct cli *c;
    struct dev dev;
    struct keys *keys; /* with -r */
    struct cli_key prefix;
    struct cli_key lane[RM_LANES];
    unsigned next_arg;
    uint64_t deleted;
    int first_rc;
} rm;

static int rm_one(struct rt_task *t, struct bytes key)
{
    struct cli *c = rm.c;
    int rc = kv_delete(t, rm.dev.kv_chan, key);

    if (rc == -ENOENT && (rm.keys != NULL || opt_flag(&c->opts, "force")))
        return 0;
    if (rc < 0) {
        if (rc != -ECANCELED)
            dev_kv_fail(c, &rm.dev, "delete", key, rc, NULL);
        if (rm.first_rc == 0)
            rm.first_rc = rc;
        return rc == -ENOENT ? 0 : rc;
    }
    rm.deleted++;
    if (c->json) {
        json_t *obj = json_object();

        cli_key_json(obj, key);
        json_object_set_new(obj, "deleted", json_true());
        cli_json(c, obj);
    }
    return cli_flush(t, c, false);
}

/* The next key of the command line, or of the list; 0 at the end. */
static int rm_next(struct rt_task *t, struct cli_key *out)
{
    struct cli *c = rm.c;
    struct err why = {""};
    int rc;

    if (rm.keys != NULL) {
        rc = keys_next(t, rm.keys, out);
        return rc < 0 ? dev_list_fail(c, &rm.dev, rc) : rc;
    }
    if (rm.next_arg == c->opts.nargs)
        return 0;
    rc = cli_key_parse(cli_arg(c, rm.next_arg++), false, out, &why);
    return rc < 0 ? cli_fail(c, rc, "%s", why.text) : 1;
}

static int rm_lane(struct rt_task *t, void *arg, unsigned lane)
{
    int rc;

    while ((rc = rm_next(t, &rm.lane[lane])) > 0) {
        rc = rm_one(t, cli_key_bytes(&rm.lane[lane]));
        if (rc < 0)
            return rc;
    }
    return rc;
}

static int rm_all(struct rt_task *t, struct cli *c)
{
    CLEANUP(keys_free_p) struct keys *keys = NULL;
    int rc;

    if (opt_flag(&c->opts, "recursive")) {
        keys = keys_new(rm.dev.kv_chan, cli_key_bytes(&rm.prefix), NULL);
        if (keys == NULL)
            return -ENOMEM;
    }
    rm.keys = keys;
    rm.next_arg = 1;
    /* Named keys go one after the other, in their order; lists in many lanes. */
    rc = lanes_run(t, keys != NULL ? RM_LANES : 1, rm_lane, NULL);
    if (keys != NULL && rc == 0)
        cli_note(c, "deleted %lu keys", rm.deleted);
    return rc < 0 ? rc : rm.first_rc;
}

static int rm_run(struct rt_task *t, struct cli *c)
{
    struct err why = {""};
    int rc;

    rm.c = c;
    if (opt_flag(&c->opts, "recursive")) {
        rc = cli_key_parse(cli_arg(c, 1), true, &rm.prefix, &why);
        if (rc < 0)
            return cli_fail(c, rc, "%s", why.text);
    }
    rc = dev_open(t, c, cli_arg(c, 0), DEV_KV, true, &rm.dev);
    if (rc < 0)
        return rc;
    rc = rm_all(t, c);
    dev_close(t, &rm.dev);
    return rc;
}

static int rm_prepare(struct cli *c, struct rt_config *cfg)
{
    if (opt_flag(&c->opts, "recursive") && c->opts.nargs != 2)
        return cli_usage(c, "-r takes one PREFIX (\"\" for all keys)");
    return 0;
}

static const struct opt rm_opts[] = {
    {"recursive", 'r', OPT_FLAG, false, NULL, NULL, "delete every key that begins with PREFIX"},
    {"force", 'f', OPT_FLAG, false, NULL, NULL, "a key that does not exist is no error"},
    {NULL},
};

const struct cli_verb verb_rm = {
    .name = "rm",
    .args = "URI KEY... | -r URI PREFIX",
    .summary = "delete keys",
    .about = "Deletes the keys named, in that order. With -r all keys that begin with PREFIX are "
             "deleted; an empty PREFIX (\"\") empties the device.",
    .examples = "kvasir rm dir:/srv/objects report.pdf hex:00FF\n"
                "kvasir rm -r dir:/srv/objects photos/2019/",
    .opts = rm_opts,
    .args_min = 2,
    .args_max = 4096,
    .run = rm_run,
    .prepare = rm_prepare,
};
