/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir cp: a whole device onto another of the same kind. */
#include "cli/cp.h"

#include "cli/lanes.h"

#include <string.h>
#include <unistd.h>

#define SAVE_EVERY_NS NS_PER_S

static int state_wrong(struct cp *cp, const char *what)
{
    return cli_fail(cp->c, -EINVAL,
                    "state file '%s' %s: remove it to begin anew, or name another one",
                    cp->state.path, what);
}

static int state_read(struct cp *cp, const json_t *obj)
{
    const char *from = json_string_value(json_object_get(obj, "from"));
    const char *to = json_string_value(json_object_get(obj, "to"));
    const char *after = json_string_value(json_object_get(obj, "after"));
    const json_t *offset = json_object_get(obj, "offset");
    int n;

    if (from == NULL || to == NULL)
        return state_wrong(cp, "is no state of a copy");
    if (strcmp(from, cp->from.uri) != 0 || strcmp(to, cp->to.uri) != 0)
        return state_wrong(cp, "belongs to the copy of other devices");
    if (cp->from.kind == DEV_KV) {
        n = after != NULL ? bytes_from_hex(after, strlen(after), cp->state.after.data, CLI_KEY_MAX)
                          : -EINVAL;
        if (n < 0)
            return state_wrong(cp, "names no key");
        cp->state.after.len = (size_t)n;
    } else {
        if (!json_is_integer(offset) || json_integer_value(offset) < 0)
            return state_wrong(cp, "names no offset");
        cp->state.offset = (uint64_t)json_integer_value(offset);
    }
    cp->state.resumed = true;
    return 0;
}

int cp_state_load(struct rt_task *t, struct cp *cp)
{
    json_error_t error;
    json_t *obj;
    int rc;

    if (cp->state.path == NULL || access(cp->state.path, F_OK) < 0)
        return 0;
    obj = json_load_file(cp->state.path, 0, &error);
    if (obj == NULL)
        return state_wrong(cp, error.text);
    rc = state_read(cp, obj);
    json_decref(obj);
    return rc;
}

bool cp_state_due(const struct cp *cp)
{
    return cp->state.path != NULL && rt_now() >= cp->state.saved_ns + SAVE_EVERY_NS;
}

struct save {
    const char *path;
    char *text;
};

/* The file is the old one or the new one at any instant. */
static int save_fn(void *arg)
{
    struct save *s = arg;
    CLEANUP(free_p) char *temp = NULL;
    FILE *f;
    int rc = 0;

    if (asprintf(&temp, "%s.new", s->path) < 0)
        return -ENOMEM;
    f = fopen(temp, "we");
    if (f == NULL)
        return -errno;
    if (fprintf(f, "%s\n", s->text) < 0 || fflush(f) != 0 || fsync(fileno(f)) < 0)
        rc = -errno;
    if (fclose(f) != 0 && rc == 0)
        rc = -errno;
    if (rc == 0 && rename(temp, s->path) < 0)
        rc = -errno;
    return rc;
}

int cp_state_save(struct rt_task *t, struct cp *cp)
{
    static char hex[2 * CLI_KEY_MAX + 1];
    json_t *obj = json_pack("{s:s, s:s}", "from", cp->from.uri, "to", cp->to.uri);
    struct save save = {.path = cp->state.path};
    int rc;

    if (obj == NULL)
        return cli_fail(cp->c, -EINVAL, "--state: a URI is not valid UTF-8");
    if (cp->from.kind == DEV_KV) {
        bytes_to_hex(cli_key_bytes(&cp->state.after), hex);
        json_object_set_new(obj, "after", json_string(hex));
    } else {
        json_object_set_new(obj, "offset", json_integer((json_int_t)cp->state.offset));
    }
    save.text = json_dumps(obj, JSON_COMPACT);
    json_decref(obj);
    if (save.text == NULL)
        return -ENOMEM;
    cp->state.saved_ns = rt_now();
    rc = rt_offload(t, save_fn, &save);
    free(save.text);
    if (rc < 0)
        return cli_fail(cp->c, rc, "cannot write state file '%s': %s", cp->state.path, err_str(rc));
    return 0;
}

void cp_state_done(struct cp *cp)
{
    if (cp->state.path != NULL)
        unlink(cp->state.path);
}

static void report(struct cp *cp)
{
    double s = (double)cli_progress_ns(&cp->progress) / (double)NS_PER_S;
    bool keys = cp->from.kind == DEV_KV;
    char rate[CLI_RATE_TEXT];

    if (cp->c->json) {
        json_t *obj =
            json_pack("{s:s, s:I, s:f, s:f, s:b}", "kind", keys ? "key-value" : "block", "bytes",
                      (json_int_t)cp->progress.done_bytes, "seconds", s, "bytes_per_s",
                      (double)cp->progress.done_bytes / s, "resumed", cp->state.resumed);

        if (keys) {
            json_object_set_new(obj, "copied", json_integer((json_int_t)cp->copied));
            json_object_set_new(obj, "skipped", json_integer((json_int_t)cp->skipped));
            json_object_set_new(obj, "failed", json_integer((json_int_t)cp->failed));
        }
        cli_json(cp->c, obj);
    } else if (keys) {
        cli_note(cp->c, "copied %lu keys, left out %lu: %s", cp->copied, cp->skipped,
                 cli_rate_text(&cp->progress, rate));
    } else {
        cli_note(cp->c, "copied %s", cli_rate_text(&cp->progress, rate));
    }
}

static int copy(struct rt_task *t, struct cp *cp)
{
    int rc = cp_state_load(t, cp);

    if (rc < 0)
        return rc;
    if (cp->state.resumed)
        cli_note(cp->c, "going on where '%s' says", cp->state.path);
    rc = cp->from.kind == DEV_KV ? cp_keys(t, cp) : cp_blocks(t, cp);
    cli_progress_stop(&cp->progress);
    if (rc < 0) {
        if (cp->state.path != NULL)
            cli_note(cp->c, "the same command goes on from '%s'", cp->state.path);
        return rc;
    }
    cp_state_done(cp);
    report(cp);
    return cp->first_rc;
}

static int mixed(struct cli *c)
{
    return cli_fail(c, -EINVAL,
                    "%s and %s are of different kinds: a key-value device is copied to "
                    "a key-value device, a block device to a block device",
                    cli_arg(c, 0), cli_arg(c, 1));
}

static int cp_run(struct rt_task *t, struct cli *c)
{
    CLEANUP(free_p) struct cp *cp = calloc(1, sizeof(*cp));
    unsigned kinds = dev_kinds(cli_arg(c, 0)), to_kinds = dev_kinds(cli_arg(c, 1));
    int rc;

    if (cp == NULL)
        return -ENOMEM;
    if (kinds != 0 && to_kinds != 0 && (kinds & to_kinds) == 0)
        return mixed(c);
    if (kinds != 0 && to_kinds != 0)
        kinds &= to_kinds;
    if (opt_choice(&c->opts, "kind") != 0)
        kinds = opt_choice(&c->opts, "kind"); /* DEV_KV, DEV_BLK */
    cp->c = c;
    cp->jobs = (unsigned)MIN(MAX(opt_u64(&c->opts, "jobs"), 1u), LANES_MAX);
    cp->verify = opt_flag(&c->opts, "verify");
    cp->update = opt_flag(&c->opts, "update");
    cp->keep_going = opt_flag(&c->opts, "keep-going");
    cp->state.path = opt_str(&c->opts, "state");
    rc = dev_open(t, c, cli_arg(c, 0), kinds != 0 ? kinds : DEV_ANY, false, &cp->from);
    if (rc < 0)
        return rc;
    rc = dev_open(t, c, cli_arg(c, 1), cp->from.kind, true, &cp->to);
    if (rc == 0) {
        rc = copy(t, cp);
        dev_close(t, &cp->to);
    }
    dev_close(t, &cp->from);
    return rc;
}

static int cp_prepare(struct cli *c, struct rt_config *cfg)
{
    if (strcmp(cli_arg(c, 0), cli_arg(c, 1)) == 0)
        return cli_usage(c, "both are the same device");
    return 0;
}

static const struct opt cp_opts[] = {
    {"state", 0, OPT_FILE, false, "FILE", NULL,
     "keep the place in FILE: the same command goes on there after an interruption"},
    {"update", 'u', OPT_FLAG, false, NULL, NULL,
     "leave out keys whose value has the same length there (with --verify: the same bytes)"},
    {"verify", 0, OPT_FLAG, false, NULL, NULL,
     "read what was copied from both devices and compare (exit 7 on a difference)"},
    {"kind", 0, OPT_CHOICE, false, "any|kv|block", "any",
     "what the URIs are, where they could be both"},
    {"jobs", 'j', OPT_U64, false, "N", "8", "values or pieces under way at a time"},
    {"keep-going", 'k', OPT_FLAG, false, NULL, NULL,
     "go on after a key that cannot be copied; exit with the first error's code"},
    {NULL},
};

const struct cli_verb verb_cp = {
    .name = "cp",
    .args = "FROM-URI TO-URI",
    .summary = "copy a whole device onto another of the same kind",
    .about =
        "Copies all keys of a key-value device into another one, which keeps what else it has, "
        "or the bytes of a block device to the begin of another one that is not smaller. "
        "Several values or pieces are under way at a time; memory does not grow with sizes.\n\n"
        "With --state a copy that was interrupted goes on where it was: everything before "
        "the place in that file is durable at the destination. What changes at the source "
        "before that place is not seen again; --update without --state looks at every key. "
        "A mirror that has to match ends with --verify.",
    .examples = "kvasir cp dir:/srv/objects "
                "nvme+tcp://10.0.0.2:4420/nqn.2026-11.io.kvasir:default?nsid=1 --state cp.json\n"
                "kvasir cp file:/srv/disk.img 'file:/backup/disk.img?size=10G' --verify",
    .opts = cp_opts,
    .args_min = 2,
    .args_max = 2,
    .drivers = CLI_KV | CLI_BLK,
    .run = cp_run,
    .prepare = cp_prepare,
};
