/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/nvme_fabrics.h"

#include "base/bytes.h"

#include <errno.h>

/* --- names ------------------------------------------------------------------------------------ */

/* Length of the UTF-8 character at s, or 0 when it is none (overlong, surrogate, control). */
static size_t utf8_char_len(const uint8_t *s, size_t left)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    uint32_t c = s[0];
    size_t n;

    if (c < 0x80)
        return c >= 0x20 && c != 0x7f ? 1 : 0;
    n = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
    if (c < 0xc2 || c > 0xf4 || n > left)
        return 0;
    c &= 0x7fu >> n;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    return c >= least[n] && c <= 0x10ffff && (c < 0xd800 || c > 0xdfff) ? n : 0;
}

static bool is_digits(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
    }
    return true;
}

static bool utf8_ok(const char *s, size_t len)
{
    for (size_t i = 0; i < len;) {
        size_t n = utf8_char_len((const uint8_t *)s + i, len - i);

        if (n == 0)
            return false;
        i += n;
    }
    return true;
}

static bool nqn_bytes_ok(const char *s, size_t len)
{
    const size_t fixed = strlen("nqn.yyyy-mm.");

    if (len <= fixed || len > NVME_NQN_MAX)
        return false;
    if (memcmp(s, "nqn.", 4) != 0 || !is_digits(s + 4, 4) || s[8] != '-' || !is_digits(s + 9, 2) ||
        s[11] != '.')
        return false;
    return utf8_ok(s, len);
}

bool nvme_nqn_field_ok(const char *field)
{
    return nqn_bytes_ok(field, strnlen(field, NVME_NQN_FIELD));
}

bool nvme_nqn_field_printable(const char *field)
{
    size_t len = strnlen(field, NVME_NQN_FIELD);

    return len <= NVME_NQN_MAX && utf8_ok(field, len);
}

bool nvme_nqn_ok(const char *nqn)
{
    return nqn_bytes_ok(nqn, strnlen(nqn, NVME_NQN_FIELD));
}

const char *nvme_fctype_name(uint8_t fctype)
{
    switch (fctype) {
    case NVME_FC_PROPERTY_SET:
        return "property set";
    case NVME_FC_CONNECT:
        return "connect";
    case NVME_FC_PROPERTY_GET:
        return "property get";
    case NVME_FC_AUTH_SEND:
        return "authentication send";
    case NVME_FC_AUTH_RECEIVE:
        return "authentication receive";
    case NVME_FC_DISCONNECT:
        return "disconnect";
    default:
        return "unknown";
    }
}

/* --- Connect ---------------------------------------------------------------------------------- */

static uint16_t bad_param(uint32_t *out_dw0, size_t offset, uint32_t iattr)
{
    *out_dw0 = (uint32_t)offset | iattr;
    return NVME_SC_CONNECT_INVALID_PARAM | NVME_SC_DNR;
}

#define BAD_SQE(dw0, field) bad_param(dw0, offsetof(struct nvme_connect_cmd, field), 0)
#define BAD_DATA(dw0, field)                                                                       \
    bad_param(dw0, offsetof(struct nvme_connect_data, field), NVME_CONNECT_IATTR_DATA)

uint16_t nvme_connect_check(const struct nvme_connect_cmd *cmd, const void *data, size_t data_len,
                            uint32_t *out_dw0)
{
    const struct nvme_connect_data *d = data;
    bool admin = le16_get(cmd->qid) == 0;
    uint16_t cntlid;

    *out_dw0 = 0;
    if (le16_get(cmd->recfmt) != 0)
        return NVME_SC_CONNECT_FORMAT | NVME_SC_DNR;
    if (data_len < sizeof(*d))
        return NVME_SC_SGL_INVALID_LENGTH | NVME_SC_DNR;
    if (le16_get(cmd->sqsize) == 0)
        return BAD_SQE(out_dw0, sqsize);
    cntlid = le16_get(d->cntlid);
    if (admin ? cntlid != NVME_CNTLID_DYNAMIC
              : cntlid < NVME_CNTLID_MIN || cntlid > NVME_CNTLID_MAX)
        return BAD_DATA(out_dw0, cntlid);
    if (!nvme_nqn_field_printable(d->subnqn))
        return BAD_DATA(out_dw0, subnqn);
    if (!nvme_nqn_field_printable(d->hostnqn))
        return BAD_DATA(out_dw0, hostnqn);
    return NVME_SC_SUCCESS;
}

/* --- discovery log ---------------------------------------------------------------------------- */

int nvme_discovery_count(const void *log, size_t len, uint64_t *out_genctr, uint64_t *out_numrec)
{
    const struct nvme_discovery_head *head = log;
    uint64_t here;

    if (len < sizeof(*head) || le16_get(head->recfmt) != 0)
        return -EBADMSG;
    here = (len - sizeof(*head)) / sizeof(struct nvme_discovery_entry);
    *out_genctr = le64_get(head->genctr);
    *out_numrec = le64_get(head->numrec);
    return (int)MIN(MIN(here, *out_numrec), (uint64_t)INT32_MAX);
}

/* Copies a padded ASCII field: up to NUL, without spaces at the end. `out` has one byte more. */
static bool ascii_field_get(char *out, const char *field, size_t len)
{
    size_t n = strnlen(field, len);

    while (n > 0 && field[n - 1] == ' ')
        n--;
    for (size_t i = 0; i < n; i++) {
        if (field[i] <= ' ' || field[i] > '~')
            return false;
    }
    memcpy(out, field, n);
    out[n] = '\0';
    return true;
}

static bool ascii_field_put(char *field, size_t len, const char *text)
{
    size_t n = strlen(text);

    if (n > len)
        return false;
    memset(field, ' ', len);
    memcpy(field, text, n);
    return true;
}

int nvme_discovery_decode(const struct nvme_discovery_entry *e, struct nvme_discovery_info *out)
{
    struct nvme_discovery_info info = {
        .trtype = e->trtype,
        .adrfam = e->adrfam,
        .subtype = e->subtype,
        .treq = e->treq,
        .sectype = e->trtype == NVME_TRTYPE_TCP ? e->tsas[0] : 0,
        .portid = le16_get(e->portid),
        .cntlid = le16_get(e->cntlid),
        .asqsz = le16_get(e->asqsz),
        .eflags = le16_get(e->eflags),
    };

    if (!nvme_nqn_field_ok(e->subnqn))
        return -EBADMSG;
    memcpy(info.subnqn, e->subnqn, strnlen(e->subnqn, NVME_NQN_FIELD - 1));
    if (!ascii_field_get(info.traddr, e->traddr, sizeof(e->traddr)) ||
        !ascii_field_get(info.trsvcid, e->trsvcid, sizeof(e->trsvcid)))
        return -EBADMSG;
    *out = info;
    return 0;
}

int nvme_discovery_encode(struct nvme_discovery_entry *e, const struct nvme_discovery_info *info)
{
    struct nvme_discovery_entry made = {
        .trtype = info->trtype,
        .adrfam = info->adrfam,
        .subtype = info->subtype,
        .treq = info->treq,
        .portid = le16_make(info->portid),
        .cntlid = le16_make(info->cntlid),
        .asqsz = le16_make(info->asqsz),
        .eflags = le16_make(info->eflags),
    };

    if (!nvme_nqn_ok(info->subnqn))
        return -EINVAL;
    memcpy(made.subnqn, info->subnqn, strlen(info->subnqn));
    if (!ascii_field_put(made.traddr, sizeof(made.traddr), info->traddr) ||
        !ascii_field_put(made.trsvcid, sizeof(made.trsvcid), info->trsvcid))
        return -EINVAL;
    made.tsas[0] = info->sectype;
    *e = made;
    return 0;
}
