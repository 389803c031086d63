/* SPDX-License-Identifier: Apache-2.0 */
/* kvasir bench: options, devices, and the table at the end. */
#include "cli/bench.h"

#include <string.h>
#include <unistd.h>

static const char workloads[] = "read|write|mix|retrieve|store|kvmix";
enum workload { READ, WRITE, MIX, RETRIEVE, STORE, KVMIX };

static int workload_of(struct cli *c)
{
    static const char *const names[] = {"read", "write", "mix", "retrieve", "store", "kvmix"};

    for (unsigned i = 0; i < ARRAY_LEN(names); i++) {
        if (strcmp(cli_arg(c, 1), names[i]) == 0)
            return (int)i;
    }
    return cli_usage(c, "there is no workload '%s'; there are: %s", cli_arg(c, 1), workloads);
}

/*
 * A URI that names the same device but is another text, so that it is opened once more and has its
 * own connections: as another host, for targets let one host have few controllers only. When the
 * URI names the host, characters of the NQN are percent-encoded, by the bits of n.
 */
static void vary_uri(const char *uri, unsigned n, char *out, size_t max)
{
    const char *from = strstr(uri, "/nqn.");
    size_t used = (size_t)(from + 1 - uri);

    if (strstr(uri, "hostnqn=") == NULL) {
        snprintf(out, max, "%s%chostnqn=nqn.2026-11.io.kvasir:bench-%ld-%u", uri,
                 strchr(uri, '?') != NULL ? '&' : '?', (long)getpid(), n);
        return;
    }
    memcpy(out, uri, used);
    for (from++; *from != '\0' && used + 4 < max; from++) {
        if (*from == '?' || *from == '#' || *from == '%')
            n = 0;
        if ((n & 1) != 0)
            used += (size_t)snprintf(out + used, max - used, "%%%02X", (unsigned char)*from);
        else
            out[used++] = *from;
        n >>= 1;
    }
    out[used] = '\0';
}

static void close_devs(struct rt_task *t, struct bench_plan *plan)
{
    for (unsigned i = 0; i < plan->ndevs; i++) {
        dev_close(t, &plan->dev[i]);
        if (i > 0)
            free((char *)plan->dev[i].uri);
    }
    free(plan->dev);
}

/* Whether every block or key is written before the measurement. */
static bool prefills(struct cli *c, const struct bench_plan *plan)
{
    unsigned choice = opt_choice(&c->opts, "prefill"); /* auto, yes, no */

    return choice == 1 || (choice == 0 && plan->kv && plan->read_percent > 0);
}

static int open_devs(struct rt_task *t, struct cli *c, struct bench_plan *plan, unsigned n)
{
    bool writes = plan->read_percent < 100 || prefills(c, plan);
    unsigned kind = plan->kv ? DEV_KV : DEV_BLK;
    const char *uri = cli_arg(c, 0);
    int rc = 0;

    plan->dev = calloc(n, sizeof(*plan->dev));
    if (plan->dev == NULL)
        return -ENOMEM;
    for (unsigned i = 0; i < n && rc == 0; i++) {
        char *one = (char *)uri;

        if (i > 0) {
            one = malloc(URI_MAX);
            if (one == NULL)
                return -ENOMEM;
            vary_uri(uri, i, one, URI_MAX);
        }
        rc = dev_open(t, c, one, kind, writes, &plan->dev[i]);
        if (rc == 0)
            plan->ndevs++;
        else if (i > 0)
            free(one);
    }
    return rc;
}

/* How many places there are to read and write, and whether sizes fit the device. */
static int plan_units(struct cli *c, struct bench_plan *plan)
{
    const struct dev *d = &plan->dev[0];
    uint64_t span;
    uint32_t bs;

    if (plan->kv) {
        plan->units = opt_u64(&c->opts, "keys");
        return plan->units > 0 ? 0 : cli_usage(c, "--keys has to be above 0");
    }
    bs = blk_info(d->blk)->block_bytes;
    if (plan->size_bytes % bs != 0)
        return cli_usage(c, "--block-size: %u is no multiple of the device's blocks of %u bytes",
                         plan->size_bytes, bs);
    span = dev_blk_bytes(d);
    if (opt_given(&c->opts, "span"))
        span = MIN(span, opt_u64(&c->opts, "span"));
    plan->units = span / plan->size_bytes;
    return plan->units > 0 ? 0
                           : cli_usage(c, "the device, or --span, holds no block of %u bytes",
                                       plan->size_bytes);
}

static json_t *side_json(const struct bench_side *s, double secs, uint32_t size_bytes)
{
    const struct hist *h = &s->latency_ns;

    return json_pack(
        "{s:I, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "ops", (json_int_t)s->ops, "iops",
        (double)s->ops / secs, "mb_per_s", (double)s->ops * size_bytes / secs / 1e6, "mean_us",
        h->count > 0 ? (double)h->sum / (double)h->count / 1e3 : 0.0, "p50_us",
        (double)hist_percentile(h, 0.5) / 1e3, "p99_us", (double)hist_percentile(h, 0.99) / 1e3,
        "p999_us", (double)hist_percentile(h, 0.999) / 1e3, "max_us", (double)h->max / 1e3,
        "errors", (json_int_t)s->errors);
}

static void print_side(struct cli *c, const char *name, const struct bench_side *s, double secs,
                       uint32_t size_bytes)
{
    const struct hist *h = &s->latency_ns;

    if (s->ops == 0)
        return;
    cli_print(c, "%-9s %10lu %10.0f %9.1f %9.1f %9.1f %9.1f %9.1f %9.1f\n", name, s->ops,
              (double)s->ops / secs, (double)s->ops * size_bytes / secs / 1e6,
              (double)h->sum / (double)h->count / 1e3, (double)hist_percentile(h, 0.5) / 1e3,
              (double)hist_percentile(h, 0.99) / 1e3, (double)hist_percentile(h, 0.999) / 1e3,
              (double)h->max / 1e3);
}

static void report(struct cli *c, const struct bench_plan *plan, const struct bench_result *r)
{
    double secs = (double)r->measured_ns / (double)NS_PER_S;
    uint64_t ops = MAX(r->read.ops + r->write.ops, 1u);
    double user = (double)r->user_ns / (double)ops / 1e3,
           sys = (double)r->sys_ns / (double)ops / 1e3;
    char size[CLI_SIZE_TEXT];

    if (c->json) {
        json_t *obj = json_pack(
            "{s:s, s:s, s:s, s:i, s:i, s:i, s:i, s:f, s:s, s:f, s:f, s:f, s:f, s:I}", "uri",
            cli_arg(c, 0), "workload", cli_arg(c, 1), "access",
            plan->random ? "random" : "sequential", "size_bytes", (int)plan->size_bytes, "qd",
            (int)plan->qd, "connections", (int)plan->ndevs, "cores", (int)rt_reactors(), "seconds",
            secs, "backend", rt_backend_name(), "iops", (double)ops / secs, "mb_per_s",
            (double)ops * plan->size_bytes / secs / 1e6, "user_us_per_op", user, "sys_us_per_op",
            sys, "mismatches", (json_int_t)r->mismatches);

        json_object_set_new(obj, "read", side_json(&r->read, secs, plan->size_bytes));
        json_object_set_new(obj, "write", side_json(&r->write, secs, plan->size_bytes));
        cli_json(c, obj);
        return;
    }
    cli_print(c, "%s %s, %s, depth %u x %u connections x %u cores, %.1f s on %s\n",
              plan->random ? "random" : "sequential", cli_arg(c, 1),
              cli_size_text(plan->size_bytes, size), plan->qd, plan->ndevs, rt_reactors(), secs,
              rt_backend_name());
    cli_print(c, "%-9s %10s %10s %9s %9s %9s %9s %9s %9s\n", "", "ops", "per second", "MB/s",
              "mean us", "p50", "p99", "p99.9", "max");
    print_side(c, plan->kv ? "retrieve" : "read", &r->read, secs, plan->size_bytes);
    print_side(c, plan->kv ? "store" : "write", &r->write, secs, plan->size_bytes);
    cli_print(c, "CPU per operation: %.2f us user, %.2f us system\n", user, sys);
}

static int verdict(struct cli *c, const struct bench_plan *plan, const struct bench_result *r)
{
    if (r->mismatches > 0)
        return cli_fail(c, -EBADMSG, "%s: %lu reads returned other bytes than were written",
                        plan->dev[0].uri, r->mismatches);
    if (r->first_error == -ENOENT)
        return cli_fail(c, -ENOENT,
                        "%s: keys of the benchmark are missing (--prefill yes stores "
                        "them first)",
                        plan->dev[0].uri);
    if (r->first_error < 0)
        return cli_fail(c, r->first_error, "%s: %lu operations failed, the first: %s",
                        plan->dev[0].uri, r->read.errors + r->write.errors,
                        err_str(r->first_error));
    if (r->read.ops + r->write.ops == 0)
        return cli_fail(c, -EIO, "%s: nothing completed in the time measured", plan->dev[0].uri);
    return 0;
}

static int measure(struct rt_task *t, struct cli *c, struct bench_plan *plan)
{
    CLEANUP(free_p) struct bench_result *r = calloc(1, sizeof(*r));
    int rc = plan_units(c, plan);

    if (r == NULL)
        return -ENOMEM;
    if (rc < 0)
        return rc;
    if (plan->verify) {
        plan->written = calloc(plan->units / 64 + 1, sizeof(*plan->written));
        if (plan->written == NULL)
            return -ENOMEM;
    }
    if (prefills(c, plan)) {
        rc = bench_prefill(t, c, plan);
        plan->check_all = plan->verify;
    }
    if (rc == 0)
        rc = bench_load(t, plan, opt_u64(&c->opts, "warmup"), opt_u64(&c->opts, "time"), r);
    if (rc < 0)
        return rc;
    report(c, plan, r);
    return verdict(c, plan, r);
}

static int bench_run(struct rt_task *t, struct cli *c)
{
    struct bench_plan plan = {
        .random = opt_choice(&c->opts, "access") == 0,
        .verify = opt_flag(&c->opts, "verify"),
        .size_bytes = (uint32_t)opt_u64(&c->opts, "block-size"),
        .qd = (unsigned)opt_u64(&c->opts, "qd"),
        .rate = opt_f64(&c->opts, "rate"),
        .seed = opt_u64(&c->opts, "seed"),
    };
    int rc, workload = workload_of(c);

    plan.kv = workload >= RETRIEVE;
    plan.read_percent = workload == READ || workload == RETRIEVE ? 100
                        : workload == WRITE || workload == STORE
                            ? 0
                            : (unsigned)opt_u64(&c->opts, "mix");
    plan.check_all = plan.verify && plan.read_percent == 100;
    rc = open_devs(t, c, &plan, (unsigned)opt_u64(&c->opts, "connections"));
    if (rc == 0)
        rc = measure(t, c, &plan);
    close_devs(t, &plan);
    free(plan.written);
    return rc;
}

static int check_numbers(struct cli *c)
{
    const struct opts *o = &c->opts;

    if (opt_u64(o, "qd") == 0 || opt_u64(o, "qd") > 65536)
        return cli_usage(c, "--qd is 1 to 65536");
    if (opt_u64(o, "block-size") == 0 || opt_u64(o, "block-size") > 1 * GIB)
        return cli_usage(c, "--block-size is 1 to 1G");
    if (opt_u64(o, "connections") == 0 || opt_u64(o, "connections") > BENCH_CONNECTIONS_MAX)
        return cli_usage(c, "--connections is 1 to %d", BENCH_CONNECTIONS_MAX);
    if (opt_u64(o, "mix") > 100)
        return cli_usage(c, "--mix is 0 to 100");
    if (opt_u64(o, "time") == 0)
        return cli_usage(c, "--time has to be above 0");
    return 0;
}

static int bench_prepare(struct cli *c, struct rt_config *cfg)
{
    int workload = workload_of(c), rc = workload < 0 ? workload : check_numbers(c);
    const char *uri = cli_arg(c, 0);

    if (rc < 0)
        return rc;
    if ((workload == WRITE || workload == MIX ||
         (workload == READ && opt_choice(&c->opts, "prefill") == 1)) &&
        !opt_flag(&c->opts, "overwrite") && strncmp(uri, "mem:", 4) != 0)
        return cli_usage(c, "this writes over what %s holds: say --overwrite if that is meant",
                         uri);
    if (opt_u64(&c->opts, "connections") > 1 &&
        (strncmp(uri, "nvme+tcp:", 9) != 0 || strstr(uri, "/nqn.") == NULL))
        return cli_usage(c, "--connections: only nvme+tcp: devices have connections");
    return 0;
}

static const struct opt bench_opts[] = {
    {"qd", 0, OPT_U64, false, "N", "32", "operations in flight, per connection and core"},
    {"block-size", 'b', OPT_SIZE, false, "SIZE", "4K", "bytes of an operation, or of a value"},
    {"time", 't', OPT_TIME, false, "TIME", "10s", "how long to measure"},
    {"warmup", 0, OPT_TIME, false, "TIME", "1s", "how long to run before that"},
    {"access", 0, OPT_CHOICE, false, "random|sequential", "random", "order of blocks or keys"},
    {"mix", 0, OPT_U64, false, "PERCENT", "70", "share of reads of mix and kvmix"},
    {"span", 0, OPT_SIZE, false, "SIZE", NULL, "blocks: use only so much of the device"},
    {"keys", 0, OPT_U64, false, "N", "10000", "keys: how many different ones"},
    {"connections", 0, OPT_U64, false, "N", "1",
     "nvme+tcp: how often to connect; each has a queue per core"},
    {"rate", 0, OPT_F64, false, "N", NULL,
     "operations per second at most; latency then counts from when one should have begun"},
    {"prefill", 0, OPT_CHOICE, false, "auto|yes|no", "auto",
     "write every block or key before; auto: keys that will be retrieved"},
    {"verify", 0, OPT_FLAG, false, NULL, NULL,
     "write patterns and compare what is read (exit 7); read alone expects those of an earlier "
     "run with the same --seed and --block-size"},
    {"seed", 0, OPT_U64, false, "N", "1", "of patterns and choices"},
    {"overwrite", 0, OPT_FLAG, false, NULL, NULL,
     "allow write and mix to destroy what a block device holds"},
    {NULL},
};

const struct cli_verb verb_bench = {
    .name = "bench",
    .args = "URI read|write|mix|retrieve|store|kvmix",
    .summary = "measure a device",
    .about =
        "Keeps operations in flight on a device for a while and prints how many there were in a "
        "second, their throughput, latencies and CPU time. read, write and mix are for block "
        "devices; retrieve, store and kvmix for key-value devices, on keys of 16 bytes that "
        "begin with \"b0\" and stay afterwards (kvasir rm -r URI b0 takes them away).",
    .examples = "kvasir bench 'mem:?size=1G' read --qd 128\n"
                "kvasir bench nvme+tcp://127.0.0.1:4420/nqn.2026-11.io.kvasir:default?nsid=1 store "
                "-b 64K --cores 2\n"
                "kvasir bench file:/srv/scratch.img mix --overwrite --verify --json",
    .opts = bench_opts,
    .args_min = 2,
    .args_max = 2,
    .drivers = CLI_KV | CLI_BLK,
    .run = bench_run,
    .prepare = bench_prepare,
};
