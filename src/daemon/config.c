/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: a list of method calls per subsystem of the program, as SPDK saves it. */
#include "daemon/method.h"

#include <string.h>

/* Where in the configuration we are, for error texts. */
struct place {
    const char *subsystem;
    size_t index;
    const char *method;
};

static int misplaced(const struct place *at, int rc, const struct err *inner, struct err *why)
{
    return err_set(why, rc, "subsystem \"%.40s\", config[%zu], %.60s: %.120s",
                   at->subsystem != NULL ? at->subsystem : "?", at->index,
                   at->method != NULL ? at->method : "?", inner->text);
}

/* Called for each method in order, after its form has been checked. */
typedef int (*visit_fn)(struct rt_task *t, struct daemon *d, const struct method *m,
                        const json_t *params, struct err *why);

static int check_entry(const json_t *entry, struct place *at, const struct method **out_m,
                       struct err *why)
{
    struct err inner = {""};
    const char *name = json_string_value(json_object_get(entry, "method"));
    const struct method *m;
    int rc;

    at->method = name;
    if (name == NULL)
        return misplaced(at, err_set(&inner, -EINVAL, "\"method\" is missing or no string"), &inner,
                         why);
    m = method_find(name);
    if (m == NULL)
        return misplaced(at,
                         err_set(&inner, -EINVAL,
                                 "there is no such method (kvasird.json(5) "
                                 "lists them)"),
                         &inner, why);
    rc = method_check(m, json_object_get(entry, "params"), &inner);
    if (rc < 0)
        return misplaced(at, rc, &inner, why);
    *out_m = m;
    return 0;
}

static int visit_subsystem(struct rt_task *t, struct daemon *d, const json_t *subsystem,
                           visit_fn visit, struct err *why)
{
    const json_t *config = json_object_get(subsystem, "config");
    struct place at = {.subsystem = json_string_value(json_object_get(subsystem, "subsystem"))};
    const struct method *m = NULL;
    struct err inner = {""};
    json_t *entry;
    int rc;

    if (config == NULL || json_is_null(config))
        return 0; /* SPDK writes null for subsystems without methods */
    if (!json_is_array(config))
        return misplaced(&at, err_set(&inner, -EINVAL, "\"config\" has to be a list"), &inner, why);
    json_array_foreach(config, at.index, entry)
    {
        rc = check_entry(entry, &at, &m, why);
        if (rc < 0)
            return rc;
        if (visit == NULL)
            continue;
        inner.text[0] = '\0';
        rc = visit(t, d, m, json_object_get(entry, "params"), &inner);
        if (rc < 0) {
            if (inner.text[0] == '\0')
                err_set(&inner, rc, "%s", err_str(rc));
            return misplaced(&at, rc, &inner, why);
        }
    }
    return 0;
}

static int visit_all(struct rt_task *t, struct daemon *d, const json_t *config, visit_fn visit,
                     struct err *why)
{
    const json_t *subsystems = json_object_get(config, "subsystems");
    json_t *one;
    size_t i;
    int rc;

    if (!json_is_array(subsystems))
        return err_set(why, -EINVAL,
                       "a configuration is {\"subsystems\": [{\"subsystem\": NAME, \"config\": "
                       "[{\"method\": NAME, \"params\": {}}]}]}");
    json_array_foreach(subsystems, i, one)
    {
        rc = visit_subsystem(t, d, one, visit, why);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int call(struct rt_task *t, struct daemon *d, const struct method *m, const json_t *params,
                struct err *why)
{
    json_t *result = NULL;
    int rc = m->call(t, d, params, &result, why);

    json_decref(result);
    return rc;
}

static bool is_transport(const struct method *m)
{
    return strcmp(m->name, "nvmf_create_transport") == 0;
}

/* Transports are made before anything needs one, wherever they stand. */
static int call_transport(struct rt_task *t, struct daemon *d, const struct method *m,
                          const json_t *params, struct err *why)
{
    return is_transport(m) ? call(t, d, m, params, why) : 0;
}

static int call_other(struct rt_task *t, struct daemon *d, const struct method *m,
                      const json_t *params, struct err *why)
{
    return is_transport(m) ? 0 : call(t, d, m, params, why);
}

int daemon_check(const json_t *config, struct err *why)
{
    return visit_all(NULL, NULL, config, NULL, why);
}

int daemon_apply(struct rt_task *t, struct daemon *d, const json_t *config, struct err *why)
{
    int rc = daemon_check(config, why);

    if (rc == 0)
        rc = visit_all(t, d, config, call_transport, why);
    if (rc == 0)
        rc = visit_all(t, d, config, call_other, why);
    return rc;
}

int daemon_load(const char *path, json_t **out, struct err *why)
{
    json_error_t error;
    FILE *file = fopen(path, "re");
    json_t *config;

    if (file == NULL)
        return err_set(why, -errno, "cannot open '%.180s': %s", path, err_str(-errno));
    config = json_loadf(file, JSON_REJECT_DUPLICATES, &error);
    fclose(file);
    if (config == NULL)
        return err_set(why, -EINVAL, "'%.120s', line %d: %.100s", path, error.line, error.text);
    *out = config;
    return 0;
}
