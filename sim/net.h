/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Virtual TCP between the machines of a world. A connection is two directions; each is a ring of
 * bytes that the sender fills and the receiver empties, between them segments that arrive later,
 * cut anywhere. The ring is bounded, and the sender hears of freed room a while after it was freed.
 */
#ifndef KVASIR_SIM_NET_H
#define KVASIR_SIM_NET_H

#include "sim/world.h"

int sim_net_listen(struct rt_sock *s, const struct sockaddr *addr, socklen_t len, int backlog);
int sim_net_accept(struct rt_sock *s);
int sim_net_attach(struct rt_sock *s, int fd);
void sim_net_discard(int fd);
int sim_net_connect(struct rt_sock *s, const struct sockaddr *addr, socklen_t len);
int sim_net_connected(struct rt_sock *s);
ssize_t sim_net_recv(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt);
ssize_t sim_net_send(struct rt_sock *s, const struct iovec *iov, unsigned iovcnt);
void sim_net_arm(struct rt_sock *s);
int sim_net_addr(const struct rt_sock *s, bool peer, struct sockaddr_storage *out);
void sim_net_shutdown(struct rt_sock *s);
void sim_net_close(struct rt_sock *s);

/** The address of a machine, as text: "10.0.0.1:4420". */
void sim_net_addr_text(const struct sim_machine *m, uint16_t port, char *out, size_t max);

/** Nothing arrives between two machines until then; it arrives afterwards. */
void sim_net_partition(struct sim_machine *a, struct sim_machine *b, uint64_t for_ns);

/** Resets one established connection, any; false when there is none. */
bool sim_net_reset_one(void);

/** A machine's runtime has ended. By power: its peers hear nothing before it boots again. */
void sim_net_crash(struct sim_machine *m, bool power);

/** Frees what is left of the connections of a world. */
void sim_net_fini(void);

#endif
