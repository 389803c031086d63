/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A worker program that does not run queries: it speaks wire.h, rightly or in the ways in which a
 * broken or hostile one may. The test program is it when it is started with --engine MODE, so
 * that the service starts it as it starts the real one.
 */
#ifndef KVASIR_VIRT_QUERY_TEST_WORKER_H
#define KVASIR_VIRT_QUERY_TEST_WORKER_H

/** Returns when the arguments are not those of a zygote. */
void test_worker_main(int argc, char **argv);

#endif
