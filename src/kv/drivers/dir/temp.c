/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Files being written stand in .kvasir/<random>/ of the namespace, one directory per process that
 * has the device open, which holds a lock on the file `lock` in it. Whoever can take the lock of
 * another's directory knows that its process is gone, and removes what it left.
 */
#include "kv/drivers/dir/dir.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>

#define TRIES 16

/* Removes all files of an abandoned temporary directory, and the directory. */
static void sweep(struct rt_task *t, struct dir *d, int fd, const char *id)
{
    bool found = true;

    while (found) {
        int n = rt_readdir(t, fd, true, d->index.entries, DIR_READDIR_BYTES);

        found = false;
        for (int at = 0; at < n;) {
            const struct rt_dirent *e = (const void *)(d->index.entries + at);

            at += e->size;
            if (strcmp(e->name, ".") != 0 && strcmp(e->name, "..") != 0 &&
                strcmp(e->name, "lock") != 0)
                found |= rt_unlink(t, fd, e->name, 0) == 0;
        }
    }
    (void)rt_unlink(t, fd, "lock", 0);
    (void)rt_unlink(t, d->temps_fd, id, AT_REMOVEDIR);
}

static void sweep_if_dead(struct rt_task *t, struct dir *d, const char *id)
{
    int fd = rt_open(t, d->temps_fd, id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    int lock;

    if (fd < 0)
        return;
    lock = rt_open(t, fd, "lock", O_RDWR | O_NOFOLLOW, 0);
    if (lock == -ENOENT)
        (void)rt_unlink(t, d->temps_fd, id, AT_REMOVEDIR); /* only an empty one goes */
    else if (lock >= 0 && rt_flock(t, lock, LOCK_EX | LOCK_NB) == 0)
        sweep(t, d, fd, id);
    if (lock >= 0)
        rt_close(t, lock);
    rt_close(t, fd);
}

/* The names are gathered first: sweeping uses the buffer that they were read into. */
static void sweep_all(struct rt_task *t, struct dir *d)
{
    char(*ids)[20] = calloc(256, sizeof(*ids));
    unsigned n_ids = 0;
    bool rewind = true;
    int n;

    if (ids == NULL)
        return;
    while ((n = rt_readdir(t, d->temps_fd, rewind, d->index.entries, DIR_READDIR_BYTES)) > 0) {
        rewind = false;
        for (int at = 0; at < n && n_ids < 256;) {
            const struct rt_dirent *e = (const void *)(d->index.entries + at);

            at += e->size;
            if (strlen(e->name) == 16 && strcmp(e->name, d->temp_id) != 0)
                memcpy(ids[n_ids++], e->name, 17);
        }
    }
    for (unsigned i = 0; i < n_ids; i++)
        sweep_if_dead(t, d, ids[i]);
    free(ids);
}

/* Makes .kvasir/<id> with a locked file in it. -EAGAIN: somebody's sweeping came in between. */
static int own_dir(struct rt_task *t, struct dir *d)
{
    struct stat ours, there;
    uint64_t id;
    int rc;

    rc = rt_mkdir(t, d->fd, DIR_TEMP, 0777);
    if (rc < 0 && rc != -EEXIST)
        return rc;
    if (d->temps_fd < 0)
        d->temps_fd = rt_open(t, d->fd, DIR_TEMP, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (d->temps_fd < 0)
        return d->temps_fd;
    rt_random(&id, sizeof(id));
    snprintf(d->temp_id, sizeof(d->temp_id), "%016llx", (unsigned long long)id);
    rc = rt_mkdir(t, d->temps_fd, d->temp_id, 0777);
    if (rc < 0)
        return rc == -EEXIST || rc == -ENOENT ? -EAGAIN : rc;
    d->temp_fd = rt_open(t, d->temps_fd, d->temp_id, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    if (d->temp_fd < 0)
        return d->temp_fd == -ENOENT ? -EAGAIN : d->temp_fd;
    d->temp_lock_fd = rt_open(t, d->temp_fd, "lock", O_RDWR | O_CREAT | O_EXCL, 0666);
    if (d->temp_lock_fd < 0)
        return d->temp_lock_fd == -ENOENT ? -EAGAIN : d->temp_lock_fd;
    if (rt_flock(t, d->temp_lock_fd, LOCK_EX | LOCK_NB) < 0)
        return -EAGAIN;
    if (rt_stat(t, d->temp_fd, "lock", &there) < 0 || rt_stat(t, d->temp_lock_fd, "", &ours) < 0)
        return -EAGAIN;
    return there.st_ino == ours.st_ino ? 0 : -EAGAIN;
}

static void close_fd(struct rt_task *t, int *fd)
{
    if (*fd >= 0)
        rt_close(t, *fd);
    *fd = -1;
}

static void close_own(struct rt_task *t, struct dir *d)
{
    close_fd(t, &d->temp_lock_fd);
    close_fd(t, &d->temp_fd);
    close_fd(t, &d->temps_fd);
}

int dir_temps_open(struct rt_task *t, struct dir *d, struct err *why)
{
    struct stat names, temps;
    int rc = -EAGAIN;

    for (unsigned i = 0; i < TRIES && rc == -EAGAIN; i++) {
        close_own(t, d);
        rc = own_dir(t, d);
    }
    if (rc == 0)
        rc = rt_stat(t, d->fd, "", &names);
    if (rc == 0)
        rc = rt_stat(t, d->temp_fd, "", &temps);
    if (rc == 0 && names.st_dev != temps.st_dev)
        rc = -EXDEV;
    if (rc < 0) {
        close_own(t, d);
        return err_set(why, dir_errno(rc),
                       "dir: %.128s/%llu/%llu: cannot make temporary files in " DIR_TEMP
                       ": %s (open it with read_only=yes to read only)",
                       d->root, (unsigned long long)d->bus, (unsigned long long)d->ns,
                       err_str(dir_errno(rc)));
    }
    sweep_all(t, d);
    return 0;
}

void dir_temps_close(struct rt_task *t, struct dir *d)
{
    if (d->temp_fd >= 0) {
        (void)rt_unlink(t, d->temp_fd, "lock", 0);
        (void)rt_unlink(t, d->temps_fd, d->temp_id, AT_REMOVEDIR);
        (void)rt_unlink(t, d->fd, DIR_TEMP, AT_REMOVEDIR); /* unless another process uses it */
    }
    close_own(t, d);
}

int dir_temp_new(struct rt_task *t, struct dir *d, struct dir_temp *out)
{
    snprintf(out->name, sizeof(out->name), "%llu", (unsigned long long)++d->temp_count);
    out->fd = rt_open(t, d->temp_fd, out->name, O_RDWR | O_CREAT | O_EXCL, 0666);
    if (out->fd < 0) {
        int rc = out->fd;

        /* An open that was cancelled may have made the file. */
        if (rc == -ECANCELED || rc == -ETIMEDOUT) {
            rt_task_shield(t, true);
            (void)rt_unlink(t, d->temp_fd, out->name, 0);
            rt_task_shield(t, false);
        }
        out->name[0] = '\0';
        return dir_errno(rc);
    }
    return 0;
}

void dir_temp_drop(struct rt_task *t, struct dir *d, struct dir_temp *tmp)
{
    rt_task_shield(t, true);
    if (tmp->fd >= 0)
        rt_close(t, tmp->fd);
    if (tmp->name[0] != '\0')
        (void)rt_unlink(t, d->temp_fd, tmp->name, 0);
    rt_task_shield(t, false);
    tmp->fd = -1;
    tmp->name[0] = '\0';
}
