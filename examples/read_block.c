/* SPDX-License-Identifier: Apache-2.0 */
/* read_block URI OFFSET: writes the block at a byte offset to standard output. */
#include <kvasir/kvasir.h>

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
    struct kvasir_blk_info info;
    struct kvasir_blk *blk;
    uint64_t off;
    char *buf;
    int rc;

    if (argc != 3) {
        fprintf(stderr, "read_block URI OFFSET\n");
        return 2;
    }
    rc = kvasir_open_blk(argv[1], &blk);
    if (rc < 0) {
        fprintf(stderr, "%s\n", kvasir_error());
        return 1;
    }
    kvasir_blk_info(blk, &info);
    off = strtoull(argv[2], NULL, 0);
    buf = malloc(info.block_bytes);
    rc = kvasir_blk_read(blk, buf, off - off % info.block_bytes, info.block_bytes);
    if (rc == 0)
        fwrite(buf, 1, info.block_bytes, stdout);
    else
        fprintf(stderr, "%s\n", kvasir_error());
    free(buf);
    kvasir_close_blk(blk);
    return rc < 0;
}
