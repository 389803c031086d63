/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/nvme_uri.h"

#include <string.h>

static const char scheme[] = "nvme+tcp://";

static int parse_uri(const char *text, struct nvme_where *out, struct err *why)
{
    static struct uri uri; /* large; used between two waits */
    const char *host, *slash, *nsid;
    uint64_t v = 0;
    int rc = uri_parse(text, &uri, why);

    if (rc < 0)
        return rc;
    host = strncmp(uri.path, "//", 2) == 0 ? uri.path + 2 : uri.path;
    slash = strchr(host, '/');
    if (slash == NULL)
        slash = host + strlen(host);
    if (slash == host || (size_t)(slash - host) >= sizeof(out->addr) ||
        strlen(slash) >= sizeof(out->subnqn))
        return err_set(why, -EINVAL, "'%.160s' is not of the form nvme+tcp://HOST:PORT/NQN", text);
    memcpy(out->addr, host, (size_t)(slash - host));
    snprintf(out->subnqn, sizeof(out->subnqn), "%s", *slash == '/' ? slash + 1 : "");
    nsid = uri.query != NULL ? strstr(uri.query, "nsid=") : NULL;
    if (nsid != NULL) {
        char digits[12];

        snprintf(digits, sizeof(digits), "%.*s", (int)strcspn(nsid + 5, "&"), nsid + 5);
        if (parse_u64(digits, &v) < 0 || v == 0 || v >= UINT32_MAX)
            return err_set(why, -EINVAL, "nsid=%s is no namespace identifier", digits);
        out->nsid = (uint32_t)v;
    }
    return 0;
}

int nvme_where_parse(const char *text, struct nvme_where *out, struct err *why)
{
    *out = (struct nvme_where){.nsid = 0};
    if (strncmp(text, scheme, strlen(scheme)) == 0)
        return parse_uri(text, out, why);
    if (strstr(text, "://") != NULL || strlen(text) >= sizeof(out->addr))
        return err_set(why, -EINVAL, "'%.160s' is neither HOST:PORT nor nvme+tcp://HOST:PORT/NQN",
                       text);
    snprintf(out->addr, sizeof(out->addr), "%s", text);
    return 0;
}
