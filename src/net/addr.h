/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses as people write them: "127.0.0.1:4420", "[::1]:4420", "storage.example:4420". */
#ifndef KVASIR_NET_ADDR_H
#define KVASIR_NET_ADDR_H

#include "rt/sock.h"

#define NET_ADDR_TEXT_MAX 300 /* host name, brackets, port, NUL */

struct net_addr {
    struct sockaddr_storage ss;
    socklen_t len;
};

/** Splits "host:port" or "[v6]:port"; without a port it is default_port, if not 0. 0, -EINVAL. */
int net_addr_split(const char *text, uint16_t default_port, char *out_host, size_t host_max,
                   uint16_t *out_port, struct err *why);
/** Numeric addresses only; never waits. 0 or -EINVAL. */
int net_addr_parse(const char *text, uint16_t default_port, struct net_addr *out, struct err *why);
/** Numeric or a name (looked up in the offload pool). 0, -EINVAL, -ENOENT no such host. */
int net_addr_resolve(struct rt_task *t, const char *text, uint16_t default_port,
                     struct net_addr *out, struct err *why);
/** "1.2.3.4:5" or "[::1]:5" into out (NET_ADDR_TEXT_MAX). */
void net_addr_text(const struct net_addr *a, char *out);
/** Host part only, without brackets. */
void net_addr_host_text(const struct net_addr *a, char *out, size_t max);
uint16_t net_addr_port(const struct net_addr *a);

#endif
