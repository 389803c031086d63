/* SPDX-License-Identifier: Apache-2.0 */
/* Text to socket addresses and back. Only net_addr_resolve() may ask a name server. */
#include "net/addr.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

static int parse_port(const char *text, uint16_t *out_port)
{
    unsigned port = 0;

    if (*text == '\0')
        return -EINVAL;
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9')
            return -EINVAL;
        port = port * 10 + (unsigned)(*text - '0');
        if (port > 65535)
            return -EINVAL;
    }
    *out_port = (uint16_t)port;
    return 0;
}

int net_addr_split(const char *text, uint16_t default_port, char *out_host, size_t host_max,
                   uint16_t *out_port, struct err *why)
{
    const char *host = text, *host_end, *port;
    uint16_t number = default_port;
    size_t len;

    if (*text == '[') {
        host = text + 1;
        host_end = strchr(host, ']');
        if (host_end == NULL)
            return err_set(why, -EINVAL, "address '%.200s': ']' is missing", text);
        port = host_end + 1;
    } else {
        host_end = strchr(text, ':');
        if (host_end == NULL)
            host_end = text + strlen(text);
        else if (strchr(host_end + 1, ':') != NULL)
            return err_set(why, -EINVAL,
                           "address '%.200s': write an IPv6 address as [address]:port", text);
        port = host_end;
    }
    len = (size_t)(host_end - host);
    if (len == 0 || len >= host_max)
        return err_set(why, -EINVAL, "address '%.200s': the host is %s", text,
                       len == 0 ? "missing" : "too long");
    if (*port == '\0' && default_port == 0)
        return err_set(why, -EINVAL, "address '%.200s': the port is missing", text);
    if (*port != '\0' && (*port != ':' || parse_port(port + 1, &number) < 0))
        return err_set(why, -EINVAL, "address '%.200s': '%.32s' is not a port", text, port);
    memcpy(out_host, host, len);
    out_host[len] = '\0';
    *out_port = number;
    return 0;
}

static int parse_numeric(const char *host, uint16_t port, struct net_addr *out)
{
    struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
    struct sockaddr_in v4 = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
    struct addrinfo *found;

    *out = (struct net_addr){0};
    if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
        memcpy(&out->ss, &v4, sizeof(v4));
        out->len = sizeof(v4);
        return 0;
    }
    if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
        memcpy(&out->ss, &v6, sizeof(v6));
        out->len = sizeof(v6);
        return 0;
    }
    /* fe80::1%eth0: the scope is an interface of this machine, no name server is asked. */
    if (strchr(host, '%') == NULL || getaddrinfo(host, NULL, &hints, &found) != 0)
        return -EINVAL;
    memcpy(&out->ss, found->ai_addr, found->ai_addrlen);
    out->len = found->ai_addrlen;
    ((struct sockaddr_in6 *)&out->ss)->sin6_port = htons(port);
    freeaddrinfo(found);
    return 0;
}

int net_addr_parse(const char *text, uint16_t default_port, struct net_addr *out, struct err *why)
{
    char host[NET_ADDR_TEXT_MAX];
    struct net_addr addr;
    uint16_t port;
    int rc;

    rc = net_addr_split(text, default_port, host, sizeof(host), &port, why);
    if (rc < 0)
        return rc;
    if (parse_numeric(host, port, &addr) < 0)
        return err_set(why, -EINVAL, "'%.200s' is not a numeric address", host);
    *out = addr;
    return 0;
}

struct lookup {
    const char *host;
    uint16_t port;
    struct net_addr addr;
};

static int lookup_offload(void *arg)
{
    struct lookup *l = arg;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_ADDRCONFIG};
    struct addrinfo *found;
    char port[8];

    snprintf(port, sizeof(port), "%u", l->port);
    if (getaddrinfo(l->host, port, &hints, &found) != 0)
        return -ENOENT;
    memcpy(&l->addr.ss, found->ai_addr, found->ai_addrlen);
    l->addr.len = found->ai_addrlen;
    freeaddrinfo(found);
    return 0;
}

int net_addr_resolve(struct rt_task *t, const char *text, uint16_t default_port,
                     struct net_addr *out, struct err *why)
{
    char host[NET_ADDR_TEXT_MAX];
    struct lookup l = {.host = host};
    int rc;

    rc = net_addr_split(text, default_port, host, sizeof(host), &l.port, why);
    if (rc < 0)
        return rc;
    if (parse_numeric(host, l.port, out) == 0)
        return 0;
    rc = rt_offload(t, lookup_offload, &l);
    if (rc < 0)
        return err_set(why, rc, "no such host: '%.200s'", host);
    *out = l.addr;
    return 0;
}

void net_addr_host_text(const struct net_addr *a, char *out, size_t max)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)&a->ss;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&a->ss;
    char host[INET6_ADDRSTRLEN];

    if (a->ss.ss_family == AF_INET && inet_ntop(AF_INET, &v4->sin_addr, host, sizeof(host)) != NULL)
        snprintf(out, max, "%s", host);
    else if (a->ss.ss_family == AF_INET6 &&
             inet_ntop(AF_INET6, &v6->sin6_addr, host, sizeof(host)) != NULL)
        snprintf(out, max, "%s", host);
    else
        snprintf(out, max, "?");
}

void net_addr_text(const struct net_addr *a, char *out)
{
    char host[INET6_ADDRSTRLEN];
    bool v6 = a->ss.ss_family == AF_INET6;

    net_addr_host_text(a, host, sizeof(host));
    snprintf(out, NET_ADDR_TEXT_MAX, "%s%s%s:%u", v6 ? "[" : "", host, v6 ? "]" : "",
             net_addr_port(a));
}

uint16_t net_addr_port(const struct net_addr *a)
{
    if (a->ss.ss_family == AF_INET)
        return ntohs(((const struct sockaddr_in *)&a->ss)->sin_port);
    if (a->ss.ss_family == AF_INET6)
        return ntohs(((const struct sockaddr_in6 *)&a->ss)->sin6_port);
    return 0;
}
