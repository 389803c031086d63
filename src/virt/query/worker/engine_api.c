/* SPDX-License-Identifier: Apache-2.0 */
#include "virt/query/worker/engine_api.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

struct engine_api duck;

static int find(void *lib, const char *name, void *out, const char *path, char *text, size_t size)
{
    void *p = dlsym(lib, name);

    if (!p) {
        snprintf(text, size, "%s has no %s: it is not DuckDB %s", path, name, ENGINE_VERSION);
        return -ENOTSUP;
    }
    memcpy(out, &p, sizeof(p));
    return 0;
}

int engine_api_load(const char *path, char *text, size_t size)
{
    /* Bound at once: a worker's first call of a function must not look into files. */
    void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const char *version;
    int rc;

    if (!lib) {
        snprintf(text, size, "%s", dlerror());
        return -ENOENT;
    }
#define FIND(type, name, args)                                                                     \
    rc = find(lib, "duckdb_" #name, &duck.name, path, text, size);                                 \
    if (rc < 0)                                                                                    \
        return rc;
    ENGINE_FUNCTIONS(FIND)
#undef FIND
    version = duck.library_version();
    if (strcmp(version, ENGINE_VERSION) != 0) {
        snprintf(text, size, "%s is DuckDB %s, and this program knows %s only", path, version,
                 ENGINE_VERSION);
        return -ENOTSUP;
    }
    return 0;
}
