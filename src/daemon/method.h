/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Methods of the control plane: name, parameters, function. One table serves the configuration
 * file, `kvasird --check` and the manual page; those of `method_look` are what the socket answers
 * (rpc.h). Names and parameters of existing methods are SPDK's.
 */
#ifndef KVASIR_DAEMON_METHOD_H
#define KVASIR_DAEMON_METHOD_H

#include "daemon/daemon.h"

enum method_type { METHOD_STR, METHOD_U64, METHOD_BOOL, METHOD_OBJECT };

struct method_param {
    const char *name; /* NULL ends a table */
    enum method_type type;
    bool required;
    const char *help;                  /* NULL: known, and without effect here */
    const struct method_param *object; /* METHOD_OBJECT: what is in it */
};

struct method {
    const char *name;
    const char *help;
    const struct method_param *params;
    /* `params` (an object, checked by the table) is borrowed. *out_result: a new reference, when
     * it has something to say. 0 or a negative errno with text. */
    int (*call)(struct rt_task *t, struct daemon *d, const json_t *params, json_t **out_result,
                struct err *why);
};

/** All tables of methods, NULL ends each; the outer one as well. */
extern const struct method *const method_tables[];
extern const struct method method_bdev[], method_kvdev[], method_query[], method_nvmf[];

/** Methods that change nothing: not of the configuration, but of the socket. */
extern const struct method method_look[];

/** NULL: there is no such method. */
const struct method *method_find(const char *name);
const struct method *method_find_look(const char *name);
/** Checks parameters against the table; `params` may be NULL. 0, or -EINVAL with text. */
int method_check(const struct method *m, const json_t *params, struct err *why);

/* Values that have been checked; absent ones are NULL, `otherwise`. */
const char *method_str(const json_t *params, const char *name);
uint64_t method_u64(const json_t *params, const char *name, uint64_t otherwise);
bool method_bool(const json_t *params, const char *name, bool otherwise);

#endif
