/* SPDX-License-Identifier: Apache-2.0 */
#include "external.h"

#include "disk.h"
#include "sectors.h"

#include "base/must.h"

#include <string.h>

static const struct external {
    const char *path;
    uint32_t sectors;
} external[EXTERNALS] = {{"/external0", 180}, {"/external1", 400}};

int external_of(const char *path, size_t len)
{
    for (unsigned i = 0; i < EXTERNALS; i++)
        if (len == strlen(external[i].path) && memcmp(path, external[i].path, len) == 0)
            return (int)i;
    return -1;
}

const char *external_path(unsigned which)
{
    return external[which].path;
}

uint32_t external_sectors(unsigned which)
{
    return external[which].sectors;
}

uint32_t external_content(unsigned which)
{
    return 0xe0000000u + which;
}

uint32_t external_sector(unsigned which, uint32_t sector)
{
    return sector < external[which].sectors ? external_content(which) : 0;
}

int external_read(unsigned which, uint64_t off, const struct iovec *iov, unsigned iovcnt)
{
    static struct {
        uint64_t place;
        unsigned which;
        bool there;
        uint8_t bytes[SECTOR_BYTES];
    } last;
    uint64_t at = off, end = (uint64_t)external[which].sectors * SECTOR_BYTES, max;
    int rc = disk_read_begin(&max);

    if (rc < 0)
        return rc;
    end = MIN(end, off + max);
    for (unsigned i = 0; i < iovcnt; i++) {
        size_t n;

        for (size_t done = 0; done < iov[i].iov_len && at < end; done += n, at += n) {
            uint64_t place = at / SECTOR_BYTES, skip = at % SECTOR_BYTES;

            if (!last.there || last.place != place || last.which != which) {
                last.there = true;
                last.place = place;
                last.which = which;
                sector_fill(last.bytes, place, external_content(which));
            }
            n = MIN(MIN(iov[i].iov_len - done, SECTOR_BYTES - skip), end - at);
            memcpy((uint8_t *)iov[i].iov_base + done, last.bytes + skip, n);
        }
    }
    return (int)(at - off);
}
