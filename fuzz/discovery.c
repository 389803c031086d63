/* SPDX-License-Identifier: Apache-2.0 */
/* A discovery log as an initiator gets it. */
#include "fuzz/fuzz.h"

#include "proto/nvme_fabrics.h"

static void check_entry(const struct nvme_discovery_entry *e)
{
    struct nvme_discovery_info info = {0}, again = {0};
    struct nvme_discovery_entry made;

    if (nvme_discovery_decode(e, &info) < 0)
        return;
    must(memchr(info.traddr, '\0', sizeof(info.traddr)) != NULL);
    must(memchr(info.trsvcid, '\0', sizeof(info.trsvcid)) != NULL);
    must(nvme_nqn_ok(info.subnqn));
    must(nvme_discovery_encode(&made, &info) == 0);
    must(nvme_discovery_decode(&made, &again) == 0);
    must(memcmp(&info, &again, sizeof(info)) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t input_len)
{
    struct input in = {input, input_len};
    size_t len;
    uint8_t *log = input_take(&in, in.left, &len);
    uint64_t genctr, numrec;
    int n = nvme_discovery_count(log, len, &genctr, &numrec);

    for (int i = 0; i < n; i++)
        check_entry((const void *)(log + sizeof(struct nvme_discovery_head) +
                                   (size_t)i * sizeof(struct nvme_discovery_entry)));
    if (len >= sizeof(struct nvme_discovery_entry)) /* entries are found without a head, too */
        check_entry((const void *)log);
    free(log);
    return 0;
}
