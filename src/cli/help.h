/* SPDX-License-Identifier: Apache-2.0 */
/* Help and manual pages from the tables of verbs, options, drivers and methods. */
#ifndef KVASIR_CLI_HELP_H
#define KVASIR_CLI_HELP_H

#include "base/param.h"
#include "cli/cli.h"

/**
 * Copies a manual page's template to standard output; a line "@NAME@" is replaced by what the
 * tables say: VERBS, COMMON, EXIT, DRIVERS, METHODS, DATE and VERSION (inside lines).
 */
int help_man(struct cli *c, const char *template_path);

/** "SIZE", "yes|no": what a driver's parameter takes. */
const char *help_param_type(const struct param *p);

#endif
