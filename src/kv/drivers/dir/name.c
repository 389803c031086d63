/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys and file names. Up to 127 bytes: the key in upper-case hexadecimal. Longer: each 127 bytes
 * but the last piece name a directory, 254 digits and an underscore; no key's name has that form.
 */
#include "kv/drivers/dir/dir.h"

#include <fcntl.h>

static int digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

enum dir_name dir_name_parse(const char *name, uint8_t *out, size_t *out_len)
{
    size_t n = 0;

    for (; n < DIR_PIECE_HEX && name[n] != '\0'; n++) {
        int v = digit(name[n]);

        if (v < 0)
            return DIR_NAME_OTHER;
        if (n % 2 == 0)
            out[n / 2] = (uint8_t)(v << 4);
        else
            out[n / 2] |= (uint8_t)v;
    }
    if (n == 0 || n % 2 != 0)
        return DIR_NAME_OTHER;
    *out_len = n / 2;
    if (name[n] == '\0')
        return DIR_NAME_KEY;
    return name[n] == DIR_SPREAD_MARK && name[n + 1] == '\0' ? DIR_NAME_SPREAD : DIR_NAME_OTHER;
}

/* The name of the spread directory for one piece of 127 bytes. */
static void spread_name(const uint8_t *piece, char *out)
{
    bytes_to_hex(bytes_make(piece, DIR_PIECE_KEY_BYTES), out);
    out[DIR_PIECE_HEX] = DIR_SPREAD_MARK;
    out[DIR_PIECE_HEX + 1] = '\0';
}

static int leave(struct rt_task *t, const struct dir *d, int fd)
{
    return fd == d->fd ? 0 : rt_close(t, fd);
}

/* One level down from *fd, which is closed unless it is the namespace directory. */
static int descend(struct rt_task *t, struct dir *d, const char *name, bool make, int *fd)
{
    int up = *fd, rc = 0;

    if (make) {
        rc = rt_mkdir(t, up, name, 0777);
        if (rc == 0 || rc == -EEXIST) /* somebody else's may not be durable yet */
            rc = up == d->fd ? dir_sync_names(t, d) : rt_fsync(t, up);
    }
    if (rc == 0)
        rc = rt_open(t, up, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
    leave(t, d, up);
    *fd = rc;
    return rc < 0 ? dir_errno(rc) : 0;
}

int dir_place_open(struct rt_task *t, struct dir *d, struct bytes key, bool make,
                   struct dir_place *out)
{
    int fd = d->fd;
    int rc = 0;

    while (key.len > DIR_PIECE_KEY_BYTES && rc == 0) {
        spread_name(key.ptr, out->name);
        rc = descend(t, d, out->name, make, &fd);
        key = bytes_make(key.ptr + DIR_PIECE_KEY_BYTES, key.len - DIR_PIECE_KEY_BYTES);
    }
    if (rc < 0)
        return rc;
    out->fd = fd;
    out->own_fd = fd != d->fd;
    bytes_to_hex(key, out->name);
    return 0;
}

void dir_place_close(struct rt_task *t, struct dir *d, struct dir_place *p)
{
    if (p->own_fd)
        rt_close(t, p->fd);
    p->own_fd = false;
}

void dir_place_prune(struct rt_task *t, struct dir *d, struct bytes key)
{
    size_t level = (key.len - 1) / DIR_PIECE_KEY_BYTES;

    for (; level > 0; level--) {
        /* The spread directory of a level stands where a key of that many pieces would. */
        struct dir_place p;
        int rc = dir_place_open(t, d, bytes_make(key.ptr, level * DIR_PIECE_KEY_BYTES), false, &p);

        if (rc < 0)
            return;
        spread_name(key.ptr + (level - 1) * DIR_PIECE_KEY_BYTES, p.name);
        rc = rt_unlink(t, p.fd, p.name, AT_REMOVEDIR);
        dir_place_close(t, d, &p);
        if (rc < 0)
            return; /* not empty */
    }
}

int dir_spread_open(struct rt_task *t, struct dir *d, struct bytes prefix)
{
    int fd = rt_open(t, d->fd, ".", O_RDONLY | O_DIRECTORY, 0);
    char name[DIR_NAME_MAX];

    for (size_t off = 0; off < prefix.len && fd >= 0; off += DIR_PIECE_KEY_BYTES) {
        int up = fd;

        spread_name(prefix.ptr + off, name);
        fd = rt_open(t, up, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0);
        rt_close(t, up);
    }
    return fd < 0 ? dir_errno(fd) : fd;
}
