/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir: finds the verb, reads its options, starts the runtime, ends with its exit code. */
#include "cli/cli.h"

#include "base/log.h"
#include "daemon/runtime_opts.h"

#include <string.h>
#include <unistd.h>

/* Cancels the verb at the first signal: what it has begun is undone. The next one kills. */
static int signal_task(struct rt_task *t, void *arg)
{
    struct cli *c = arg;
    int fd = runtime_signals_open(false);
    int sig;

    if (fd < 0)
        return fd;
    sig = runtime_signals_next(t, fd);
    if (sig > 0) {
        c->signal = sig;
        rt_task_cancel(c->main_task);
        if (runtime_signals_next(t, fd) > 0)
            _exit(CLI_EXIT_SIGNAL + c->signal);
    }
    close(fd);
    return 0;
}

static int verb_task(struct rt_task *t, void *arg)
{
    struct cli *c = arg;

    return c->verb->run(t, c);
}

/* The root task: the verb and the signals beside each other. */
static int root_task(struct rt_task *t, void *arg)
{
    struct cli *c = arg;
    struct rt_task *signals = NULL;
    struct rt_req verb_done, signals_done;
    int rc;

    rt_req_init_task(&verb_done, t);
    rc = rt_task_start("verb", verb_task, c, &verb_done, &c->main_task);
    if (rc < 0)
        return rc;
    if (!c->verb->own_signals) {
        rt_req_init_task(&signals_done, t);
        if (rt_task_start("signals", signal_task, c, &signals_done, &signals) < 0)
            signals = NULL;
    }
    rc = rt_wait(t, &verb_done);
    if (signals != NULL) {
        rt_task_cancel(signals);
        rt_wait(t, &signals_done);
    }
    return rc;
}

static int run_verb(struct cli *c)
{
    struct rt_config cfg = {0};
    struct err why = {""};
    int rc;

    if (runtime_opts(&c->opts, &cfg, &why) < 0)
        return cli_usage(c, "%s", why.text);
    rc = c->verb->prepare != NULL ? c->verb->prepare(c, &cfg) : 0;
    if (rc < 0)
        return rc;
    runtime_block_signals();
    rc = rt_run(&cfg, root_task, c, &why);
    if (why.text[0] != '\0')
        cli_fail(c, rc, "%s", why.text);
    return rc;
}

static int finish(struct cli *c, int rc)
{
    int out_rc = cli_flush_now(c);

    free(c->out.buf);
    if (c->signal != 0 && rc < 0) {
        fprintf(stderr, "kvasir %s: interrupted\n", c->verb->name);
        return CLI_EXIT_SIGNAL + c->signal;
    }
    if (rc < 0 && !c->told)
        cli_fail(c, rc, "%s", err_str(rc));
    if (rc >= 0 && out_rc < 0 && out_rc != -EPIPE)
        cli_fail(c, out_rc, "standard output: %s", err_str(out_rc));
    return (int)cli_exit_of(rc < 0 ? rc : out_rc);
}

static int unknown_verb(const char *name)
{
    fprintf(stderr, "kvasir: there is no verb '%s'; there are:", name);
    for (unsigned i = 0; cli_verbs[i] != NULL; i++)
        fprintf(stderr, " %s", cli_verbs[i]->name);
    fputc('\n', stderr);
    return CLI_EXIT_USAGE;
}

/* "kvasir", "kvasir --help" and "kvasir --version" are verbs too. */
static const char *verb_name(int argc, char **argv)
{
    if (argc < 2 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return "help";
    if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0)
        return "version";
    return argv[1];
}

static int check_args(struct cli *c)
{
    if (c->opts.nargs < c->verb->args_min)
        return cli_usage(c, "something is missing after '%s'",
                         c->opts.nargs > 0 ? c->opts.args[c->opts.nargs - 1] : c->verb->name);
    if (c->opts.nargs > c->verb->args_max)
        return cli_usage(c, "'%s' is one too many", c->opts.args[c->verb->args_max]);
    return 0;
}

int main(int argc, char **argv)
{
    static struct cli c;
    static char progname[] = "kvasir";
    struct err why;
    const char *name = verb_name(argc, argv);
    int rc;

    c.verb = cli_verb_find(name);
    if (c.verb == NULL)
        return unknown_verb(name);
    if (argc > 1) {
        argc--;
        argv++;
    }
    rc = opts_parse(&c.opts, c.verb->opts, cli_verb_common(c.verb), argc, argv, &why);
    c.json = rc == 0 && opt_flag(&c.opts, "json");
    if (rc < 0) {
        cli_usage(&c, "%s", why.text);
        return CLI_EXIT_USAGE;
    }
    if (opt_flag(&c.opts, "help")) {
        cli_help_verb(&c, c.verb);
        return finish(&c, 0);
    }
    if (c.verb->run != NULL) {
        c.quiet = opt_flag(&c.opts, "quiet");
        c.verbosity = opt_flag(&c.opts, "verbose") ? 1 : 0;
        log_set_sink(log_to_stderr, progname, c.verbosity > 0 ? LOG_DEBUG : LOG_WARN);
    }
    rc = check_args(&c);
    if (rc == 0)
        rc = c.verb->plain != NULL ? c.verb->plain(&c) : run_verb(&c);
    return finish(&c, rc);
}
