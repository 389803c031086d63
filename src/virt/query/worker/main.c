/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir-query: started by the daemon, not by people; see virt/query/wire.h. */
#include "virt/query/worker/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MEM_BYTES (256ull << 20)    /* of a query, unless told */
#define MEM_BYTES_MIN (64ull << 20) /* the rehearsal needs some */
#define NO_ENGINE 77                /* what test runners take for "skipped" */

static bool is_file(const char *path)
{
    return access(path, R_OK) == 0;
}

/* The library: as told, else where installing or `make deps` puts it. */
static const char *find_engine(const char *told, char *out, size_t size)
{
    static const char *const beside[] = {"libduckdb.so", "deps/duckdb-1.5.6/libduckdb.so",
                                         "../deps/duckdb-1.5.6/libduckdb.so"};
    char self[PATH_MAX];
    ssize_t n;

    if (!told || !*told)
        told = getenv("KVASIR_QUERY_ENGINE");
    if (told && *told)
        return told;
    n = readlink("/proc/self/exe", self, sizeof(self) - 1);
    if (n > 0) {
        self[n] = 0;
        *strrchr(self, '/') = 0;
        for (size_t i = 0; i < sizeof(beside) / sizeof(beside[0]); i++) {
            snprintf(out, size, "%s/%s", self, beside[i]);
            if (is_file(out))
                return out;
        }
    }
    snprintf(out, size, "%s/libduckdb.so", QUERY_LIBEXECDIR);
    return is_file(out) ? out : NULL;
}

static int open_engine(const char *told, uint64_t mem_bytes, struct qw_text *why)
{
    char path[PATH_MAX + 64];
    const char *engine = find_engine(told, path, sizeof(path));
    int rc;

    if (!engine)
        return qw_fail(why, -ENOENT,
                       "the query engine is not here: `make deps` brings libduckdb.so, or "
                       "KVASIR_QUERY_ENGINE says where it is");
    rc = qw_engine_open(engine, mem_bytes < MEM_BYTES_MIN ? MEM_BYTES_MIN : mem_bytes, why);
    if (rc < 0)
        return rc;
    qw_warm_engine();
    return qw_rehearse(why);
}

/* Nothing of the daemon's stays open but the socket and standard error. */
static void drop_descriptors(void)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (null >= 0) {
        dup2(null, STDIN_FILENO);
        dup2(null, STDOUT_FILENO);
    }
    close_range(QW_ZYGOTE_FD + 1, ~0u, 0);
}

static bool has_socket(void)
{
    int type = 0;
    socklen_t len = sizeof(type);

    return getsockopt(QW_ZYGOTE_FD, SOL_SOCKET, SO_TYPE, &type, &len) == 0 &&
           type == SOCK_SEQPACKET;
}

static int run_zygote(const char *engine, uint64_t mem_bytes)
{
    static struct qw_text why;
    struct qw_ctl c = {.type = le32_make(QW_FAILED)};
    int rc;

    drop_descriptors();
    rc = open_engine(engine, mem_bytes, &why);
    if (rc == 0)
        qw_warm_learn();
    if (rc == 0)
        rc = qw_zygote_run(QW_ZYGOTE_FD);
    else {
        snprintf(c.text, sizeof(c.text), "%.200s", why.s);
        c.value = le64_make((uint64_t)(int64_t)rc);
        send(QW_ZYGOTE_FD, &c, sizeof(c), MSG_NOSIGNAL);
    }
    /* The engine is not closed: its destructors have nothing to save. */
    _exit(rc == 0 || rc == -ECONNRESET ? 0 : 1);
}

static int check_engine(const char *engine)
{
    static struct qw_text why;
    int rc = open_engine(engine, MEM_BYTES, &why);

    if (rc < 0)
        fprintf(stderr, "kvasir-query: %s\n", why.s);
    else
        printf("kvasir-query: DuckDB %s opens\n", duck.library_version());
    fflush(NULL);
    _exit(rc == 0 ? 0 : rc == -ENOENT ? NO_ENGINE : 1);
}

int main(int argc, char **argv)
{
    const char *engine = NULL;
    uint64_t mem_bytes = MEM_BYTES;
    bool check = false;

    qw_warm_begin();
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--engine") == 0 && i + 1 < argc)
            engine = argv[++i];
        else if (strcmp(argv[i], "--mem") == 0 && i + 1 < argc)
            mem_bytes = strtoull(argv[++i], NULL, 10);
        else if (strcmp(argv[i], "--check") == 0)
            check = true;
        else
            argc = -1;
    }
    if (check)
        return check_engine(engine);
    if (argc < 0 || !has_socket()) {
        fprintf(stderr, "kvasir-query runs the queries of kvasir, which starts it.\n"
                        "usage: kvasir-query --check [--engine PATH]   whether the engine opens\n");
        return 2;
    }
    return run_zygote(engine, mem_bytes);
}
