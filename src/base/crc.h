/* SPDX-License-Identifier: Apache-2.0 */
#ifndef KVASIR_BASE_CRC_H
#define KVASIR_BASE_CRC_H

#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

/**
 * CRC-32C (Castagnoli, reflected, initial and final value FFFFFFFFh) of `len` bytes that follow
 * bytes whose CRC is `crc`; 0 to begin. crc32c(0, "123456789", 9) is E3069283h.
 */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);
uint32_t crc32c_iov(uint32_t crc, const struct iovec *iov, unsigned iovcnt);

#endif
