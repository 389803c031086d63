/* SPDX-License-Identifier: Apache-2.0 */
/* Lines typed before, in a file that nobody else reads. */
#include "cli/edit.h"

#include "base/util.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LINES_MAX 1000
#define FILE_MAX (1 * MIB)

char *history_path(const char *name)
{
    const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
    char *path = NULL;

    if (state != NULL && state[0] == '/') {
        if (asprintf(&path, "%s/kvasir/%s", state, name) < 0)
            return NULL;
    } else if (home != NULL && home[0] == '/') {
        if (asprintf(&path, "%s/.local/state/kvasir/%s", home, name) < 0)
            return NULL;
    }
    return path;
}

static void keep(struct history *h, const char *line, size_t len)
{
    char *copy;

    if (h->line == NULL)
        h->line = calloc(LINES_MAX, sizeof(*h->line));
    copy = strndup(line, len);
    if (h->line == NULL || copy == NULL) {
        free(copy);
        return;
    }
    if (h->n == LINES_MAX) {
        free(h->line[0]);
        memmove(h->line, h->line + 1, (LINES_MAX - 1) * sizeof(*h->line));
        h->n--;
    }
    h->line[h->n++] = copy;
}

static bool newest_is(const struct history *h, const char *line, size_t len)
{
    return h->n > 0 && strlen(h->line[h->n - 1]) == len &&
           memcmp(h->line[h->n - 1], line, len) == 0;
}

/* Opened so that nobody else can read it, its directories too. */
static int open_file(const char *path, int flags)
{
    char *dir = strdup(path);
    int fd;

    if (dir == NULL)
        return -1;
    for (char *p = strchr(dir + 1, '/'); p != NULL; p = strchr(p + 1, '/')) {
        *p = '\0';
        mkdir(dir, 0700);
        *p = '/';
    }
    free(dir);
    fd = open(path, flags | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd >= 0)
        fchmod(fd, 0600);
    return fd;
}

static void write_lines(int fd, const struct history *h, unsigned from)
{
    for (unsigned i = from; i < h->n; i++) {
        if (dprintf(fd, "%s\n", h->line[i]) < 0)
            return;
    }
}

void history_load(struct history *h)
{
    FILE *f = h->path != NULL ? fopen(h->path, "re") : NULL;
    char *line = NULL;
    size_t cap = 0, bytes = 0;
    ssize_t n;
    int fd;

    if (f == NULL)
        return;
    while ((n = getline(&line, &cap, f)) > 0) {
        bytes += (size_t)n;
        if (line[n - 1] == '\n')
            n--;
        if (n > 0 && !newest_is(h, line, (size_t)n))
            keep(h, line, (size_t)n);
    }
    free(line);
    fclose(f);
    /* Lines are added at its end; what has grown too long is written anew. */
    fd = bytes > FILE_MAX ? open_file(h->path, O_WRONLY | O_TRUNC) : -1;
    if (fd >= 0) {
        write_lines(fd, h, 0);
        close(fd);
    }
}

void history_add(struct history *h, const char *line)
{
    unsigned before = h->n;
    int fd;

    if (line[strspn(line, " \t")] == '\0' || newest_is(h, line, strlen(line)))
        return;
    keep(h, line, strlen(line));
    fd = h->path != NULL && h->n > 0 ? open_file(h->path, O_WRONLY | O_APPEND) : -1;
    if (fd >= 0) {
        write_lines(fd, h, MIN(before, h->n - 1));
        close(fd);
    }
}

void history_free(struct history *h)
{
    for (unsigned i = 0; i < h->n; i++)
        free(h->line[i]);
    free(h->line);
    *h = (struct history){0};
}
