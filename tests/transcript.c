/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/transcript.h"

#include "base/endian.h"
#include "base/util.h"
#include "proto/nvme_tcp.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#define FILE_MAX (64 * MIB)

struct pcap_head {    /* of the file */
    le32 magic;       /*  0  A1B2C3D4h */
    uint8_t rest[16]; /*  4 */
    le32 link_type;   /* 20  1: Ethernet */
};
struct pcap_record {
    le32 sec;    /*  0 */
    le32 usec;   /*  4 */
    le32 caplen; /*  8 */
    le32 len;    /* 12 */
};
#define ETHERNET_BYTES 14

/* One direction of a connection while it is read. */
struct flow {
    uint32_t next_seq;
    uint8_t *buf;
    size_t len;
    size_t cut; /* bytes that are already PDUs */
};

struct conn {
    struct flow flow[2]; /* [1] to the controller */
    struct transcript_conv conv;
    /* While reading a PDU's bytes are an offset: buffers move. */
    size_t pdus_max;
    uint32_t host_addr;
};

struct reader {
    struct conn *conns;
    size_t nconns;
    size_t npdus;
    struct err *why;
};

/* One TCP segment. */
struct segment {
    uint32_t host_addr;
    uint16_t host_port;
    bool to_controller;
    bool syn;
    uint32_t seq;
    struct bytes payload;
};

/* Takes an Ethernet frame apart. 1: a segment of NVMe/TCP; 0: something else. */
static int segment_decode(struct bytes frame, struct segment *out)
{
    const uint8_t *ip = frame.ptr + ETHERNET_BYTES;
    const uint8_t *tcp;
    size_t ip_len, ip_head, tcp_head;

    if (frame.len < ETHERNET_BYTES + 20 || be16_at(frame.ptr + 12) != 0x0800 || ip[9] != 6)
        return 0;
    ip_head = (ip[0] & 15u) * 4u;
    ip_len = be16_at(ip + 2);
    if (ip_len > frame.len - ETHERNET_BYTES || ip_len < ip_head + 20)
        return -EBADMSG;
    tcp = ip + ip_head;
    tcp_head = (tcp[12] >> 4) * 4u;
    if (ip_len < ip_head + tcp_head)
        return -EBADMSG;
    out->to_controller = be16_at(tcp + 2) == NVME_TCP_PORT;
    if (!out->to_controller && be16_at(tcp) != NVME_TCP_PORT)
        return 0;
    out->host_port = be16_at(out->to_controller ? tcp : tcp + 2);
    out->host_addr = be32_at(out->to_controller ? ip + 12 : ip + 16);
    out->syn = tcp[13] & 2;
    out->seq = be32_at(tcp + 4);
    out->payload = bytes_make(tcp + tcp_head, ip_len - ip_head - tcp_head);
    return 1;
}

/* The latest connection of that host port, or a new one when the host's SYN is seen. */
static struct conn *conn_of(struct reader *rd, const struct segment *seg)
{
    struct conn *grown;

    if (!(seg->syn && seg->to_controller)) {
        for (size_t i = rd->nconns; i-- > 0;) {
            if (rd->conns[i].conv.host_port == seg->host_port &&
                rd->conns[i].host_addr == seg->host_addr)
                return &rd->conns[i];
        }
        return NULL;
    }
    grown = realloc(rd->conns, (rd->nconns + 1) * sizeof(*grown));
    if (grown == NULL)
        return NULL;
    rd->conns = grown;
    grown[rd->nconns] =
        (struct conn){.conv.host_port = seg->host_port, .host_addr = seg->host_addr};
    return &grown[rd->nconns++];
}

static int add_pdu(struct reader *rd, struct conn *c, bool to_controller, size_t off, size_t len)
{
    struct transcript_conv *conv = &c->conv;

    if (conv->npdus == c->pdus_max) {
        size_t max = MAX(c->pdus_max * 2, 64u);
        struct transcript_pdu *grown = realloc(conv->pdus, max * sizeof(*grown));

        if (grown == NULL)
            return -ENOMEM;
        conv->pdus = grown;
        c->pdus_max = max;
    }
    conv->pdus[conv->npdus++] = (struct transcript_pdu){
        .to_controller = to_controller,
        .order = rd->npdus++,
        .bytes = bytes_make((const void *)off, len),
    };
    return 0;
}

/* Cuts what has come in one direction into PDUs. */
static int cut_pdus(struct reader *rd, struct conn *c, bool to_controller)
{
    struct flow *f = &c->flow[to_controller];

    while (f->len - f->cut >= sizeof(struct nvme_tcp_ch)) {
        const struct nvme_tcp_ch *ch = (const void *)(f->buf + f->cut);
        size_t plen = le32_get(ch->plen);
        int rc;

        if (plen < sizeof(*ch) || plen > FILE_MAX)
            return -EBADMSG;
        if (plen > f->len - f->cut)
            return 0;
        rc = add_pdu(rd, c, to_controller, f->cut, plen);
        if (rc < 0)
            return rc;
        f->cut += plen;
    }
    return 0;
}

static int flow_add(struct reader *rd, struct conn *c, const struct segment *seg)
{
    struct flow *f = &c->flow[seg->to_controller];
    struct bytes p = seg->payload;
    uint32_t seen;
    uint8_t *grown;

    if (seg->syn) {
        f->next_seq = seg->seq + 1;
        return 0;
    }
    seen = f->next_seq - seg->seq; /* bytes of this segment that came before */
    if ((int32_t)seen < 0 && p.len > 0)
        return err_set(rd->why, -EBADMSG, "port %u: a hole before sequence number %u",
                       seg->host_port, seg->seq);
    if (p.len == 0 || seen >= p.len)
        return 0;
    grown = realloc(f->buf, f->len + p.len - seen);
    if (grown == NULL)
        return -ENOMEM;
    f->buf = grown;
    memcpy(grown + f->len, p.ptr + seen, p.len - seen);
    f->len += p.len - seen;
    f->next_seq += (uint32_t)(p.len - seen);
    if (cut_pdus(rd, c, seg->to_controller) < 0)
        return err_set(rd->why, -EBADMSG, "port %u: PLEN out of bounds", seg->host_port);
    return 0;
}

static int read_frames(struct reader *rd, struct bytes file)
{
    const struct pcap_head *head = (const void *)file.ptr;
    size_t off = sizeof(*head);

    if (file.len < off || le32_get(head->magic) != 0xa1b2c3d4 || le32_get(head->link_type) != 1)
        return err_set(rd->why, -EBADMSG, "no pcap file of Ethernet frames");
    while (file.len - off >= sizeof(struct pcap_record)) {
        const struct pcap_record *rec = (const void *)(file.ptr + off);
        size_t caplen = le32_get(rec->caplen);
        struct segment seg;
        struct conn *c;
        int rc;

        off += sizeof(*rec);
        if (caplen != le32_get(rec->len))
            return err_set(rd->why, -EBADMSG, "a packet was not recorded whole");
        if (caplen > file.len - off) /* the recorder was stopped while it wrote */
            break;
        rc = segment_decode(bytes_make(file.ptr + off, caplen), &seg);
        off += caplen;
        if (rc < 0)
            return err_set(rd->why, -EBADMSG, "a malformed TCP segment");
        c = rc > 0 ? conn_of(rd, &seg) : NULL;
        if (c == NULL)
            continue;
        rc = flow_add(rd, c, &seg);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* Reads and unpacks a file; the caller frees out->ptr. */
static int read_zst(const char *path, struct bytes *out, struct err *why)
{
    CLEANUP(free_p) void *packed = NULL;
    CLEANUP(free_p) void *raw = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st = {0};
    unsigned long long size;
    ssize_t got = -1;
    size_t n;

    if (fd < 0)
        return err_set(why, -errno, "%s: %s", path, strerrordesc_np(errno));
    if (fstat(fd, &st) == 0 && st.st_size <= (off_t)FILE_MAX)
        packed = malloc((size_t)st.st_size + 1);
    if (packed != NULL)
        got = read(fd, packed, (size_t)st.st_size);
    close(fd);
    if (got != st.st_size)
        return err_set(why, -EIO, "%s: cannot be read", path);
    size = ZSTD_getFrameContentSize(packed, (size_t)got);
    if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN || size > FILE_MAX)
        return err_set(why, -EBADMSG, "%s: no zstd file of known size", path);
    raw = malloc(size + 1);
    if (raw == NULL)
        return -ENOMEM;
    n = ZSTD_decompress(raw, size, packed, (size_t)got);
    if (ZSTD_isError(n))
        return err_set(why, -EBADMSG, "%s: %s", path, ZSTD_getErrorName(n));
    *out = bytes_make(take_ptr(&raw), n);
    return 0;
}

/* Offsets become pointers; the buffers stay for the transcript. */
static void conn_finish(struct conn *c)
{
    struct transcript_conv *conv = &c->conv;
    const uint8_t *base[2] = {c->flow[0].buf, c->flow[1].buf};

    for (size_t i = 0; i < conv->npdus; i++)
        conv->pdus[i].bytes.ptr =
            base[conv->pdus[i].to_controller] + (size_t)conv->pdus[i].bytes.ptr;
    for (unsigned d = 0; d < 2; d++)
        conv->cut_bytes += c->flow[d].len - c->flow[d].cut;
}

static void conv_free(struct transcript_conv *conv)
{
    bool freed[2] = {false, false};

    /* The first PDU of a direction begins its buffer. */
    for (size_t i = 0; i < conv->npdus; i++) {
        bool d = conv->pdus[i].to_controller;

        if (!freed[d])
            free((void *)(uintptr_t)conv->pdus[i].bytes.ptr);
        freed[d] = true;
    }
    free(conv->pdus);
}

int transcript_open(const char *path, struct transcript *out, struct err *why)
{
    struct reader rd = {.why = why};
    struct transcript tr = {0};
    struct bytes file = {0};
    int rc = read_zst(path, &file, why);

    if (rc < 0)
        return rc;
    rc = read_frames(&rd, file);
    free((void *)(uintptr_t)file.ptr);
    if (rc == 0)
        tr.convs = calloc(rd.nconns + 1, sizeof(*tr.convs));
    if (rc == 0 && tr.convs == NULL)
        rc = -ENOMEM;
    for (size_t i = 0; i < rd.nconns; i++) {
        struct conn *c = &rd.conns[i];

        conn_finish(c);
        for (unsigned d = 0; d < 2; d++) {
            if (c->flow[d].cut == 0) /* no PDU points into it */
                free(c->flow[d].buf);
        }
        if (rc == 0)
            tr.convs[tr.nconvs++] = c->conv;
        else
            conv_free(&c->conv);
    }
    free(rd.conns);
    if (rc == 0)
        *out = tr;
    return rc;
}

void transcript_close(struct transcript *tr)
{
    for (size_t i = 0; i < tr->nconvs; i++)
        conv_free(&tr->convs[i]);
    free(tr->convs);
    *tr = (struct transcript){0};
}
