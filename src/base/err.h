/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The errnos that layers return, one meaning each. A function that fails returns one of them,
 * negative. Control-plane calls fill a `struct err` besides: the text for a person.
 *
 *   -ENOENT      no such key, file, name
 *   -EEXIST      the key is there and must not be
 *   -ESTALE      the version is not the one asked for
 *   -EINVAL      an argument or a field is not acceptable
 *   -ERANGE      outside the device (LBA, offset)
 *   -EFBIG       the value is larger than the device takes
 *   -ENAMETOOLONG the key is longer than the device takes
 *   -ENOSPC      the device is full and unchanged
 *   -EROFS       the device or the claim does not allow writes
 *   -ENOTSUP     the device cannot do this, and nothing emulates it
 *   -EBADMSG     what is stored or received does not match its checksum or format
 *   -EIO         the device failed
 *   -ENODEV      the device is gone (removed, connection lost for good)
 *   -ECONNRESET  the connection ended before the answer
 *   -EILSEQ      compare found a difference
 *   -EBUSY       claimed by somebody else
 *   -EACCES      refused by permission or policy
 *   -ECANCELED   cancelled; the I/O has ended
 *   -ETIMEDOUT   a deadline passed; the I/O has ended
 *   -ENOMEM      a pool or the memory budget is used up
 *   -EPROTO      the peer broke the protocol
 *   -EDEADLK     would wait inside a callback
 *   -EAGAIN      not now: nothing to read, no room to write
 */
#ifndef KVASIR_BASE_ERR_H
#define KVASIR_BASE_ERR_H

#include "base/util.h"

#include <errno.h>

#define ERR_TEXT_MAX 256

struct err {
    char text[ERR_TEXT_MAX];
};

/** Writes the text (when `e` is not NULL) and returns `rc`, so that it can stand in a return. */
int err_set(struct err *e, int rc, const char *fmt, ...) PRINTF_LIKE(3, 4);

/** What one of the errnos above means, in a few words ("no such key"). Never NULL. */
const char *err_str(int rc);

#endif
