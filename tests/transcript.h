/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Recorded NVMe/TCP conversations (tests/data/nvme-transcripts): reads a zstd-compressed pcap
 * file, puts the TCP streams together and cuts them into PDUs. It trusts PLEN and nothing else of
 * them, so that the codec under test is not also the judge.
 */
#ifndef KVASIR_TESTS_TRANSCRIPT_H
#define KVASIR_TESTS_TRANSCRIPT_H

#include "base/bytes.h"
#include "base/err.h"

struct transcript_pdu {
    bool to_controller;
    size_t order; /* among all PDUs of the file */
    struct bytes bytes;
};

/* One TCP connection. */
struct transcript_conv {
    uint16_t host_port;
    struct transcript_pdu *pdus; /* in the order in which they were complete on the wire */
    size_t npdus;
    size_t cut_bytes;            /* at the end of both directions: part of a PDU */
};

struct transcript {
    struct transcript_conv *convs;
    size_t nconvs;
};

/** Reads all of a file. -ENOENT, -EBADMSG (no such format, a hole in a stream), with text. */
int transcript_open(const char *path, struct transcript *out, struct err *why);
void transcript_close(struct transcript *tr);

#endif
