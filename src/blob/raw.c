/* SPDX-License-Identifier: Apache-2.0 */
/* The blobstore's bytes: reading them, and what each structure says. See raw.h. */
#include "blob/raw.h"

#include "base/crc.h"

#define DEFAULT_PAGE 4096u
#define DESC_HEAD 5u
#define DESC_AREA 16u /* descriptors begin here in a page */
#define DESC_BYTES 4072u

bool blob_raw_crc_ok(const uint8_t *page)
{
    return crc32c(0, page, BLOB_RAW_BYTES - 4) == le32_at(page + BLOB_RAW_BYTES - 4);
}

void blob_raw_super_decode(const uint8_t *p, struct blob_raw_super *out)
{
    *out = (struct blob_raw_super){
        .signature_ok = memcmp(p, "SPDKBLOB", 8) == 0,
        .crc_ok = blob_raw_crc_ok(p),
        .version = le32_at(p + 8),
        .length = le32_at(p + 12),
        .clean = le32_at(p + 16),
        .super_blob = le64_at(p + 20),
        .cluster_bytes = le32_at(p + 28),
        .page_mask_start = le32_at(p + 32),
        .page_mask_len = le32_at(p + 36),
        .cluster_mask_start = le32_at(p + 40),
        .cluster_mask_len = le32_at(p + 44),
        .md_start = le32_at(p + 48),
        .md_len = le32_at(p + 52),
        .blobid_mask_start = le32_at(p + 72),
        .blobid_mask_len = le32_at(p + 76),
        .size_bytes = le64_at(p + 80),
        .io_unit_bytes = le32_at(p + 88),
        .page_bytes = le32_at(p + 92),
        .crc = le32_at(p + 4092),
    };
    memcpy(out->bstype, p + 56, sizeof(out->bstype));
    if (out->io_unit_bytes == 0)
        out->io_unit_bytes = DEFAULT_PAGE;
    if (out->page_bytes == 0)
        out->page_bytes = DEFAULT_PAGE;
}

uint64_t blob_raw_reserved(const struct blob_raw_super *s)
{
    uint64_t end = ((uint64_t)s->md_start + s->md_len) * s->page_bytes;

    return s->cluster_bytes == 0 ? 0 : (end + s->cluster_bytes - 1) / s->cluster_bytes;
}

int blob_raw_init(struct rt_task *t, struct blk_chan *chan, struct blob_raw *out)
{
    const struct blk_info *info = blk_info(blk_chan_dev(chan));
    CLEANUP(free_p) uint8_t *page = aligned_alloc(4096, BLOB_RAW_BYTES);
    int rc;

    *out = (struct blob_raw){
        .chan = chan,
        .block_bytes = info->block_bytes,
        .dev_bytes = info->nblocks * info->block_bytes,
        .bounce = aligned_alloc(4096, MAX(info->block_bytes, BLOB_RAW_BYTES)),
    };
    if (page == NULL || out->bounce == NULL)
        return -ENOMEM;
    rc = blob_raw_read(t, out, 0, page, BLOB_RAW_BYTES);
    if (rc < 0)
        return rc;
    blob_raw_super_decode(page, &out->super);
    if (out->super.size_bytes == 0)
        out->super.size_bytes = out->dev_bytes;
    return 0;
}

void blob_raw_fini(struct blob_raw *raw)
{
    free(raw->bounce);
    raw->bounce = NULL;
}

int blob_raw_read(struct rt_task *t, struct blob_raw *raw, uint64_t off, void *buf, size_t len)
{
    uint32_t block = raw->block_bytes;
    uint8_t *to = buf;
    int rc = 0;

    if (off > raw->dev_bytes || len > raw->dev_bytes - off)
        return -ERANGE;
    while (len > 0 && rc == 0) {
        uint32_t skip = (uint32_t)(off % block);
        size_t n = len;

        if (skip == 0 && len >= block) {
            n = MIN(len / block, UINT32_MAX / block) * block;
            rc = blk_read(t, raw->chan, to, off / block, (uint32_t)(n / block));
        } else { /* the edges, where blocks are larger than what is wanted */
            n = MIN(len, block - skip);
            rc = blk_read(t, raw->chan, raw->bounce, off / block, 1);
            if (rc == 0)
                memcpy(to, raw->bounce + skip, n);
        }
        off += n;
        to += n;
        len -= n;
    }
    return rc;
}

int blob_raw_page(struct rt_task *t, struct blob_raw *raw, uint32_t md_page, uint8_t *buf)
{
    if (md_page >= raw->super.md_len)
        return -ERANGE;
    return blob_raw_read(t, raw, blob_raw_page_off(raw, md_page), buf, BLOB_RAW_BYTES);
}

bool blob_raw_is_root(const uint8_t *page, uint32_t md_page)
{
    return blob_raw_page_id(page) == (BLOB_RAW_ID_HIGH | md_page) && blob_raw_page_seq(page) == 0 &&
           blob_raw_crc_ok(page);
}

int blob_raw_desc_next(const uint8_t *page, uint32_t *pos, struct blob_raw_desc *out)
{
    const uint8_t *p = page + DESC_AREA + *pos;

    if (DESC_BYTES - *pos < DESC_HEAD)
        return 0;
    *out = (struct blob_raw_desc){.off = DESC_AREA + *pos, .type = p[0], .len = le32_at(p + 1)};
    if (out->type == BLOB_RAW_PADDING && out->len == 0)
        return 0;
    if (out->len > DESC_BYTES - *pos - DESC_HEAD)
        return -EBADMSG;
    out->payload = p + DESC_HEAD;
    *pos += DESC_HEAD + out->len;
    return 1;
}

int blob_raw_xattr(const struct blob_raw_desc *d, struct blob_raw_xattr *out)
{
    uint32_t name_len, value_len;

    if (d->len < 4)
        return -EBADMSG;
    name_len = le16_at(d->payload);
    value_len = le16_at(d->payload + 2);
    if (d->len != 4 + name_len + value_len)
        return -EBADMSG;
    out->name = bytes_make(d->payload + 4, name_len);
    out->value = bytes_make(d->payload + 4 + name_len, value_len);
    return 0;
}
