/* SPDX-License-Identifier: Apache-2.0 */
/* Host NQN and host id: those of the machine, as nvme-cli keeps them, or made for this process. */
#include "nvme/internal.h"

#include "rt/io.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define UUID_TEXT 36

/* One line of a small file, without its end. -ENOENT when there is none that fits. */
static int read_line(struct rt_task *t, const char *path, char *out, size_t max)
{
    int fd = rt_open(t, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    ssize_t n;

    if (fd < 0)
        return fd == -ECANCELED || fd == -ETIMEDOUT ? fd : -ENOENT;
    n = rt_pread(t, fd, out, max - 1, 0);
    rt_close(t, fd);
    if (n <= 0)
        return -ENOENT;
    out[n] = '\0';
    out[strcspn(out, "\r\n")] = '\0';
    return 0;
}

static int uuid_parse(const char *text, uint8_t out[16])
{
    char hex[33];
    size_t n = 0;

    if (strlen(text) != UUID_TEXT)
        return -EINVAL;
    for (size_t i = 0; i < UUID_TEXT; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;

        if (dash != (text[i] == '-'))
            return -EINVAL;
        if (!dash)
            hex[n++] = text[i];
    }
    return bytes_from_hex(hex, n, out, 16) == 16 ? 0 : -EINVAL;
}

/* Bytes are in the order of the text. */
static void uuid_text(const uint8_t u[16], char out[UUID_TEXT + 1])
{
    snprintf(out, UUID_TEXT + 1,
             "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", u[0], u[1],
             u[2], u[3], u[4], u[5], u[6], u[7], u[8], u[9], u[10], u[11], u[12], u[13], u[14],
             u[15]);
}

/* Name-based: the same text gives the same id, in every process and release. */
static void id_of_text(const char *text, uint8_t out[16])
{
    uint64_t h[2] = {0xcbf29ce484222325ull, 0x9ae16a3b2f90404full};

    for (const char *c = text; *c != '\0'; c++) {
        for (int i = 0; i < 2; i++)
            h[i] = (h[i] ^ (uint8_t)*c) * 0x100000001b3ull + (uint64_t)i;
    }
    le64_put(out, h[0]);
    le64_put(out + 8, h[1]);
    out[6] = (uint8_t)((out[6] & 0x0f) | 0x80);
    out[8] = (uint8_t)((out[8] & 0x3f) | 0x80);
}

void nvme_host_id_of(const char *hostnqn, const char *our_hostnqn, const uint8_t our_hostid[16],
                     uint8_t out_hostid[16])
{
    size_t prefix = strlen(NVME_NQN_UUID_PREFIX);

    if (strcmp(hostnqn, our_hostnqn) == 0)
        memcpy(out_hostid, our_hostid, 16);
    else if (strncmp(hostnqn, NVME_NQN_UUID_PREFIX, prefix) != 0 ||
             uuid_parse(hostnqn + prefix, out_hostid) < 0)
        id_of_text(hostnqn, out_hostid);
}

/* The made-up id of this runtime: the same for all its controllers. */
static void made_up_id(uint8_t out[16])
{
    static const char key;
    struct made_up {
        atomic_int state; /* 0 nothing, 1 being made, 2 there */
        uint8_t uuid[16];
    } *m = rt_local(&key, sizeof(*m));
    int nothing = 0;

    if (atomic_compare_exchange_strong(&m->state, &nothing, 1)) {
        rt_random(m->uuid, sizeof(m->uuid));
        m->uuid[6] = (uint8_t)((m->uuid[6] & 0x0f) | 0x40);
        m->uuid[8] = (uint8_t)((m->uuid[8] & 0x3f) | 0x80);
        atomic_store(&m->state, 2);
    }
    while (atomic_load(&m->state) != 2)
        continue; /* another reactor is copying 16 bytes */
    memcpy(out, m->uuid, 16);
}

int nvme_host_identity(struct rt_task *t, char *out_hostnqn, uint8_t out_hostid[16])
{
    char line[NVME_NQN_FIELD], text[UUID_TEXT + 1];
    uint8_t uuid[16] = {0};
    int rc;

    rc = read_line(t, "/etc/nvme/hostnqn", line, sizeof(line));
    if (rc == -ECANCELED || rc == -ETIMEDOUT)
        return rc;
    if (rc == 0 && nvme_nqn_ok(line)) {
        snprintf(out_hostnqn, NVME_NQN_FIELD, "%s", line);
        rc = read_line(t, "/etc/nvme/hostid", line, sizeof(line));
        if (rc < 0 || uuid_parse(line, out_hostid) < 0)
            nvme_host_id_of(out_hostnqn, "", uuid, out_hostid);
        return 0;
    }
    made_up_id(uuid);
    uuid_text(uuid, text);
    snprintf(out_hostnqn, NVME_NQN_FIELD, NVME_NQN_UUID_PREFIX "%s", text);
    memcpy(out_hostid, uuid, 16);
    return 0;
}
