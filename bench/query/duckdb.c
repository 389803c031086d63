/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The engine alone, on files: bench-duckdb LIBRARY THREADS TIMES SQL [PAUSE_MS] runs a statement so
 * often and prints what each run took as a line of JSON. It also makes the data.
 */
#include "virt/query/worker/engine_api.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int fail(const char *what, const char *why)
{
    fprintf(stderr, "bench-duckdb: %s: %s\n", what, why != NULL ? why : "?");
    return 1;
}

int main(int argc, char **argv)
{
    duckdb_connection con;
    duckdb_database db;
    duckdb_config config;
    duckdb_result result;
    char text[512], *why = NULL;
    double opened, began = now_ms();

    if (argc < 5) {
        fprintf(stderr, "bench-duckdb LIBRARY THREADS TIMES SQL [PAUSE_MS]\n");
        return 2;
    }
    if (engine_api_load(argv[1], text, sizeof(text)) < 0)
        return fail("opening the library", text);
    if (duck.create_config(&config) != DUCKDB_OK ||
        (atoi(argv[2]) > 0 && duck.set_config(config, "threads", argv[2]) != DUCKDB_OK))
        return fail("configuring", NULL);
    if (duck.open_ext(NULL, &db, config, &why) != DUCKDB_OK)
        return fail("opening the engine", why);
    duck.destroy_config(&config);
    if (duck.connect(db, &con) != DUCKDB_OK)
        return fail("connecting", NULL);
    opened = now_ms();
    printf("{\"open_ms\": %.3f, \"ms\": [", opened - began);
    for (int i = 0; i < atoi(argv[3]); i++) {
        usleep(argc > 5 ? (unsigned)atoi(argv[5]) * 1000u : 0);
        began = now_ms();
        if (duck.query(con, argv[4], &result) != DUCKDB_OK)
            return fail(argv[4], duck.result_error(&result));
        duck.destroy_result(&result);
        printf("%s%.3f", i > 0 ? ", " : "", now_ms() - began);
    }
    printf("]}\n");
    duck.disconnect(&con);
    duck.close(&db);
    return 0;
}
