/* SPDX-License-Identifier: Apache-2.0 */
/* The images of tests/data/spdk-images as block devices in memory. */
#ifndef KVASIR_TESTS_BLOB_IMAGES_H
#define KVASIR_TESTS_BLOB_IMAGES_H

#include "blk/blk.h"

#include <jansson.h>

#define IMAGE_CHUNK (64 * 1024u)

/** An unpacked image. What is zero in it takes no memory. */
struct image {
    const char *name;
    uint8_t *data;
    uint64_t bytes;
    uint8_t *filled; /* per chunk: has other bytes than zero */
    uint32_t block_bytes; /* of the device it was made on */
};

/** Outside of tasks (zstd wants a larger stack). Prints what is wrong and returns -EINVAL. */
int image_load(const char *dir, const char *name, struct image *out);
void image_free(struct image *img);

/** The image as a mem device, open and with a channel. */
int image_open(struct rt_task *t, const struct image *img, struct blk_dev **out_dev,
               struct blk_chan **out_chan);

/** The manifest; NULL when it cannot be read. */
json_t *image_manifest(const char *dir);

#endif
