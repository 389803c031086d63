/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keys as people write them: text as it is, "hex:6B6579" for any bytes, "@FILE" for the bytes of a
 * file. A key is printed as text when it is printable UTF-8 that reads back as itself, and as
 * "hex:" otherwise: what is printed can always be given again.
 */
#ifndef KVASIR_CLI_KEY_H
#define KVASIR_CLI_KEY_H

#include "base/bytes.h"
#include "base/err.h"

#include <jansson.h>

#define CLI_KEY_MAX 2048
#define CLI_KEY_TEXT_MAX (4 + 2 * CLI_KEY_MAX + 1)

struct cli_key {
    size_t len;
    uint8_t data[CLI_KEY_MAX];
};

static inline struct bytes cli_key_bytes(const struct cli_key *k)
{
    return bytes_make(k->data, k->len);
}

/** Reads a key; `empty_ok` for prefixes. May read a file. 0, -EINVAL, -ENAMETOOLONG, ... */
int cli_key_parse(const char *text, bool empty_ok, struct cli_key *out, struct err *why);
/** As text into `out` (CLI_KEY_TEXT_MAX); returns it. */
const char *cli_key_text(struct bytes key, char *out);
/** Adds "key" (as cli_key_text) and "hex" to a JSON object. */
void cli_key_json(json_t *obj, struct bytes key);

#endif
