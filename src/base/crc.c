/* SPDX-License-Identifier: Apache-2.0 */
#include "base/crc.h"

#include <isa-l/crc.h>

#include <limits.h>

uint32_t crc32c(uint32_t crc, const void *data, size_t len)
{
    const unsigned char *p = data;

    /* ISA-L counts in int and does not declare its input const. */
    while (len > 0) {
        int n = len > INT_MAX ? INT_MAX : (int)len;

        crc = ~crc32_iscsi((unsigned char *)(uintptr_t)p, n, ~crc);
        p += n;
        len -= (size_t)n;
    }
    return crc;
}

uint32_t crc32c_iov(uint32_t crc, const struct iovec *iov, unsigned iovcnt)
{
    for (unsigned i = 0; i < iovcnt; i++)
        crc = crc32c(crc, iov[i].iov_base, iov[i].iov_len);
    return crc;
}
