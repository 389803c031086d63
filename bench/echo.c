/* SPDX-License-Identifier: Apache-2.0 */
/*
 * echo [--in BYTES] [--out BYTES] [--depth N] [--conns N] [--seconds S] [--server CPU]
 *      [--client CPU]
 *
 * The limit that a server over TCP can be measured against: two processes that poll sockets on the
 * loopback interface and do nothing else. For each message of `in` bytes the server returns one of
 * `out` bytes; the client keeps `depth` of them under way on each connection. No protocol, no
 * allocation, every message that has arrived is answered by one send. Prints one JSON object.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CONNS_MAX 1024
#define BUF_BYTES (1u << 20)

struct opts {
    size_t in, out;
    unsigned depth, conns;
    double seconds;
    int server_cpu, client_cpu;
};

/* One end of one connection. */
struct end {
    int fd;
    size_t partial; /* bytes of a message that is coming in */
    size_t due;     /* bytes still to be sent */
};

static uint8_t in_buf[BUF_BYTES], out_buf[BUF_BYTES];

static void die(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

static void pin(int cpu)
{
    cpu_set_t set;

    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (cpu >= 0 && sched_setaffinity(0, sizeof(set), &set) != 0)
        perror("echo: not pinned");
}

static void send_due(struct end *e)
{
    while (e->due > 0) {
        size_t n = e->due < BUF_BYTES ? e->due : BUF_BYTES;
        ssize_t sent = send(e->fd, out_buf, n, MSG_DONTWAIT | MSG_NOSIGNAL);

        if (sent < 0 && errno == EAGAIN)
            return;
        if (sent < 0 && (errno == ECONNRESET || errno == EPIPE)) {
            e->due = 0; /* the next receive will say so */
            return;
        }
        if (sent < 0)
            die("echo: send");
        e->due -= (size_t)sent;
    }
}

/* Takes in what is there, once: how many messages of `len` bytes have become whole. -1: the end. */
static long receive(struct end *e, size_t len)
{
    ssize_t n = recv(e->fd, in_buf, BUF_BYTES, MSG_DONTWAIT);
    long whole;

    if (n == 0 || (n < 0 && (errno == ECONNRESET || errno == EPIPE)))
        return -1;
    if (n < 0 && errno == EAGAIN)
        return 0;
    if (n < 0)
        die("echo: recv");
    e->partial += (size_t)n;
    whole = (long)(e->partial / len);
    e->partial %= len;
    return whole;
}

/* Answers until the client has closed every connection. */
static void serve(const struct opts *o, struct end *ends)
{
    unsigned open = o->conns;

    while (open > 0) {
        for (unsigned i = 0; i < o->conns; i++) {
            struct end *e = &ends[i];
            long n;

            if (e->fd < 0)
                continue;
            n = receive(e, o->in);
            if (n < 0) {
                close(e->fd);
                e->fd = -1;
                open--;
                continue;
            }
            e->due += (size_t)n * o->out;
            if (e->due > 0)
                send_due(e);
        }
    }
}

/* Keeps `depth` messages under way for `seconds`; how many were answered. */
static uint64_t drive(const struct opts *o, struct end *ends, double seconds)
{
    double until = now() + seconds;
    uint64_t done = 0;

    do {
        for (unsigned turn = 0; turn < 64; turn++) {
            for (unsigned i = 0; i < o->conns; i++) {
                struct end *e = &ends[i];
                long n = receive(e, o->out);

                if (n < 0)
                    die("echo: the server has gone");
                done += (uint64_t)n;
                e->due += (size_t)n * o->in;
                if (e->due > 0)
                    send_due(e);
            }
        }
    } while (now() < until);
    return done;
}

static int listen_somewhere(struct sockaddr_in *addr)
{
    socklen_t len = sizeof(*addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    *addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || bind(fd, (struct sockaddr *)addr, len) != 0 || listen(fd, CONNS_MAX) != 0 ||
        getsockname(fd, (struct sockaddr *)addr, &len) != 0)
        die("echo: listen");
    return fd;
}

static void tune(int fd)
{
    int one = 1;

    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) != 0)
        die("echo: TCP_NODELAY");
}

static pid_t start_server(const struct opts *o, int listener, struct end *ends)
{
    pid_t pid = fork();

    if (pid < 0)
        die("echo: fork");
    if (pid > 0)
        return pid;
    pin(o->server_cpu);
    for (unsigned i = 0; i < o->conns; i++) {
        ends[i] = (struct end){.fd = accept(listener, NULL, NULL)};
        if (ends[i].fd < 0)
            die("echo: accept");
        tune(ends[i].fd);
    }
    serve(o, ends);
    _exit(0);
}

static bool parse(int argc, char **argv, struct opts *o)
{
    static const struct option names[] = {
        {"in", required_argument, NULL, 'i'},      {"out", required_argument, NULL, 'o'},
        {"depth", required_argument, NULL, 'd'},   {"conns", required_argument, NULL, 'c'},
        {"seconds", required_argument, NULL, 't'}, {"server", required_argument, NULL, 'S'},
        {"client", required_argument, NULL, 'C'},  {NULL, 0, NULL, 0},
    };

    for (int c; (c = getopt_long(argc, argv, "", names, NULL)) != -1;) {
        switch (c) {
        case 'i':
            o->in = strtoull(optarg, NULL, 0);
            break;
        case 'o':
            o->out = strtoull(optarg, NULL, 0);
            break;
        case 'd':
            o->depth = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 'c':
            o->conns = (unsigned)strtoul(optarg, NULL, 0);
            break;
        case 't':
            o->seconds = strtod(optarg, NULL);
            break;
        case 'S':
            o->server_cpu = atoi(optarg);
            break;
        case 'C':
            o->client_cpu = atoi(optarg);
            break;
        default:
            return false;
        }
    }
    return optind == argc && o->in > 0 && o->out > 0 && o->depth > 0 && o->conns > 0 &&
           o->conns <= CONNS_MAX && o->seconds > 0;
}

int main(int argc, char **argv)
{
    static struct end ends[CONNS_MAX];
    struct opts o = {.in = 72,
                     .out = 4120,
                     .depth = 32,
                     .conns = 1,
                     .seconds = 1,
                     .server_cpu = 0,
                     .client_cpu = 1};
    struct sockaddr_in addr;
    uint64_t done;
    double begin;
    int listener;
    pid_t server;

    if (!parse(argc, argv, &o)) {
        fprintf(stderr, "echo [--in BYTES] [--out BYTES] [--depth N] [--conns N] [--seconds S] "
                        "[--server CPU] [--client CPU]\n");
        return 2;
    }
    listener = listen_somewhere(&addr);
    server = start_server(&o, listener, ends);
    pin(o.client_cpu);
    for (unsigned i = 0; i < o.conns; i++) {
        ends[i] = (struct end){.fd = socket(AF_INET, SOCK_STREAM, 0), .due = o.in * o.depth};
        if (ends[i].fd < 0 || connect(ends[i].fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
            die("echo: connect");
        tune(ends[i].fd);
    }
    drive(&o, ends, o.seconds / 5); /* to warm up */
    begin = now();
    done = drive(&o, ends, o.seconds);
    begin = now() - begin;
    for (unsigned i = 0; i < o.conns; i++)
        close(ends[i].fd);
    if (waitpid(server, NULL, 0) != server)
        die("echo: wait");
    printf("{\"iops\": %.0f, \"in\": %zu, \"out\": %zu, \"depth\": %u, \"conns\": %u}\n",
           (double)done / begin, o.in, o.out, o.depth, o.conns);
    return 0;
}
