/* SPDX-License-Identifier: Apache-2.0 */
/* What the headers of libkvasir share: results, error texts, the version. */
#ifndef KVASIR_BASE_H
#define KVASIR_BASE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define KVASIR_API __attribute__((visibility("default")))

/*
 * RESULTS. Functions return 0 (or a count) when all went well and a negative errno otherwise:
 * -ENOENT no such key; -EEXIST it is there and must not be; -ESTALE it has another version;
 * -EINVAL an argument; -ERANGE outside the device; -EFBIG, -ENAMETOOLONG value, key too long for
 * the device; -ENOSPC full; -EROFS; -ENOTSUP the device cannot; -EBADMSG corrupt data; -EIO;
 * -ENODEV the device has gone for good; -ECONNRESET the connection ended before the answer, and
 * nobody knows whether it was done; -EILSEQ compare found a difference; -EBUSY in use; -EACCES;
 * -ECANCELED; -ETIMEDOUT; -ENOMEM; -EPROTO; -EDEADLK a blocking call inside a callback.
 * Outputs (`out_x`) are set on success only and may be NULL where the text says so.
 */

/** "0.1.0" */
KVASIR_API const char *kvasir_version(void);
/**
 * The text of the last call of this thread that failed, for people: "127.0.0.1:4420: connection
 * refused: no target listens there". Stays until the next failure. Never NULL.
 */
KVASIR_API const char *kvasir_error(void);
/** A few words for an error code: "not found". Never NULL. */
KVASIR_API const char *kvasir_strerror(int rc);

#ifdef __cplusplus
}
#endif

#endif
