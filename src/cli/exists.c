/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir exists: the answer is the exit code. */
#include "cli/dev.h"
#include "cli/key.h"

static struct cli_key exists_key;

static int look(struct rt_task *t, struct cli *c, const struct dev *d)
{
    struct bytes key = cli_key_bytes(&exists_key);
    uint64_t len, version;
    int rc = kv_stat(t, d->kv_chan, key, &len, &version);

    if (rc < 0 && rc != -ENOENT)
        return dev_kv_fail(c, d, "look for", key, rc, NULL);
    if (c->json) {
        json_t *obj = json_object();

        cli_key_json(obj, key);
        json_object_set_new(obj, "exists", json_boolean(rc == 0));
        cli_json(c, obj);
    }
    c->told = true;
    return rc;
}

static int exists_run(struct rt_task *t, struct cli *c)
{
    struct err why = {""};
    struct dev d;
    int rc;

    rc = cli_key_parse(cli_arg(c, 1), false, &exists_key, &why);
    if (rc < 0)
        return cli_fail(c, rc, "%s", why.text);
    rc = dev_open(t, c, cli_arg(c, 0), DEV_KV, false, &d);
    if (rc < 0)
        return rc;
    rc = look(t, c, &d);
    dev_close(t, &d);
    return rc;
}

const struct cli_verb verb_exists = {
    .name = "exists",
    .args = "URI KEY",
    .summary = "tell by the exit code whether a key exists",
    .about =
        "Ends with 0 when the key exists and with 3 when it does not, and prints nothing; other "
        "exit codes are failures.",
    .examples = "kvasir exists dir:/srv/objects report.pdf && echo it is there",
    .args_min = 2,
    .args_max = 2,
    .run = exists_run,
};
