/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/key.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static int key_from_file(const char *path, struct cli_key *out, struct err *why)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n;
    uint8_t more;
    int rc = 0;

    if (fd < 0)
        return err_set(why, -errno, "key file '%s': %s", path, err_str(-errno));
    out->len = 0;
    while ((n = read(fd, out->data + out->len, CLI_KEY_MAX - out->len)) > 0)
        out->len += (size_t)n;
    if (n < 0)
        rc = err_set(why, -errno, "key file '%s': %s", path, err_str(-errno));
    else if (read(fd, &more, 1) > 0)
        rc = err_set(why, -ENAMETOOLONG, "key file '%s' has more than %u bytes", path, CLI_KEY_MAX);
    close(fd);
    return rc;
}

int cli_key_parse(const char *text, bool empty_ok, struct cli_key *out, struct err *why)
{
    size_t len = strlen(text);
    int rc;

    if (text[0] == '@') {
        rc = key_from_file(text + 1, out, why);
        if (rc < 0)
            return rc;
    } else if (strncmp(text, "hex:", 4) == 0) {
        rc = bytes_from_hex(text + 4, len - 4, out->data, CLI_KEY_MAX);
        if (rc == -E2BIG)
            return err_set(why, -ENAMETOOLONG, "key '%.40s...' has more than %u bytes", text,
                           CLI_KEY_MAX);
        if (rc < 0)
            return err_set(why, -EINVAL,
                           "key '%.80s': after hex: an even number of digits 0-9, A-F", text);
        out->len = (size_t)rc;
    } else {
        if (len > CLI_KEY_MAX)
            return err_set(why, -ENAMETOOLONG, "key '%.40s...' has %zu bytes, more than %u", text,
                           len, CLI_KEY_MAX);
        memcpy(out->data, text, len);
        out->len = len;
    }
    if (out->len == 0 && !empty_ok)
        return err_set(why, -EINVAL, "a key has at least one byte");
    return 0;
}

/* Bytes of the UTF-8 character at p; 0 when it is none, or one that a terminal must not see. */
static size_t printable_utf8(const uint8_t *p, size_t left)
{
    uint32_t min, c;
    size_t n;

    if (p[0] < 0x80)
        return p[0] >= 0x20 && p[0] != 0x7f;
    if ((p[0] & 0xe0) == 0xc0) {
        n = 2, c = p[0] & 0x1f, min = 0xa0; /* below: control characters */
    } else if ((p[0] & 0xf0) == 0xe0) {
        n = 3, c = p[0] & 0x0f, min = 0x800;
    } else if ((p[0] & 0xf8) == 0xf0) {
        n = 4, c = p[0] & 0x07, min = 0x10000;
    } else {
        return 0;
    }
    if (n > left)
        return 0;
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    return c >= min && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) ? n : 0;
}

static bool reads_back(struct bytes key)
{
    size_t at = 0, n;

    if (key.len == 0 || key.ptr[0] == '@' || bytes_has_prefix(key, bytes_of_str("hex:")))
        return false;
    while (at < key.len) {
        n = printable_utf8(key.ptr + at, key.len - at);
        if (n == 0)
            return false;
        at += n;
    }
    return true;
}

const char *cli_key_text(struct bytes key, char *out)
{
    if (reads_back(key)) {
        memcpy(out, key.ptr, key.len);
        out[key.len] = '\0';
        return out;
    }
    memcpy(out, "hex:", 4);
    bytes_to_hex(key, out + 4);
    return out;
}

void cli_key_json(json_t *obj, struct bytes key)
{
    static char text[CLI_KEY_TEXT_MAX]; /* one reactor prints */

    json_object_set_new(obj, "key", json_string(cli_key_text(key, text)));
    bytes_to_hex(key, text);
    json_object_set_new(obj, "hex", json_string(text));
}
