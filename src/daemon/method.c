/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/method.h"

#include <string.h>

const struct method *const method_tables[] = {method_kvdev, method_bdev, method_query, method_nvmf,
                                              NULL};

const struct method *method_find(const char *name)
{
    for (unsigned i = 0; method_tables[i] != NULL; i++) {
        for (const struct method *m = method_tables[i]; m->name != NULL; m++) {
            if (strcmp(m->name, name) == 0)
                return m;
        }
    }
    return NULL;
}

const struct method *method_find_look(const char *name)
{
    for (const struct method *m = method_look; m->name != NULL; m++) {
        if (strcmp(m->name, name) == 0)
            return m;
    }
    return NULL;
}

static bool type_fits(enum method_type type, const json_t *v)
{
    switch (type) {
    case METHOD_STR:
        return json_is_string(v);
    case METHOD_U64:
        return json_is_integer(v) && json_integer_value(v) >= 0;
    case METHOD_BOOL:
        return json_is_boolean(v);
    case METHOD_OBJECT:
        return json_is_object(v);
    }
    return false;
}

static const struct method_param *param_find(const struct method_param *table, const char *name)
{
    for (; table != NULL && table->name != NULL; table++) {
        if (strcmp(table->name, name) == 0)
            return table;
    }
    return NULL;
}

static int unknown_param(const struct method_param *table, const char *name, struct err *why)
{
    char list[180] = "";
    size_t used = 0;

    for (; table != NULL && table->name != NULL && used < sizeof(list); table++) {
        if (table->help != NULL)
            used += (size_t)snprintf(list + used, sizeof(list) - used, " %s", table->name);
    }
    return err_set(why, -EINVAL, "unknown parameter '%.40s'; there are:%s", name, list);
}

static int check_object(const struct method_param *table, const json_t *obj, struct err *why)
{
    static const char *const types[] = {"a string", "a number not below 0", "true or false",
                                        "an object"};
    const struct method_param *p;
    const char *name;
    json_t *v;
    int rc;

    json_object_foreach((json_t *)obj, name, v)
    {
        p = param_find(table, name);
        if (p == NULL)
            return unknown_param(table, name, why);
        if (!type_fits(p->type, v))
            return err_set(why, -EINVAL, "parameter '%s' has to be %s", name, types[p->type]);
        rc = p->type == METHOD_OBJECT ? check_object(p->object, v, why) : 0;
        if (rc < 0)
            return rc;
    }
    for (p = table; p != NULL && p->name != NULL; p++) {
        if (p->required && json_object_get(obj, p->name) == NULL)
            return err_set(why, -EINVAL, "parameter '%s' is missing", p->name);
    }
    return 0;
}

int method_check(const struct method *m, const json_t *params, struct err *why)
{
    if (params != NULL && !json_is_object(params))
        return err_set(why, -EINVAL, "\"params\" has to be an object");
    return check_object(m->params, params, why);
}

const char *method_str(const json_t *params, const char *name)
{
    return json_string_value(json_object_get(params, name));
}

uint64_t method_u64(const json_t *params, const char *name, uint64_t otherwise)
{
    const json_t *v = json_object_get(params, name);

    return v == NULL ? otherwise : (uint64_t)json_integer_value(v);
}

bool method_bool(const json_t *params, const char *name, bool otherwise)
{
    const json_t *v = json_object_get(params, name);

    return v == NULL ? otherwise : json_is_true(v);
}
