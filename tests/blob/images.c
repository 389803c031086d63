/* SPDX-License-Identifier: Apache-2.0 */
#include "images.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <zstd.h>

static int unpack(const uint8_t *in, size_t in_len, struct image *img)
{
    ZSTD_DCtx *z = ZSTD_createDCtx();
    uint8_t *chunk = malloc(IMAGE_CHUNK);
    ZSTD_inBuffer from = {in, in_len, 0};
    int rc = z != NULL && chunk != NULL ? 0 : -ENOMEM;

    for (uint64_t at = 0; at < img->bytes && rc == 0; at += IMAGE_CHUNK) {
        ZSTD_outBuffer to = {chunk, MIN(IMAGE_CHUNK, img->bytes - at), 0};

        while (to.pos < to.size && rc == 0) {
            size_t before = to.pos + from.pos;
            size_t left = ZSTD_decompressStream(z, &to, &from);

            if (ZSTD_isError(left) || (before == to.pos + from.pos && to.pos < to.size))
                rc = -EINVAL;
        }
        if (rc == 0 && !bytes_are_zero(chunk, to.size)) {
            memcpy(img->data + at, chunk, to.size);
            img->filled[at / IMAGE_CHUNK] = 1;
        }
    }
    free(chunk);
    ZSTD_freeDCtx(z);
    return rc;
}

static uint8_t *read_file(const char *path, size_t *out_len)
{
    FILE *f = fopen(path, "rbe");
    uint8_t *data = NULL;
    long len;

    if (f == NULL)
        return NULL;
    fseek(f, 0, SEEK_END);
    len = ftell(f);
    rewind(f);
    data = malloc(len > 0 ? (size_t)len : 1);
    if (data != NULL && (len <= 0 || fread(data, 1, (size_t)len, f) != (size_t)len)) {
        free(data);
        data = NULL;
    }
    fclose(f);
    *out_len = (size_t)len;
    return data;
}

int image_load(const char *dir, const char *name, struct image *out)
{
    char path[4096];
    size_t len = 0;
    uint8_t *packed;
    int rc;

    snprintf(path, sizeof(path), "%s/%s.img.zst", dir, name);
    packed = read_file(path, &len);
    if (packed == NULL) {
        fprintf(stderr, "cannot read %s\n", path);
        return -EINVAL;
    }
    *out = (struct image){.name = name, .bytes = ZSTD_getFrameContentSize(packed, len)};
    out->block_bytes = strcmp(name, "snapshots") == 0 ? 512 : 4096;
    out->data = mmap(NULL, out->bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    out->filled = calloc(out->bytes / IMAGE_CHUNK + 1, 1);
    rc = out->data == MAP_FAILED || out->filled == NULL ? -ENOMEM : unpack(packed, len, out);
    free(packed);
    if (rc < 0)
        fprintf(stderr, "cannot unpack %s\n", path);
    return rc;
}

void image_free(struct image *img)
{
    munmap(img->data, img->bytes);
    free(img->filled);
}

int image_open(struct rt_task *t, const struct image *img, struct blk_dev **out_dev,
               struct blk_chan **out_chan)
{
    struct err why = {""};
    char uri[128];
    int rc;

    snprintf(uri, sizeof(uri), "mem:?size=%lu&block_size=%u&name=%s", img->bytes, img->block_bytes,
             img->name);
    rc = blk_open(t, uri, out_dev, &why);
    if (rc < 0) {
        fprintf(stderr, "%s: %s\n", uri, why.text);
        return rc;
    }
    rc = blk_chan_get(t, *out_dev, out_chan);
    for (uint64_t at = 0; at < img->bytes && rc == 0; at += IMAGE_CHUNK) {
        uint64_t n = MIN(IMAGE_CHUNK, img->bytes - at);

        if (img->filled[at / IMAGE_CHUNK])
            rc = blk_write(t, *out_chan, img->data + at, at / img->block_bytes,
                           (uint32_t)(n / img->block_bytes), 0);
    }
    return rc;
}

json_t *image_manifest(const char *dir)
{
    char path[4096];
    json_error_t error;
    json_t *m;

    snprintf(path, sizeof(path), "%s/manifest.json", dir);
    m = json_load_file(path, 0, &error);
    if (m == NULL)
        fprintf(stderr, "%s: %s\n", path, error.text);
    return m;
}
