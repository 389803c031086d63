/* SPDX-License-Identifier: Apache-2.0 */
/* A borrowed run of bytes, and what is done with such runs. Nothing here owns memory. */
#ifndef KVASIR_BASE_BYTES_H
#define KVASIR_BASE_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/uio.h>

struct bytes {
    const uint8_t *ptr;
    size_t len;
};

static inline struct bytes bytes_make(const void *ptr, size_t len)
{
    return (struct bytes){.ptr = ptr, .len = len};
}

static inline struct bytes bytes_of_str(const char *s)
{
    return bytes_make(s, strlen(s));
}

/** Compares as unsigned bytes, a shorter run before a longer one it begins. <0, 0, >0. */
int bytes_cmp(struct bytes a, struct bytes b);

static inline bool bytes_eq(struct bytes a, struct bytes b)
{
    return a.len == b.len && (a.len == 0 || memcmp(a.ptr, b.ptr, a.len) == 0);
}

static inline bool bytes_has_prefix(struct bytes a, struct bytes prefix)
{
    return a.len >= prefix.len && (prefix.len == 0 || memcmp(a.ptr, prefix.ptr, prefix.len) == 0);
}

/** True when all `len` bytes at `p` are zero. */
bool bytes_are_zero(const void *p, size_t len);

/** Compares in time that depends on `len` only: for secrets. */
bool bytes_eq_consttime(const void *a, const void *b, size_t len);

/** Writes 2*len upper-case hexadecimal digits and a NUL to `out`. */
void bytes_to_hex(struct bytes b, char *out);

/** Reads hexadecimal (either case, even number of digits). Bytes written, or -EINVAL, -E2BIG. */
int bytes_from_hex(const char *hex, size_t hex_len, uint8_t *out, size_t out_max);

/** Total length of an iovec array. */
size_t iov_len(const struct iovec *iov, unsigned iovcnt);

/** Copies min(len, what the iovecs hold from `off`) bytes out of or into them; returns it. */
size_t iov_copy_out(const struct iovec *iov, unsigned iovcnt, size_t off, void *dst, size_t len);
size_t iov_copy_in(const struct iovec *iov, unsigned iovcnt, size_t off, const void *src,
                   size_t len);

/** Sets [off, off+len) of the iovecs to `byte`; returns how many bytes were set. */
size_t iov_fill(const struct iovec *iov, unsigned iovcnt, size_t off, int byte, size_t len);

/**
 * Describes [off, off+len) of `src` in `dst`. Returns the number of entries used, or -E2BIG when
 * `dst_max` is too small, -EINVAL when the range is not inside `src`.
 */
int iov_slice(const struct iovec *src, unsigned srccnt, size_t off, size_t len, struct iovec *dst,
              unsigned dst_max);

#endif
