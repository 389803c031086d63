/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/method.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>
#include <string.h>

/* Checks one configuration, written with ' for ". */
static int check(const char *text, struct err *why)
{
    CLEANUP(free_p) char *json = strdup(text);
    json_t *config;
    int rc;

    for (char *p = json; *p != '\0'; p++)
        *p = *p == '\'' ? '"' : *p;
    config = json_loads(json, 0, NULL);
    assert_non_null(config);
    why->text[0] = '\0';
    rc = daemon_check(config, why);
    json_decref(config);
    return rc;
}

#define ONE(method) "{'subsystems': [{'subsystem': 's', 'config': [" method "]}]}"

static void good_configurations_pass(void **state)
{
    struct err why;

    assert_int_equal(check("{'subsystems': []}", &why), 0);
    assert_int_equal(check("{'subsystems': [{'subsystem': 'a', 'config': null}]}", &why), 0);
    assert_int_equal(check(ONE("{'method': 'bdev_wait_for_examine'}"), &why), 0);
    assert_int_equal(
        check(ONE("{'method': 'kvdev_create', 'params': {'name': 'a', 'uri': 'mem:'}}"), &why), 0);
    assert_int_equal(check(ONE("{'method': 'query_set_options', 'params': {'workers_max': 4, "
                               "'mem_bytes': 134217728, 'engine': '/x/libduckdb.so'}}"),
                           &why),
                     0);
    /* What SPDK writes for its own defaults is known, and without effect. */
    assert_int_equal(check(ONE("{'method': 'nvmf_create_transport', 'params': {'trtype': 'TCP', "
                               "'zcopy': false, 'io_unit_size': 131072, 'ack_timeout': 0}}"),
                           &why),
                     0);
    assert_int_equal(check(ONE("{'method': 'nvmf_subsystem_add_listener', 'params': {'nqn': 'n', "
                               "'listen_address': {'trtype': 'TCP', 'adrfam': 'IPv4', 'traddr': "
                               "'127.0.0.1', 'trsvcid': '4420'}, 'secure_channel': false}}"),
                           &why),
                     0);
}

static void mistakes_are_named(void **state)
{
    static const struct {
        const char *config, *says;
    } cases[] = {
        {"[]", "subsystems"},
        {"{'subsystems': {}}", "subsystems"},
        {"{'subsystems': [{'subsystem': 's', 'config': 1}]}", "list"},
        {ONE("{'params': {}}"), "\"method\""},
        {ONE("{'method': 5}"), "\"method\""},
        {ONE("{'method': 'bdev_wait_for_examine'}, {'method': 'nosuch'}"), "config[1], nosuch"},
        {ONE("{'method': 'kvdev_create'}"), "'name' is missing"},
        {ONE("{'method': 'kvdev_create', 'params': []}"), "\"params\""},
        {ONE("{'method': 'kvdev_create', 'params': {'name': 'a'}}"), "'uri' is missing"},
        {ONE("{'method': 'kvdev_create', 'params': {'name': 1, 'uri': 'mem:'}}"), "a string"},
        {ONE("{'method': 'kvdev_create', 'params': {'name': 'a', 'uri': 'm', 'x': 1}}"), "'x'"},
        {ONE("{'method': 'bdev_malloc_create', 'params': {'num_blocks': -1, 'block_size': 512}}"),
         "not below 0"},
        {ONE("{'method': 'nvmf_subsystem_add_ns', 'params': {'nqn': 'n', 'namespace': {}}}"),
         "'bdev_name' is missing"},
        {ONE("{'method': 'nvmf_subsystem_add_ns', 'params': {'nqn': 'n', 'namespace': "
             "{'bdev_name': 'a', 'colour': 'blue'}}}"),
         "'colour'"},
    };
    struct err why;

    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        assert_int_equal(check(cases[i].config, &why), -EINVAL);
        if (strstr(why.text, cases[i].says) == NULL)
            fail_msg("%s: '%s' does not say %s", cases[i].config, why.text, cases[i].says);
    }
}

/* Every method can be found, and the tables make sense. */
static void tables_are_sound(void **state)
{
    for (unsigned i = 0; method_tables[i] != NULL; i++) {
        for (const struct method *m = method_tables[i]; m->name != NULL; m++) {
            assert_ptr_equal(method_find(m->name), m);
            assert_non_null(m->help);
            assert_non_null(m->call);
            for (const struct method_param *p = m->params; p != NULL && p->name != NULL; p++) {
                assert_int_equal(p->type == METHOD_OBJECT, p->object != NULL);
                assert_true(p->help != NULL || !p->required);
            }
        }
    }
    assert_null(method_find("bdev"));
    assert_null(method_find(""));
}

struct outcome {
    const char *config;
    struct err why;
    int rc;
    unsigned devs, namespaces, listeners;
};

static unsigned count(struct list *l)
{
    unsigned n = 0;

    for (struct list *e = l->next; e != l; e = e->next)
        n++;
    return n;
}

static int apply_task(struct rt_task *t, void *arg)
{
    struct outcome *o = arg;
    json_t *config = json_loads(o->config, 0, NULL);
    struct daemon d;

    daemon_init(&d);
    o->rc = config == NULL ? -EINVAL : daemon_apply(t, &d, config, &o->why);
    o->devs = count(&d.devs);
    o->namespaces = count(&d.namespaces);
    o->listeners = count(&d.listeners);
    daemon_fini(t, &d);
    json_decref(config);
    return 0;
}

static struct outcome apply(const char *config)
{
    struct outcome o = {.config = config};
    struct rt_config cfg = {.backend = RT_BACKEND_EPOLL, .buf_bytes = 8 * MIB};
    struct err why = {""};

    assert_int_equal(rt_run(&cfg, apply_task, &o, &why), 0);
    return o;
}

#define SUBSYS                                                                                     \
    "{\"method\": \"nvmf_create_subsystem\", \"params\": {\"nqn\": \"nqn.2026-11.test:a\"}}"
#define KV "{\"method\": \"kvdev_create\", \"params\": {\"name\": \"a\", \"uri\": \"mem:\"}}"
#define KV_NS                                                                                      \
    "{\"method\": \"nvmf_subsystem_add_kv_ns\", \"params\": {\"nqn\": \"nqn.2026-11.test:a\", "    \
    "\"namespace\": {\"kvdev_name\": \"a\"}}}"
#define BDEV_NS                                                                                    \
    "{\"method\": \"nvmf_subsystem_add_ns\", \"params\": {\"nqn\": \"nqn.2026-11.test:a\", "       \
    "\"namespace\": {\"bdev_name\": \"a\"}}}"
#define LISTEN                                                                                     \
    "{\"method\": \"nvmf_subsystem_add_listener\", \"params\": {\"nqn\": \"nqn.2026-11.test:a\", " \
    "\"listen_address\": {\"trtype\": \"TCP\", \"traddr\": \"127.0.0.1\", \"trsvcid\": \"0\"}}}"
#define TRANSPORT "{\"method\": \"nvmf_create_transport\", \"params\": {\"trtype\": \"tcp\"}}"
#define ALL(methods) "{\"subsystems\": [{\"subsystem\": \"s\", \"config\": [" methods "]}]}"

static void methods_make_what_they_say(void **state)
{
    /* The transport may stand after what needs it; an address twice is one listener. */
    struct outcome o = apply(ALL(SUBSYS ", " KV ", " KV_NS ", " LISTEN ", " LISTEN ", " TRANSPORT));

    if (o.rc != 0)
        fail_msg("%s", o.why.text);
    assert_int_equal(o.devs, 1);
    assert_int_equal(o.namespaces, 1);
    assert_int_equal(o.listeners, 1);
}

static void a_failure_stops_and_is_undone(void **state)
{
    struct outcome o = apply(ALL(SUBSYS ", " KV ", " BDEV_NS ", " LISTEN));

    assert_int_equal(o.rc, -ENODEV);
    assert_non_null(strstr(o.why.text, "config[2], nvmf_subsystem_add_ns"));
    assert_non_null(strstr(o.why.text, "other kind"));
    assert_int_equal(o.listeners, 0);
    o = apply(ALL(KV ", " KV));
    assert_int_equal(o.rc, -EEXIST);
    assert_int_equal(o.devs, 1);
    o = apply(ALL(TRANSPORT ", " TRANSPORT));
    assert_int_equal(o.rc, -EEXIST);
    assert_non_null(strstr(o.why.text, "already exists"));
    o = apply(ALL(KV_NS));
    assert_int_equal(o.rc, -ENODEV);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_configurations_pass),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(tables_are_sound),
        cmocka_unit_test(methods_make_what_they_say),
        cmocka_unit_test(a_failure_stops_and_is_undone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
