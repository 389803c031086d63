/* SPDX-License-Identifier: Apache-2.0 */
/* One line on standard error while long work goes on and a terminal looks on. */
#include "cli/cli.h"

#include <string.h>
#include <unistd.h>

#define FIRST_AFTER_NS NS_PER_S
#define EVERY_NS (200 * NS_PER_MS)

void cli_progress_start(struct cli_progress *p, struct cli *c, const char *what,
                        uint64_t total_bytes)
{
    *p = (struct cli_progress){
        .c = c, .what = what, .total_bytes = total_bytes, .start_ns = rt_now_exact()};
    p->shown_ns = p->start_ns + FIRST_AFTER_NS - EVERY_NS;
    p->on = !c->quiet && !c->json && isatty(STDERR_FILENO);
}

uint64_t cli_progress_ns(const struct cli_progress *p)
{
    return MAX(rt_now_exact() - p->start_ns, 1u);
}

static void time_left(const struct cli_progress *p, double rate, char *out, size_t max)
{
    uint64_t s;

    out[0] = '\0';
    if (p->total_bytes <= p->done_bytes || rate < 1)
        return;
    s = (uint64_t)((double)(p->total_bytes - p->done_bytes) / rate) + 1;
    if (s >= 3600)
        snprintf(out, max, ", %lu h %02lu min left", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(out, max, ", %lu min %02lu s left", s / 60, s % 60);
    else
        snprintf(out, max, ", %lu s left", s);
}

static void show(struct cli_progress *p)
{
    double rate = (double)p->done_bytes * (double)NS_PER_S / (double)cli_progress_ns(p);
    char done[CLI_SIZE_TEXT], total[CLI_SIZE_TEXT], per_s[CLI_SIZE_TEXT], left[40], share[40] = "";
    char items[32] = "";

    if (p->total_bytes > 0)
        snprintf(share, sizeof(share), " of %s (%u %%)", cli_size_text(p->total_bytes, total),
                 (unsigned)((double)p->done_bytes * 100 / (double)p->total_bytes));
    if (p->items > 0)
        snprintf(items, sizeof(items), "%lu done, ", p->items);
    time_left(p, rate, left, sizeof(left));
    fprintf(stderr, "\r\033[K%s: %s%s%s, %s/s%s", p->what, items,
            cli_size_text(p->done_bytes, done), share, cli_size_text((uint64_t)rate, per_s), left);
    fflush(stderr);
    p->shown = true;
}

void cli_progress_add(struct cli_progress *p, uint64_t bytes)
{
    uint64_t now;

    p->done_bytes += bytes;
    if (!p->on)
        return;
    now = rt_now();
    if (now < p->shown_ns + EVERY_NS)
        return;
    p->shown_ns = now;
    show(p);
}

void cli_progress_stop(struct cli_progress *p)
{
    if (p->shown)
        fputs("\r\033[K", stderr);
    p->shown = false;
    p->on = false;
}

const char *cli_rate_text(const struct cli_progress *p, char *out)
{
    double s = (double)cli_progress_ns(p) / (double)NS_PER_S;
    char size[CLI_SIZE_TEXT], per_s[CLI_SIZE_TEXT];

    snprintf(out, CLI_RATE_TEXT, "%s in %.2f s, %s/s", cli_size_text(p->done_bytes, size), s,
             cli_size_text((uint64_t)((double)p->done_bytes / s), per_s));
    return out;
}
