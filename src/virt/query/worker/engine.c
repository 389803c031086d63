/* SPDX-License-Identifier: Apache-2.0 */
#include "virt/query/worker/engine.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static duckdb_database db;
static duckdb_connection con;
static duckdb_prepared lock; /* sets that nothing can be set */
static uint64_t limited_to;  /* the query's memory that the engine's limit is for */

#define LIMIT_TEXT 32

duckdb_connection qw_engine_con(void)
{
    return con;
}

/* A fork has the thread that called it and no other: an engine with more would be half a one. */
static int count_threads(void)
{
    DIR *d = opendir("/proc/self/task");
    struct dirent *e;
    int n = 0;

    if (!d)
        return -errno;
    while ((e = readdir(d)))
        n += e->d_name[0] != '.';
    closedir(d);
    return n;
}

static void limit_text(uint64_t mem_bytes, char out[LIMIT_TEXT])
{
    snprintf(out, LIMIT_TEXT, "%lluKiB", (unsigned long long)(mem_bytes / 4 * 3 >> 10));
}

int qw_engine_limit(uint64_t mem_bytes, struct qw_text *why)
{
    return mem_bytes == limited_to ? 0 : qw_engine_give_back(mem_bytes, why);
}

int qw_engine_give_back(uint64_t mem_bytes, struct qw_text *why)
{
    char text[LIMIT_TEXT], sql[64];

    limit_text(mem_bytes, text);
    snprintf(sql, sizeof(sql), "SET memory_limit='%s'", text);
    return qw_engine_run(sql, NULL, why);
}

static int open_database(uint64_t mem_bytes, struct qw_text *why)
{
    char limit[LIMIT_TEXT];
    const char *const settings[][2] = {
        {"threads", "1"},
        {"temp_directory", ""},
        {"home_directory", ""},
        {"autoinstall_known_extensions", "false"},
        {"autoload_known_extensions", "false"},
        {"allow_community_extensions", "false"},
        {"allow_unsigned_extensions", "false"},
        {"allow_persistent_secrets", "false"},
        {"enable_object_cache", "true"},
        {"memory_limit", limit},
    };
    duckdb_config config = NULL;
    char *said = NULL;
    int rc = 0;

    limit_text(mem_bytes, limit);
    limited_to = mem_bytes;
    if (duck.create_config(&config) != DUCKDB_OK)
        return qw_fail(why, -ENOMEM, "the engine has no memory for its settings");
    for (size_t i = 0; rc == 0 && i < sizeof(settings) / sizeof(settings[0]); i++)
        if (duck.set_config(config, settings[i][0], settings[i][1]) != DUCKDB_OK)
            rc = qw_fail(why, -ENOTSUP, "the engine does not know the setting %s", settings[i][0]);
    if (rc == 0 && duck.open_ext(NULL, &db, config, &said) != DUCKDB_OK)
        rc = qw_fail(why, -ENOTSUP, "the engine does not open: %s", said ? said : "no reason");
    duck.free(said);
    duck.destroy_config(&config);
    return rc;
}

int qw_engine_open(const char *path, uint64_t mem_bytes, struct qw_text *why)
{
    char text[512];
    int rc = engine_api_load(path, text, sizeof(text));

    if (rc < 0)
        return qw_fail(why, rc, "%s", text);
    rc = open_database(mem_bytes, why);
    if (rc < 0)
        return rc;
    if (duck.connect(db, &con) != DUCKDB_OK)
        return qw_fail(why, -ENOMEM, "the engine takes no connection");
    rc = count_threads();
    if (rc != 1)
        return qw_fail(why, -ENOTSUP, "the engine runs %d threads where one was asked for", rc);
    qw_files_begin();
    rc = qw_engine_run("SET allowed_directories=['/kvasir/']", NULL, why);
    if (rc == 0)
        rc = qw_engine_run("SET enable_external_access=false", NULL, why);
    if (rc == 0)
        rc = qw_table_begin(db, why);
    if (rc == 0 && duck.prepare(con, "SET lock_configuration=true", &lock) != DUCKDB_OK)
        rc = qw_engine_failed(duck.prepare_error(lock), why);
    return rc;
}

int qw_engine_lock(struct qw_text *why)
{
    duckdb_result result;
    int rc = 0;

    if (duck.execute_prepared(lock, &result) != DUCKDB_OK)
        rc = qw_engine_failed(duck.result_error(&result), why);
    duck.destroy_result(&result);
    return rc;
}

int qw_engine_run(const char *sql, duckdb_result *out, struct qw_text *why)
{
    duckdb_result result;
    int rc = 0;

    if (duck.query(con, sql, &result) != DUCKDB_OK)
        rc = qw_engine_failed(duck.result_error(&result), why);
    if (rc == 0 && out)
        *out = result;
    else
        duck.destroy_result(&result);
    return rc;
}

int qw_engine_text(const char *sql, const char *const *args, unsigned nargs, char **out,
                   struct qw_text *why)
{
    duckdb_prepared ps = NULL;
    duckdb_result result;
    int rc = 0;

    if (duck.prepare(con, sql, &ps) != DUCKDB_OK) {
        rc = qw_engine_failed(duck.prepare_error(ps), why);
        duck.destroy_prepare(&ps);
        return rc;
    }
    for (unsigned i = 0; i < nargs; i++)
        duck.bind_varchar_length(ps, i + 1, args[i], strlen(args[i]));
    if (duck.execute_prepared(ps, &result) != DUCKDB_OK)
        rc = qw_engine_failed(duck.result_error(&result), why);
    if (rc == 0) {
        *out = duck.value_varchar(&result, 0, 0);
        if (!*out)
            rc = qw_fail(why, -ENOMEM, "the engine gave no text");
    }
    duck.destroy_result(&result);
    duck.destroy_prepare(&ps);
    return rc;
}

static const struct {
    const char *start; /* of what the engine says */
    int rc;
} kinds[] = {
    {"Out of Memory Error", -ENOMEM},  {"IO Error", -EBADMSG},
    {"Invalid Error", -EBADMSG}, /* what decoders throw who know of no file */
    {"Serialization Error", -EBADMSG}, {"Interrupt Error", -ECANCELED},
    {"INTERNAL Error", -EIO},          {"FATAL Error", -EIO},
};

/* Where advice begins that a user of objects cannot follow. */
static const char *const advice[] = {
    "\nPossible fixes:",      "\nPossible solutions:",       "\nThe search space used",
    "\nIf you are trying to", "\nTry setting 'auto_detect'", "\n If this error occurred during",
};

static size_t without_advice(const char *said)
{
    size_t len = strlen(said);

    for (size_t i = 0; i < sizeof(advice) / sizeof(advice[0]); i++) {
        const char *p = strstr(said, advice[i]);

        if (p && (size_t)(p - said) < len)
            len = (size_t)(p - said);
    }
    while (len && (said[len - 1] == '\n' || said[len - 1] == ' '))
        len--;
    return len;
}

/* The object that a path at `p` names; *out_end is behind it. */
static const struct qw_object *object_at(const char *p, const char **out_end)
{
    size_t n = strlen(QW_PATH_OBJECT);
    char *end;
    unsigned long i;

    if (strncmp(p, QW_PATH_OBJECT, n) != 0)
        return NULL;
    i = strtoul(p + n, &end, 10);
    *out_end = end;
    return qw_object_at((unsigned)i);
}

/* The object that is blamed; not one in the statement, which may be shown below. */
static const struct qw_object *object_in(const char *said)
{
    const char *shown = strstr(said, "\n\nLINE ");
    const char *p = strstr(said, QW_PATH_OBJECT);

    return p && (!shown || p < shown) ? object_at(p, &p) : NULL;
}

/* Puts the object's name where the path stood that only this process knows. */
static void without_paths(const char *said, size_t len, char *out, size_t size)
{
    const char *stop = said + len;
    size_t n = 0;

    while (said < stop && n + 1 < size) {
        const char *end;
        const struct qw_object *o = object_at(said, &end);

        if (!o) {
            out[n++] = *said++;
            continue;
        }
        for (const char *p = o->name; *p && n + 1 < size; p++)
            out[n++] = *p;
        said = end;
    }
    out[n] = 0;
}

int qw_engine_failed(const char *said, struct qw_text *why)
{
    const struct qw_object *o;
    int rc = -EINVAL;
    size_t len;

    if (!said)
        return qw_fail(why, -EIO, "the engine failed and gave no reason");
    if (qw_packed_cut())
        return qw_fail(why, -EBADMSG,
                       "the object is compressed and not whole: it ends before its data does");
    if (qw_object_error())
        return qw_fail(why, qw_object_error(), "reading the object failed: %s",
                       strerror(-qw_object_error()));
    if (strstr(said, "std::bad_alloc") || strstr(said, "Allocation failure"))
        said = "Out of Memory Error: no more address space";
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strncmp(said, kinds[i].start, strlen(kinds[i].start)) == 0)
            rc = kinds[i].rc;
    len = without_advice(said);
    without_paths(said, len, why->s, sizeof(why->s));
    o = object_in(said);
    if (rc == -ENOMEM)
        snprintf(why->s, sizeof(why->s), "the query needs more memory than it may have (%.*s)",
                 (int)strcspn(said, "\n"), said);
    else if (rc == -EINVAL && o)
        rc = -EBADMSG; /* what the engine blames on a file */
    if (o && rc == -EBADMSG && !strstr(why->s, o->name) && strlen(why->s) < 2048)
        snprintf(why->s + strlen(why->s), 1024, "\nin the object %s", o->name);
    return rc;
}
