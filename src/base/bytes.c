/* SPDX-License-Identifier: Apache-2.0 */
#include "base/bytes.h"

#include "base/util.h"

#include <errno.h>

int bytes_cmp(struct bytes a, struct bytes b)
{
    size_t common = MIN(a.len, b.len);
    int rc = common > 0 ? memcmp(a.ptr, b.ptr, common) : 0;

    if (rc != 0)
        return rc;
    return (a.len > b.len) - (a.len < b.len);
}

bool bytes_are_zero(const void *p, size_t len)
{
    const uint8_t *b = p;

    return len == 0 || (b[0] == 0 && memcmp(b, b + 1, len - 1) == 0);
}

bool bytes_eq_consttime(const void *a, const void *b, size_t len)
{
    const volatile uint8_t *x = a;
    const volatile uint8_t *y = b;
    uint8_t diff = 0;

    for (size_t i = 0; i < len; i++)
        diff |= x[i] ^ y[i];
    return diff == 0;
}

void bytes_to_hex(struct bytes b, char *out)
{
    static const char digits[] = "0123456789ABCDEF";

    for (size_t i = 0; i < b.len; i++) {
        *out++ = digits[b.ptr[i] >> 4];
        *out++ = digits[b.ptr[i] & 15];
    }
    *out = '\0';
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -EINVAL;
}

int bytes_from_hex(const char *hex, size_t hex_len, uint8_t *out, size_t out_max)
{
    if (hex_len % 2 != 0)
        return -EINVAL;
    if (hex_len / 2 > out_max)
        return -E2BIG;
    for (size_t i = 0; i < hex_len; i += 2) {
        int hi = hex_digit(hex[i]);
        int lo = hex_digit(hex[i + 1]);

        if (hi < 0 || lo < 0)
            return -EINVAL;
        out[i / 2] = (uint8_t)(hi << 4 | lo);
    }
    return (int)(hex_len / 2);
}

size_t iov_len(const struct iovec *iov, unsigned iovcnt)
{
    size_t len = 0;

    for (unsigned i = 0; i < iovcnt; i++)
        len += iov[i].iov_len;
    return len;
}

/* What the three copies share: calls `step` for each contiguous part of [off, off+len). */
#define IOV_EACH_PART(iov, iovcnt, off, len, part, n, step)                                        \
    size_t done = 0;                                                                               \
    for (unsigned i_ = 0; i_ < (iovcnt) && done < (len); i_++) {                                   \
        if ((off) >= (iov)[i_].iov_len) {                                                          \
            (off) -= (iov)[i_].iov_len;                                                            \
            continue;                                                                              \
        }                                                                                          \
        uint8_t *part = (uint8_t *)(iov)[i_].iov_base + (off);                                     \
        size_t n = MIN((iov)[i_].iov_len - (off), (len)-done);                                     \
        step;                                                                                      \
        done += n;                                                                                 \
        (off) = 0;                                                                                 \
    }                                                                                              \
    return done

size_t iov_copy_out(const struct iovec *iov, unsigned iovcnt, size_t off, void *dst, size_t len)
{
    IOV_EACH_PART(iov, iovcnt, off, len, part, n, memcpy((uint8_t *)dst + done, part, n));
}

size_t iov_copy_in(const struct iovec *iov, unsigned iovcnt, size_t off, const void *src,
                   size_t len)
{
    IOV_EACH_PART(iov, iovcnt, off, len, part, n, memcpy(part, (const uint8_t *)src + done, n));
}

size_t iov_fill(const struct iovec *iov, unsigned iovcnt, size_t off, int byte, size_t len)
{
    IOV_EACH_PART(iov, iovcnt, off, len, part, n, memset(part, byte, n));
}

int iov_slice(const struct iovec *src, unsigned srccnt, size_t off, size_t len, struct iovec *dst,
              unsigned dst_max)
{
    unsigned used = 0;

    for (unsigned i = 0; i < srccnt && len > 0; i++) {
        if (off >= src[i].iov_len) {
            off -= src[i].iov_len;
            continue;
        }
        if (used == dst_max)
            return -E2BIG;
        dst[used].iov_base = (uint8_t *)src[i].iov_base + off;
        dst[used].iov_len = MIN(src[i].iov_len - off, len);
        len -= dst[used].iov_len;
        off = 0;
        used++;
    }
    return len > 0 ? -EINVAL : (int)used;
}
