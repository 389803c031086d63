/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether a compressed object is whole. The engine takes the end of a gzip or zstd file for the
 * end of its data also where the file was cut off, and answers from what it has. So the bytes are
 * looked at as they pass: gzip has to be unpacked for that, zstd tells the length of each block.
 */
#include "virt/query/worker/worker.h"

#include <isa-l/igzip_lib.h>
#include <string.h>

#define ZSTD_MAGIC 0xfd2fb528u
#define SKIPPABLE_MAGIC 0x184d2a50u /* and the 15 that follow */

static enum qw_packing packing;
static const void *owner; /* the open file that is looked at */
static uint64_t pos;
static bool bad, cut;

static struct inflate_state gzip;
static bool gzip_inside; /* a member */

static struct {
    uint64_t skip; /* bytes until what is looked at next */
    unsigned char have[18];
    unsigned n;   /* bytes in `have` */
    bool inside;  /* a frame */
    bool checked; /* it ends with a checksum */
} zstd;

void qw_packed_set(enum qw_packing p)
{
    packing = p;
    owner = NULL;
}

static void begin(const void *file)
{
    owner = file;
    pos = 0;
    bad = false;
    isal_inflate_init(&gzip);
    gzip.crc_flag = ISAL_GZIP;
    gzip_inside = false;
    memset(&zstd, 0, sizeof(zstd));
}

static void feed_gzip(const unsigned char *p, size_t len)
{
    static unsigned char out[64u << 10];

    gzip.next_in = (uint8_t *)p;
    gzip.avail_in = (uint32_t)len;
    while (!bad && (gzip.avail_in || gzip.avail_out == 0)) {
        if (!gzip_inside && gzip.avail_in == 0)
            return;
        gzip_inside = true;
        gzip.next_out = out;
        gzip.avail_out = sizeof(out);
        bad = isal_inflate(&gzip) != ISAL_DECOMP_OK;
        if (gzip.block_state != ISAL_BLOCK_FINISH)
            continue;
        p = gzip.next_in;
        len = gzip.avail_in;
        isal_inflate_reset(&gzip);
        gzip.crc_flag = ISAL_GZIP;
        gzip.next_in = (uint8_t *)p;
        gzip.avail_in = (uint32_t)len;
        gzip.avail_out = 1;
        gzip_inside = false;
    }
}

/* How many bytes of a frame's header there are once its fifth is known. */
static unsigned zstd_header_len(unsigned char descriptor)
{
    static const unsigned char dictionary[] = {0, 1, 2, 4}, size[] = {0, 2, 4, 8};
    bool single = descriptor & 0x20;
    unsigned n = 5 + !single + dictionary[descriptor & 3] + size[descriptor >> 6];

    return single && descriptor >> 6 == 0 ? n + 1 : n;
}

/* How many bytes have to be in `have` for the next step. */
static unsigned zstd_want(void)
{
    if (zstd.inside)
        return 3;
    if (zstd.n < 5)
        return 5;
    return le32_at(zstd.have) == ZSTD_MAGIC ? zstd_header_len(zstd.have[4]) : 8;
}

static void zstd_step(void)
{
    uint32_t word = le32_at(zstd.have);

    if (zstd.inside) { /* the head of a block */
        word &= 0xffffff;
        zstd.skip = (word >> 1 & 3) == 1 ? 1 : word >> 3; /* one byte, repeated */
        if (word & 1) {
            zstd.inside = false;
            zstd.skip += zstd.checked ? 4 : 0;
        }
    } else if (word == ZSTD_MAGIC) {
        zstd.inside = true;
        zstd.checked = zstd.have[4] & 4;
    } else if ((word & ~15u) == SKIPPABLE_MAGIC) {
        zstd.skip = le32_at(zstd.have + 4);
    } else {
        bad = true;
    }
    zstd.n = 0;
}

static void feed_zstd(const unsigned char *p, size_t len)
{
    while (len && !bad) {
        size_t n = zstd.skip < len ? (size_t)zstd.skip : len;

        zstd.skip -= n;
        p += n;
        len -= n;
        while (len && zstd.n < zstd_want()) {
            zstd.have[zstd.n++] = *p++;
            len--;
        }
        if (zstd.skip == 0 && zstd.n && zstd.n == zstd_want())
            zstd_step();
    }
}

bool qw_packed_whole(const void *file, uint64_t off, const void *buf, size_t len, uint64_t size)
{
    size_t known;

    if (packing == QW_PLAIN)
        return true;
    if (off == 0 && (file != owner || pos == 0))
        begin(file);
    /* What is read again is known; what was left out ends the looking. */
    if (file != owner || off > pos || off + len <= pos)
        return true;
    known = (size_t)(pos - off);
    if (packing == QW_GZIP)
        feed_gzip((const unsigned char *)buf + known, len - known);
    else
        feed_zstd((const unsigned char *)buf + known, len - known);
    pos = off + len;
    if (pos < size)
        return true;
    cut = bad || gzip_inside || zstd.inside || zstd.skip || zstd.n;
    return !cut;
}

bool qw_packed_cut(void)
{
    return cut;
}
