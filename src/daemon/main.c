/* SPDX-License-Identifier: Apache-2.0 */
/* kvasird: the daemon of a configuration file. */
#include "base/log.h"
#include "config.h"
#include "daemon/daemon.h"
#include "daemon/runtime_opts.h"

#include <grp.h>
#include <pwd.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define EXIT_USAGE 2

static const struct opt main_opts[] = {
    {"config", 'c', OPT_FILE, false, "FILE", NULL, "what to serve, see kvasird.json(5)"},
    {"check", 0, OPT_FLAG, false, NULL, NULL, "look for mistakes in the configuration and end"},
    RUNTIME_OPTS,
    {"socket", 0, OPT_FILE, false, "PATH", NULL,
     "answer kvasir check and kvasir stats there, by JSON-RPC"},
    {"pid-file", 0, OPT_FILE, false, "FILE", NULL, "where to write the process id while serving"},
    {"user", 0, OPT_STR, false, "NAME", NULL,
     "become this user, and the groups it is in, once everything is open"},
    {"json", 0, OPT_FLAG, false, NULL, NULL, "tell the addresses as JSON, one object a line"},
    {"quiet", 'q', OPT_FLAG, false, NULL, NULL, "log warnings and errors only"},
    {"verbose", 'v', OPT_FLAG, false, NULL, NULL, "log everything"},
    {"version", 'V', OPT_FLAG, false, NULL, NULL, "print the version"},
    {"help", 'h', OPT_FLAG, false, NULL, NULL, "this text"},
    {NULL},
};

struct program {
    struct opts opts;
    json_t *config;
    const struct passwd *user; /* NULL: stay who we are */
    const char *pid_file;
};

/* All or nothing: a daemon that keeps root's groups has not become the user. */
static int become_user(const struct passwd *user)
{
    if (initgroups(user->pw_name, user->pw_gid) < 0 || setgid(user->pw_gid) < 0 ||
        setuid(user->pw_uid) < 0)
        return -errno;
    return setuid(0) == 0 && user->pw_uid != 0 ? -EPERM : 0;
}

/* Tells the service manager, when one waits for it (sd_notify's protocol). */
static void notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    size_t len = path != NULL ? strlen(path) : 0;
    int fd;

    if (len == 0 || len >= sizeof(addr.sun_path))
        return;
    memcpy(addr.sun_path, path, len);
    if (path[0] == '@')
        addr.sun_path[0] = '\0';
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    sendto(fd, state, strlen(state), MSG_NOSIGNAL | MSG_DONTWAIT, (struct sockaddr *)&addr,
           (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
    close(fd);
}

static int write_pid_file(const char *path)
{
    FILE *f = fopen(path, "we");

    if (f == NULL)
        return -errno;
    fprintf(f, "%ld\n", (long)getpid());
    return fclose(f) == 0 ? 0 : -errno;
}

static int ready(struct rt_task *t, struct daemon *d, void *arg)
{
    struct program *p = arg;
    const char *pid_file = opt_str(&p->opts, "pid-file");
    struct daemon_listener *l;
    int rc = 0;

    if (pid_file != NULL)
        rc = write_pid_file(pid_file);
    if (rc < 0) {
        log_error("pid file '%s': %s", pid_file, err_str(rc));
        return rc;
    }
    p->pid_file = pid_file;
    if (p->user != NULL)
        rc = become_user(p->user);
    if (rc < 0) {
        log_error("cannot become user '%s': %s", p->user->pw_name, err_str(rc));
        return rc;
    }
    list_for_each (l, &d->listeners, struct daemon_listener, link)
        log_info("listening on %s", l->actual);
    if (list_empty(&d->listeners))
        log_warn("nothing listens: the configuration has no nvmf_subsystem_add_listener");
    daemon_print_listening(d, stdout, opt_flag(&p->opts, "json"));
    notify("READY=1");
    return 0;
}

static int main_task(struct rt_task *t, void *arg)
{
    struct program *p = arg;
    struct daemon_run run = {
        .config = p->config, .socket = opt_str(&p->opts, "socket"), .ready = ready, .arg = p};
    struct err why = {""};
    int rc;

    log_info("version %s, %u reactors on %s", KVASIR_VERSION, rt_reactors(), rt_backend_name());
    rc = daemon_run(t, &run, &why);
    if (why.text[0] != '\0')
        log_error("%s: %s", opt_str(&p->opts, "config"), why.text);
    notify("STOPPING=1");
    return rc;
}

static int usage(const char *text)
{
    fprintf(stderr, "kvasird: %s\nusage: kvasird -c FILE [options]   (kvasird --help tells more)\n",
            text);
    return EXIT_USAGE;
}

static int help(void)
{
    printf("kvasird -c FILE [options]\n\nServes key-value and block devices over NVMe/TCP.\n\n");
    opts_print_help(stdout, main_opts);
    return 0;
}

static int find_user(struct program *p)
{
    const char *name = opt_str(&p->opts, "user");

    if (name == NULL)
        return 0;
    p->user = getpwnam(name);
    if (p->user == NULL) {
        fprintf(stderr, "kvasird: there is no user '%s'\n", name);
        return -ENOENT;
    }
    if (geteuid() != 0 && geteuid() != p->user->pw_uid) {
        fprintf(stderr, "kvasird: only root can become user '%s'\n", name);
        return -EPERM;
    }
    if (geteuid() == p->user->pw_uid)
        p->user = NULL;
    return 0;
}

static int run(struct program *p)
{
    static char progname[] = "kvasird";
    struct rt_config cfg = {0};
    struct err why = {""};
    int rc;

    log_set_sink(log_to_stderr, progname,
                 opt_flag(&p->opts, "verbose") ? LOG_DEBUG
                 : opt_flag(&p->opts, "quiet") ? LOG_WARN
                                               : LOG_INFO);
    if (runtime_opts(&p->opts, &cfg, &why) < 0)
        return usage(why.text);
    if (find_user(p) < 0)
        return EXIT_USAGE;
    runtime_block_signals();
    rc = rt_run(&cfg, main_task, p, &why);
    if (why.text[0] != '\0')
        log_error("%s", why.text);
    if (p->pid_file != NULL)
        unlink(p->pid_file);
    return rc < 0 ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    static struct program p;
    struct err why = {""};
    int rc;

    if (opts_parse(&p.opts, main_opts, NULL, argc, argv, &why) < 0)
        return usage(why.text);
    if (opt_flag(&p.opts, "help"))
        return help();
    if (opt_flag(&p.opts, "version")) {
        printf("kvasird %s\n", KVASIR_VERSION);
        return 0;
    }
    if (p.opts.nargs > 0)
        return usage("there are no arguments, only options");
    if (opt_str(&p.opts, "config") == NULL)
        return usage("which configuration? -c FILE (kvasir serve does without)");
    rc = daemon_load(opt_str(&p.opts, "config"), &p.config, &why);
    if (rc == 0)
        rc = daemon_check(p.config, &why);
    if (rc < 0) {
        fprintf(stderr, "kvasird: %s: %s\n", opt_str(&p.opts, "config"), why.text);
        rc = EXIT_USAGE;
    } else if (opt_flag(&p.opts, "check")) {
        printf("%s: no mistake found\n", opt_str(&p.opts, "config"));
    } else {
        rc = run(&p);
    }
    json_decref(p.config);
    return rc;
}
