/* SPDX-License-Identifier: Apache-2.0 */
#include "base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int err_set(struct err *e, int rc, const char *fmt, ...)
{
    va_list args;

    if (e == NULL)
        return rc;
    va_start(args, fmt);
    vsnprintf(e->text, sizeof(e->text), fmt, args);
    va_end(args);
    return rc;
}

static const struct {
    int errnum;
    const char *text;
} err_texts[] = {
    {ENOENT, "not found"},
    {EEXIST, "exists already"},
    {ESTALE, "the version is another one"},
    {EINVAL, "invalid argument"},
    {ERANGE, "outside the device"},
    {EFBIG, "value too large for the device"},
    {ENAMETOOLONG, "key too long for the device"},
    {ENOSPC, "the device is full"},
    {EROFS, "read-only"},
    {ENOTSUP, "not supported by the device"},
    {EBADMSG, "corrupt data"},
    {EIO, "device error"},
    {ENODEV, "the device is gone"},
    {ECONNRESET, "connection lost"},
    {EILSEQ, "compare failed"},
    {EBUSY, "in use by another"},
    {EACCES, "refused"},
    {ECANCELED, "cancelled"},
    {ETIMEDOUT, "timed out"},
    {ENOMEM, "out of memory budget"},
    {EPROTO, "the peer broke the protocol"},
    {EDEADLK, "would wait inside a callback"},
    {EAGAIN, "not now"},
};

const char *err_str(int rc)
{
    int errnum = rc < 0 ? -rc : rc;

    if (errnum == 0)
        return "success";
    for (size_t i = 0; i < ARRAY_LEN(err_texts); i++) {
        if (err_texts[i].errnum == errnum)
            return err_texts[i].text;
    }
    return strerrordesc_np(errnum) != NULL ? strerrordesc_np(errnum) : "unknown error";
}
