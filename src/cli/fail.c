/* SPDX-License-Identifier: Apache-2.0 */
/* Errors as the user sees them: exit codes, and lines on standard error. */
#include "cli/cli.h"

#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

enum cli_exit cli_exit_of(int rc)
{
    switch (-rc) {
    case EINVAL:
        return CLI_EXIT_USAGE;
    case ENOENT:
    case ENOTDIR:
    case ENXIO:
        return CLI_EXIT_NOT_FOUND;
    case EEXIST:
    case ESTALE:
        return CLI_EXIT_EXISTS;
    case ENOSPC:
    case EDQUOT:
        return CLI_EXIT_NO_SPACE;
    case EROFS:
    case EACCES:
    case EPERM:
        return CLI_EXIT_PERMISSION;
    case EBADMSG:
    case EILSEQ:
        return CLI_EXIT_CORRUPT;
    case ENODEV:
    case ECONNRESET:
    case ECONNREFUSED:
    case ECONNABORTED:
    case EHOSTUNREACH:
    case EHOSTDOWN:
    case ENETUNREACH:
    case ENETDOWN:
    case ENOTCONN:
    case EPROTO:
        return CLI_EXIT_CONNECTION;
    case ETIMEDOUT:
        return CLI_EXIT_TIMEOUT;
    case EBUSY:
    case EADDRINUSE:
        return CLI_EXIT_BUSY;
    case ENOTSUP:
        return CLI_EXIT_UNSUPPORTED;
    case EFBIG:
    case ENAMETOOLONG:
    case ERANGE:
        return CLI_EXIT_TOO_LARGE;
    case EPIPE:
        return CLI_EXIT_SIGNAL + SIGPIPE;
    default:
        return rc < 0 ? CLI_EXIT_FAILURE : CLI_EXIT_OK;
    }
}

const char *cli_exit_text(enum cli_exit code)
{
    switch (code) {
    case CLI_EXIT_OK:
        return "success";
    case CLI_EXIT_FAILURE:
        return "failure that is none of the others";
    case CLI_EXIT_USAGE:
        return "the command line, a URI or a configuration makes no sense";
    case CLI_EXIT_NOT_FOUND:
        return "no such key, file or device";
    case CLI_EXIT_EXISTS:
        return "the key or file exists already, or has another version";
    case CLI_EXIT_NO_SPACE:
        return "the device is full";
    case CLI_EXIT_PERMISSION:
        return "refused by permission or policy, or read-only";
    case CLI_EXIT_CORRUPT:
        return "corrupt data, or a comparison found a difference";
    case CLI_EXIT_CONNECTION:
        return "no connection, a broken one, or the device has gone";
    case CLI_EXIT_TIMEOUT:
        return "a time limit passed";
    case CLI_EXIT_BUSY:
        return "in use by another process or user";
    case CLI_EXIT_UNSUPPORTED:
        return "the device cannot do this";
    case CLI_EXIT_TOO_LARGE:
        return "key, value or range larger than the device takes";
    case CLI_EXIT_SIGNAL:
        return "plus the number of the signal that interrupted the work";
    }
    return "";
}

static void tell_json(const char *text, int rc)
{
    const char *code = strerrorname_np(-rc);
    json_t *obj = json_pack("{s:s%, s:s, s:i}", "error", text, strlen(text), "errno",
                            code != NULL ? code : "", "exit", (int)cli_exit_of(rc));
    char *line = obj != NULL ? json_dumps(obj, JSON_COMPACT) : NULL;

    /* A text that is no UTF-8 (a file's name) does not go into JSON. */
    fprintf(stderr, "%s\n", line != NULL ? line : "{\"error\":\"\"}");
    free(line);
    json_decref(obj);
}

static void tell(struct cli *c, int rc, const char *fmt, va_list args)
{
    char text[1024];

    c->told = true;
    vsnprintf(text, sizeof(text), fmt, args);
    if (c->json)
        tell_json(text, rc);
    else
        fprintf(stderr, "kvasir%s%s: %s\n", c->verb != NULL ? " " : "",
                c->verb != NULL ? c->verb->name : "", text);
}

int cli_fail(struct cli *c, int rc, const char *fmt, ...)
{
    va_list args;

    if ((rc == -ECANCELED && c->signal != 0) || rc == -EPIPE) {
        c->told = true; /* who interrupted us, or stopped reading, knows */
        return rc;
    }
    va_start(args, fmt);
    tell(c, rc, fmt, args);
    va_end(args);
    return rc;
}

int cli_usage(struct cli *c, const char *fmt, ...)
{
    va_list args;

    va_start(args, fmt);
    tell(c, -EINVAL, fmt, args);
    va_end(args);
    if (!c->json && c->verb != NULL)
        fprintf(stderr, "usage: kvasir %s [options] %s   (kvasir %s --help tells more)\n",
                c->verb->name, c->verb->args, c->verb->name);
    return -EINVAL;
}

void cli_note(struct cli *c, const char *fmt, ...)
{
    va_list args;

    if (c->quiet || c->json || (c->verbosity == 0 && !isatty(STDERR_FILENO)))
        return;
    va_start(args, fmt);
    vfprintf(stderr, fmt, args);
    va_end(args);
    fputc('\n', stderr);
}
