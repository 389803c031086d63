/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Integers of formats on disk and wire: byte arrays inside structs, so there is no padding, no
 * alignment, and no use of the value without a conversion.
 */
#ifndef KVASIR_BASE_ENDIAN_H
#define KVASIR_BASE_ENDIAN_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define ENDIAN_TYPE(name, bits, to_host, from_host)                                                \
    typedef struct {                                                                               \
        uint8_t b[bits / 8];                                                                       \
    } name;                                                                                        \
    static inline uint##bits##_t name##_get(name x)                                                \
    {                                                                                              \
        uint##bits##_t v;                                                                          \
        memcpy(&v, x.b, sizeof(v));                                                                \
        return to_host(v);                                                                         \
    }                                                                                              \
    static inline name name##_make(uint##bits##_t v)                                               \
    {                                                                                              \
        name x;                                                                                    \
        v = from_host(v);                                                                          \
        memcpy(x.b, &v, sizeof(v));                                                                \
        return x;                                                                                  \
    }                                                                                              \
    static inline uint##bits##_t name##_at(const void *p)                                          \
    {                                                                                              \
        name x;                                                                                    \
        memcpy(&x, p, sizeof(x));                                                                  \
        return name##_get(x);                                                                      \
    }                                                                                              \
    static inline void name##_put(void *p, uint##bits##_t v)                                       \
    {                                                                                              \
        name x = name##_make(v);                                                                   \
        memcpy(p, &x, sizeof(x));                                                                  \
    }

/* le32_get(x) reads a field, le32_make(v) makes one; le32_at(p), le32_put(p, v) work on bytes. */
ENDIAN_TYPE(le16, 16, le16toh, htole16)
ENDIAN_TYPE(le32, 32, le32toh, htole32)
ENDIAN_TYPE(le64, 64, le64toh, htole64)
ENDIAN_TYPE(be16, 16, be16toh, htobe16)
ENDIAN_TYPE(be32, 32, be32toh, htobe32)
ENDIAN_TYPE(be64, 64, be64toh, htobe64)

#endif
