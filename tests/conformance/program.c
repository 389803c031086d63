/* SPDX-License-Identifier: Apache-2.0 */
#include "program.h"

#include <fts.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum kind { FLAG, NUMBER, LONG, TEXT, BACKEND };

static const struct {
    const char *name;
    enum kind kind;
    size_t at;
} known[] = {
    {"seed", LONG, offsetof(struct program, seed)},
    {"reactors", NUMBER, offsetof(struct program, cfg.reactors)},
    {"backend", BACKEND, offsetof(struct program, cfg.backend)},
    {"ops", NUMBER, offsetof(struct program, ops)},
    {"many", NUMBER, offsetof(struct program, many)},
    {"seconds", NUMBER, offsetof(struct program, seconds)},
    {"len-max", LONG, offsetof(struct program, len_max)},
    {"keeps", FLAG, offsetof(struct program, keeps)},
    {"faulty", FLAG, offsetof(struct program, faulty)},
    {"only", TEXT, offsetof(struct program, only)},
    {"params", TEXT, offsetof(struct program, params)},
    {"kv-params", TEXT, offsetof(struct program, kv_params)},
};

static bool takes(const struct program *p, const char *name)
{
    char word[32];

    snprintf(word, sizeof(word), " %s ", name);
    return strstr(p->takes, word) != NULL;
}

static bool set(struct program *p, size_t option, const char *text)
{
    void *at = (char *)p + known[option].at;

    if (!takes(p, known[option].name))
        return false;
    switch (known[option].kind) {
    case FLAG:
        *(bool *)at = true;
        return true;
    case NUMBER:
        *(unsigned *)at = (unsigned)strtoul(text, NULL, 0);
        return true;
    case LONG:
        *(uint64_t *)at = strtoull(text, NULL, 0);
        return true;
    case TEXT:
        *(const char **)at = text;
        return true;
    default:
        p->cfg.backend = strcmp(text, "epoll") == 0 ? RT_BACKEND_EPOLL : RT_BACKEND_URING;
        return strcmp(text, "epoll") == 0 || strcmp(text, "io_uring") == 0;
    }
}

/* Replaces each @DIR@; the result is the caller's to free. */
static char *with_dir(const char *uri, const char *dir)
{
    char *out = NULL;
    size_t len;
    FILE *f = open_memstream(&out, &len);

    must(f != NULL);
    for (const char *at; (at = strstr(uri, "@DIR@")) != NULL; uri = at + 5)
        fprintf(f, "%.*s%s", (int)(at - uri), uri, dir);
    fputs(uri, f);
    fclose(f);
    must(out != NULL);
    return out;
}

static uint64_t clock_seed(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static bool parse(struct program *p, int argc, char **argv)
{
    struct option options[ARRAY_LEN(known) + 1] = {{0}};
    bool wants_uri = takes(p, "URI");

    for (size_t i = 0; i < ARRAY_LEN(known); i++) {
        options[i].name = known[i].name;
        options[i].has_arg = known[i].kind == FLAG ? no_argument : required_argument;
    }
    for (int c, i = 0; (c = getopt_long(argc, argv, "", options, &i)) != -1;) {
        if (c != 0 || !set(p, (size_t)i, optarg))
            return false;
    }
    if (optind != argc - wants_uri)
        return false;
    if (!wants_uri)
        return true;
    snprintf(p->dir, sizeof(p->dir), "conformance-XXXXXX");
    if (strstr(argv[optind], "@DIR@") == NULL) {
        p->dir[0] = '\0';
    } else if (mkdtemp(p->dir) == NULL) {
        perror(p->dir);
        return false;
    }
    p->uri = with_dir(argv[optind], p->dir);
    return true;
}

bool program_args(struct program *p, int argc, char **argv)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (!parse(p, argc, argv)) {
        fprintf(stderr, "%s takes: %s\n", argv[0], p->takes);
        return false;
    }
    if (p->seed == 0)
        p->seed = clock_seed();
    return true;
}

/* Whole paths in it may be longer than PATH_MAX: by what leads there from where it stands. */
static void remove_tree(char *dir)
{
    FTS *fts = fts_open((char *[]){dir, NULL}, FTS_PHYSICAL, NULL);

    for (FTSENT *e; fts != NULL && (e = fts_read(fts)) != NULL;) {
        if (e->fts_info != FTS_D)
            (void)remove(e->fts_accpath);
    }
    if (fts != NULL)
        fts_close(fts);
}

int program_run(struct program *p, rt_task_fn fn, void *arg, const uint64_t *count,
                const struct err *more)
{
    struct err why = {""};
    int rc;

    printf("%s %s: seed %llu, %u reactor(s)\n", p->uri != NULL ? p->uri : "",
           p->params != NULL ? p->params : "", (unsigned long long)p->seed, p->cfg.reactors);
    rc = rt_run(&p->cfg, fn, arg, &why);
    if (p->dir[0] != '\0')
        remove_tree(p->dir);
    free(take_ptr(&p->uri));
    if (rc < 0) {
        fprintf(stderr, "failed: %s %s%s; again with --seed %llu\n", err_str(rc), why.text,
                more != NULL ? more->text : "", (unsigned long long)p->seed);
        return why.text[0] != '\0' && p->cfg.backend == RT_BACKEND_URING ? 77 : 1;
    }
    printf("all passed, %llu random or prepared requests\n", (unsigned long long)*count);
    return 0;
}
