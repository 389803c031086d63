/* SPDX-License-Identifier: Apache-2.0 */
/*
 * SELECT: a command brings the statement and completes when its answer is whole and held as a
 * result; others fetch it in pieces (docs/protocols/select.md). Queries run in tasks of their own
 * kind, with a bound and a line of their own for each connection, so that they take nothing that
 * storage commands wait for: neither tasks, nor buffers, nor transfers.
 */
#include "front/nvmf/internal.h"
#include "proto/nvme_select.h"

#include <string.h>

#define NO_RESULT (NVME_SC_KV_KEY_NOT_EXIST | NVME_SC_DNR)
#define BAD_LENGTH (NVME_SC_SGL_INVALID_LENGTH | NVME_SC_DNR)
#define ABORTED (NVME_SC_ABORT_REQ | NVME_SC_DNR)

#define SELECTS 16u                 /* queries of one connection at a time */
#define SELECT_BYTES_MAX (4u << 20) /* statements of one connection, those in line included */
#define LOCAL_SELECTS 512u          /* the same of one reactor, whose tasks are others' too */
#define LOCAL_SELECT_BYTES_MAX (64u << 20)
#define LOG_EVERY_NS (100 * NS_PER_MS)

static_assert((int)KV_SELECT_AUTO == (int)NVME_SEL_F_AUTO, "formats are the same");
static_assert((int)KV_SELECT_CSV == (int)NVME_SEL_F_CSV, "formats are the same");
static_assert((int)KV_SELECT_JSON == (int)NVME_SEL_F_JSON, "formats are the same");
static_assert((int)KV_SELECT_JSONL == (int)NVME_SEL_F_JSONL, "formats are the same");
static_assert((int)KV_SELECT_PARQUET == (int)NVME_SEL_F_PARQUET, "formats are the same");
static_assert((int)KV_SELECT_ARROW == (int)NVME_SEL_F_ARROW, "formats are the same");
static_assert((int)KV_SELECT_HEADER_NO == 2, "header is the same");
static_assert(KV_SELECT_SQL_MAX == NVME_SEL_SQL_MAX, "limits are the same");
static_assert(KV_SELECT_KEYS_MAX == NVME_SEL_KEYS_MAX, "limits are the same");

/* What a SELECT command has beside its slot. */
struct nvmf_select {
    bool extended;
    uint64_t until_ns;
    struct kv_select q;
    struct bytes *keys;          /* of the extended form */
    struct bytes key;            /* of the others: cmd->key */
    struct query_result *result; /* being made, or being read */
    int take_rc;                 /* why the result could not take the answer */
    /* Of fetching. */
    uint64_t off;
    uint32_t len; /* of the result that move */
    bool info, frees;
    size_t data_len;
    uint8_t data[]; /* as it came from the host */
};

bool nvmf_is_select(const struct nvmf_ns *ns, uint8_t opc)
{
    if (nvme_sel_is_send(opc) || nvme_sel_is_receive(opc))
        return true;
    return !ns->csd && (opc == NVME_SEL_QUERY || opc == NVME_SEL_RESULT);
}

uint32_t nvmf_select_effects(uint8_t opc, bool csd)
{
    struct nvmf_ns ns = {.csd = csd};

    return nvmf_is_select(&ns, opc) ? NVME_EFFECT_CSUPP : 0;
}

void nvmf_select_free(struct nvmf_cmd *cmd)
{
    struct nvmf_select *sel = cmd->select;

    cmd->select = NULL;
    cmd->conn->select_bytes -= (uint32_t)sel->data_len;
    cmd->conn->local->select_bytes -= sel->data_len;
    query_result_put(sel->result);
    free(sel->keys);
    free(sel);
}

/* Whose results: of one host, in one namespace. The extended form has numbers of its own. */
static struct query_result_of owner(const struct nvmf_cmd *cmd, bool extended,
                                    uint8_t name[NVME_NQN_FIELD + 17])
{
    const struct nvmf_ctrlr *ctrlr = cmd->conn->ctrlr;
    size_t len = strlen(ctrlr->hostnqn);

    memcpy(name, ctrlr->hostnqn, len);
    memcpy(name + len, ctrlr->hostid, 16);
    name[len + 16] = extended;
    return (struct query_result_of){
        .owner = bytes_make(name, len + 17),
        .results_max = extended ? NVMF_SELECT_RESULTS : QUERY_RESULTS_DEFAULT,
        .place = cmd->ns->id,
        .session = ctrlr->id,
    };
}

/* --- the query -------------------------------------------------------------------------------- */

static int take(struct rt_task *t, void *arg, const void *buf, size_t len)
{
    struct nvmf_select *sel = arg;
    int rc = query_result_add(t, sel->result, buf, len);

    if (rc < 0)
        sel->take_rc = rc;
    return rc;
}

/* The first line of a text, which may quote what a host has sent, as it may stand in a log. */
static void first_line(const char *text, char *out, size_t size)
{
    size_t n = 0;

    for (; n + 1 < size && text[n] != '\0' && text[n] != '\n'; n++)
        out[n] = (unsigned char)text[n] < ' ' || text[n] == 0x7f ? '?' : text[n];
    out[n] = '\0';
}

static void log_failure(const struct nvmf_cmd *cmd, int rc, const struct err *why)
{
    struct nvmf_local *l = cmd->conn->local;
    char text[ERR_TEXT_MAX];
    uint64_t now = rt_now();

    /* Statements are the hosts': as many wrong ones as they like do not fill the log. */
    if (now - l->select_log_ns < LOG_EVERY_NS) {
        l->selects_unlogged++;
        return;
    }
    first_line(why->text[0] != '\0' ? why->text : err_str(rc), text, sizeof(text));
    log_info("nvmf: namespace %u: a query of %s failed: %s%s", cmd->ns->nsid,
             cmd->conn->ctrlr->hostnqn, text,
             l->selects_unlogged > 0 ? " (and others before)" : "");
    l->select_log_ns = now;
    l->selects_unlogged = 0;
}

/* The text of a failure becomes a result, whose number the failed command returns. */
static void keep_text(struct rt_task *t, struct nvmf_cmd *cmd, int rc, const struct err *why)
{
    const char *text = why->text[0] != '\0' ? why->text : err_str(rc);
    struct query_result_about about = {.is_error = true};
    uint8_t name[NVME_NQN_FIELD + 17];
    struct query_result_of of = owner(cmd, cmd->select->extended, name);
    struct query_result *r;

    if (query_result_new(cmd->conn->tgt->results, &of, &r) < 0)
        return;
    if (query_result_add(t, r, text, strlen(text)) == 0)
        cmd->dw0 = query_result_finish(r, &about);
    query_result_put(r);
}

static int run(struct rt_task *t, struct nvmf_cmd *cmd, struct kv_select_result *res,
               struct err *why)
{
    struct nvmf_target *tgt = cmd->conn->tgt;
    struct nvmf_select *sel = cmd->select;
    uint64_t now = rt_now();
    int rc;

    if (now >= sel->until_ns)
        return err_set(why, -ETIMEDOUT, "the query had no turn within its time");
    sel->q.timeout_ns = sel->until_ns - now;
    rt_task_deadline(t, sel->until_ns + NS_PER_S);
    rc = tgt->select(t, tgt->select_arg, nvmf_cmd_use(cmd)->kv, &sel->q, res, why);
    rt_task_deadline(t, 0);
    if (sel->take_rc == 0)
        return rc;
    if (sel->take_rc == -EDQUOT)
        return err_set(why, -EDQUOT,
                       "the answer is larger than the target holds for one host; ask for less");
    return err_set(why, sel->take_rc, "the answer could not be held: %s", err_str(sel->take_rc));
}

static int select_main(struct rt_task *t, void *arg)
{
    struct nvmf_cmd *cmd = arg;
    struct nvmf_select *sel = cmd->select;
    struct kv_select_result res = {.data = take, .arg = sel, .rows = UINT64_MAX};
    struct query_result_about about = {0};
    uint8_t name[NVME_NQN_FIELD + 17];
    struct query_result_of of = owner(cmd, sel->extended, name);
    struct err why = {""};
    int rc;

    rt_task_set_trace(t, cmd->trace_id);
    cmd->conn->local->stats.selects++;
    rc = query_result_new(cmd->conn->tgt->results, &of, &sel->result);
    if (rc == 0)
        rc = run(t, cmd, &res, &why);
    if (rt_task_cancelled(t))
        return ABORTED;
    if (rc < 0) {
        cmd->conn->local->stats.selects_failed++;
        log_failure(cmd, rc, &why);
        query_result_put(sel->result); /* half an answer takes no room of its text */
        sel->result = NULL;
        keep_text(t, cmd, rc, &why);
        return nvme_sel_status_of_errno(rc, sel->extended);
    }
    about = (struct query_result_about){
        .object_bytes = res.object_bytes,
        .read_bytes = res.read_bytes,
        .rows = res.rows,
        .queue_ns = res.queue_ns,
        .run_ns = res.run_ns,
        .schema_known = res.schema_known,
    };
    cmd->dw0 = query_result_finish(sel->result, &about);
    if (sel->extended)
        cmd->dw1 = (uint32_t)MIN(query_result_bytes(sel->result), (uint64_t)UINT32_MAX);
    return NVME_SC_SUCCESS;
}

static void select_done(struct rt_req *req);

static bool start(struct nvmf_cmd *cmd)
{
    rt_req_init(&cmd->task_done, select_done);
    if (cmd->conn->local->nselects >= LOCAL_SELECTS)
        return false;
    if (rt_task_start("nvmf-select", select_main, cmd, &cmd->task_done, &cmd->task) < 0)
        return false;
    cmd->state = NVMF_CMD_TASK;
    cmd->conn->nselects++;
    cmd->conn->local->nselects++;
    return true;
}

static void select_done(struct rt_req *req)
{
    struct nvmf_cmd *cmd = container_of(req, struct nvmf_cmd, task_done);
    struct nvmf_conn *c = cmd->conn;

    cmd->task = NULL;
    c->nselects--;
    c->local->nselects--;
    nvmf_cmd_complete(cmd, (uint16_t)req->rc);
    while (c->nselects < SELECTS && !c->closing &&
           (cmd = list_pop_entry(&c->select_wait, struct nvmf_cmd, link)) != NULL) {
        if (!start(cmd))
            nvmf_cmd_complete(cmd, NVME_SC_SEL_BUSY);
    }
}

/* --- the statement ---------------------------------------------------------------------------- */

/* Hosts send the text with the zero at its end, or a padded buffer. */
static struct bytes trim(struct bytes sql)
{
    while (sql.len > 0 && strchr(" \t\r\n", sql.ptr[sql.len - 1]) != NULL)
        sql.len--; /* finds the zero as well */
    return sql;
}

static uint16_t take_extended(struct nvmf_cmd *cmd)
{
    struct nvmf_select *sel = cmd->select;
    struct nvme_sel_query q;
    uint16_t status = nvme_sel_query_decode(&cmd->sqe, sel->data, sel->data_len,
                                            kv_info(cmd->ns->kv)->key_max, &q);

    if (status != NVME_SC_SUCCESS)
        return status;
    sel->q = (struct kv_select){
        .nkeys = q.nkeys,
        .prefix = q.prefix,
        .sql = trim(q.sql),
        .input = (enum kv_select_format)q.input,
        .output = (enum kv_select_format)q.output,
        .header = (enum kv_select_header)q.header,
        .header_out = q.flags & NVME_SEL_Q_HEADER_OUT,
        .delim = q.delim,
        .quote = q.quote,
        .escape = q.escape,
        .schema = q.schema,
    };
    if (sel->q.sql.len == 0)
        return NVME_SC_SELECT_INVALID | NVME_SC_DNR;
    if (q.timeout_ms != 0)
        sel->until_ns = rt_now() + q.timeout_ms * NS_PER_MS;
    if (q.nkeys == 0)
        return NVME_SC_SUCCESS;
    sel->keys = malloc(q.nkeys * sizeof(*sel->keys));
    if (sel->keys == NULL)
        return NVME_SC_SEL_BUSY;
    for (uint32_t i = 0; nvme_sel_key_next(&q.keys, &sel->keys[i]);)
        i++;
    sel->q.keys = sel->keys;
    return NVME_SC_SUCCESS;
}

static uint16_t take_basic(struct nvmf_cmd *cmd)
{
    static const enum kv_select_format in[] = {KV_SELECT_CSV, KV_SELECT_JSON, KV_SELECT_PARQUET};
    static const enum kv_select_format out[] = {KV_SELECT_CSV, KV_SELECT_JSONL, KV_SELECT_PARQUET};
    struct nvmf_select *sel = cmd->select;
    struct nvme_sel_send s;
    uint16_t status = nvme_sel_send_decode(&cmd->sqe, cmd->csd, &s);

    if (status != NVME_SC_SUCCESS)
        return status;
    memcpy(cmd->key, s.key, sizeof(cmd->key));
    sel->key = bytes_make(cmd->key, s.key_len);
    sel->q = (struct kv_select){
        .keys = &sel->key,
        .nkeys = 1,
        .sql = trim(bytes_make(sel->data, sel->data_len)),
        .input = in[s.input],
        .output = out[s.output],
        .header = KV_SELECT_HEADER_AUTO,
        .header_out = s.options & NVME_SEL_HEADER_OUT,
    };
    if (s.input == NVME_SEL_CSV)
        sel->q.header = s.options & NVME_SEL_HEADER_IN ? KV_SELECT_HEADER_YES : KV_SELECT_HEADER_NO;
    return sel->q.sql.len > 0 ? NVME_SC_SUCCESS : NVME_SC_SELECT_INVALID | NVME_SC_DNR;
}

/* The statement is here, in memory of its own. */
static void begin(struct nvmf_cmd *cmd)
{
    struct nvmf_select *sel = cmd->select;
    struct nvmf_conn *c = cmd->conn;
    uint16_t status = ABORTED;

    nvmf_cmd_drop_data(cmd);
    if (cmd->ns != NULL && !c->closing && !cmd->aborted)
        status = sel->extended ? take_extended(cmd) : take_basic(cmd);
    if (status != NVME_SC_SUCCESS) {
        nvmf_cmd_complete(cmd, status);
        return;
    }
    sel->q.who = bytes_of_str(c->ctrlr->hostnqn);
    if (c->nselects >= SELECTS) {
        cmd->state = NVMF_CMD_TASK_WAIT;
        list_init(&cmd->link);
        list_add_tail(&c->select_wait, &cmd->link);
    } else if (!start(cmd)) {
        nvmf_cmd_complete(cmd, NVME_SC_SEL_BUSY);
    }
}

static void send_whole(struct nvmf_cmd *cmd)
{
    memcpy(cmd->select->data, cmd->iov[0].iov_base, cmd->data_len);
    begin(cmd);
}

/* The statement in parts. */
static int send_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    struct nvmf_in *in = cmd->in;
    struct nvmf_part part;
    uint32_t at = 0;
    int rc;

    nvmf_in_start(in);
    while ((rc = nvmf_in_next(t, in, &part)) > 0) {
        must(part.len <= cmd->select->data_len - at);
        memcpy(cmd->select->data + at, part.data, part.len);
        at += part.len;
    }
    if (rc < 0)
        return in->status;
    cmd->run = begin;
    return NVMF_CMD_GOES_ON;
}

static bool sel_new(struct nvmf_cmd *cmd, bool extended, uint32_t data_len)
{
    struct nvmf_conn *c = cmd->conn;
    struct nvmf_select *sel;

    if (c->select_bytes + data_len > SELECT_BYTES_MAX ||
        c->local->select_bytes + data_len > LOCAL_SELECT_BYTES_MAX)
        return false;
    sel = malloc(sizeof(*sel) + data_len);
    if (sel == NULL)
        return false;
    *sel = (struct nvmf_select){.extended = extended, .data_len = data_len};
    sel->until_ns = rt_now() + c->tgt->cfg.select_timeout_ms * NS_PER_MS;
    c->select_bytes += data_len;
    c->local->select_bytes += data_len;
    cmd->select = sel;
    return true;
}

static void do_send(struct nvmf_cmd *cmd, struct bytes data)
{
    bool extended = cmd->sqe.opc == NVME_SEL_QUERY;
    uint32_t len = le32_get(cmd->sqe.cdw10);
    struct nvme_sel_send s;
    uint16_t status = NVME_SC_SUCCESS;

    if (extended) {
        if (len != cmd->sgl_len)
            status = BAD_LENGTH;
        else if (len < sizeof(struct nvme_sel_head) || len > NVME_SEL_DATA_MAX)
            status = NVME_SC_INVALID_FIELD | NVME_SC_DNR;
    } else {
        status = nvme_sel_send_decode(&cmd->sqe, cmd->csd, &s);
        if (status == NVME_SC_SUCCESS && (len == 0 || len > NVME_SEL_SQL_MAX))
            status = NVME_SC_SELECT_INVALID | NVME_SC_DNR;
    }
    if (status == NVME_SC_SUCCESS && !sel_new(cmd, extended, len))
        status = NVME_SC_SEL_BUSY;
    if (status != NVME_SC_SUCCESS)
        nvmf_cmd_complete(cmd, status);
    else
        nvmf_cmd_data(cmd, data, len, 1, send_whole, send_task, false);
}

/* --- fetching --------------------------------------------------------------------------------- */

static uint32_t info_bytes(const struct nvmf_select *sel)
{
    return sel->info ? (uint32_t)sizeof(struct nvme_sel_info) : 0;
}

static void put_info(const struct nvmf_select *sel, uint8_t *at)
{
    const struct query_result_about *a = query_result_about(sel->result);
    struct nvme_sel_info info = {
        .result_bytes = le64_make(query_result_bytes(sel->result)),
        .object_bytes = le64_make(a->object_bytes),
        .read_bytes = le64_make(a->read_bytes),
        .rows = le64_make(a->rows),
        .queue_ns = le64_make(a->queue_ns),
        .run_ns = le64_make(a->run_ns),
        .flags = le32_make((a->schema_known ? NVME_SEL_I_SCHEMA_KNOWN : 0) |
                           (a->is_error ? NVME_SEL_I_ERROR : 0)),
    };

    if (sel->info)
        memcpy(at, &info, sizeof(info));
}

/* It is on its way to the host. */
static void fetched(struct nvmf_cmd *cmd)
{
    struct nvmf_select *sel = cmd->select;
    uint64_t total = query_result_bytes(sel->result);

    if (sel->extended) {
        cmd->dw0 = info_bytes(sel) + sel->len;
        cmd->dw1 = sel->off + sel->len < total ? NVME_SEL_MORE : 0;
    } else {
        cmd->dw0 = (uint32_t)MIN(total, (uint64_t)UINT32_MAX);
    }
    if (sel->frees)
        query_result_drop(sel->result);
}

static void fetch_with_buffer(struct nvmf_cmd *cmd)
{
    struct nvmf_select *sel = cmd->select;
    uint8_t *at = cmd->iov[0].iov_base;
    uint32_t n = info_bytes(sel);

    put_info(sel, at);
    if (sel->len > 0)
        memcpy(at + n, query_result_mem(sel->result) + sel->off, sel->len);
    n += sel->len;
    fetched(cmd);
    nvmf_cmd_complete_data(cmd, n);
}

/* Of a file, or more than a buffer. */
static int fetch_task(struct rt_task *t, struct nvmf_cmd *cmd)
{
    struct nvmf_select *sel = cmd->select;
    uint32_t head = info_bytes(sel), total = head + sel->len;

    for (uint32_t off = 0; off < total;) {
        uint32_t n = MIN(total - off, RT_BUF_LARGE_BYTES), skip = off == 0 ? head : 0;
        struct nvmf_piece *p = nvmf_out_take(t, cmd->conn, n);
        int rc;

        if (p == NULL)
            return ABORTED;
        if (off == 0)
            put_info(sel, p->buf->data);
        rc = query_result_read(t, sel->result, sel->off + off + skip - head, p->buf->data + skip,
                               n - skip);
        if (rc < 0) {
            nvmf_out_drop(p);
            return nvme_sel_status_of_errno(rc, sel->extended);
        }
        nvmf_out_send(cmd, p, off, n, off + n == total);
        off += n;
    }
    fetched(cmd);
    return NVME_SC_SUCCESS;
}

static uint16_t find_result(struct nvmf_cmd *cmd, uint32_t id, uint64_t off, uint32_t room)
{
    struct nvmf_select *sel = cmd->select;
    uint8_t name[NVME_NQN_FIELD + 17];
    struct query_result_of of = owner(cmd, sel->extended, name);
    uint64_t total;

    sel->result = query_result_get(cmd->conn->tgt->results, &of, id);
    if (sel->result == NULL)
        return NO_RESULT;
    total = query_result_bytes(sel->result);
    sel->off = MIN(off, total);
    sel->len = (uint32_t)MIN(total - sel->off, (uint64_t)room);
    return NVME_SC_SUCCESS;
}

static uint16_t prepare_extended(struct nvmf_cmd *cmd)
{
    struct nvmf_select *sel = cmd->select;
    struct nvme_sel_get g;
    uint16_t status = nvme_sel_get_decode(&cmd->sqe, &g);

    if (status != NVME_SC_SUCCESS)
        return status;
    sel->info = g.flags & NVME_SEL_R_INFO;
    status = find_result(cmd, g.id, g.off, g.len - info_bytes(sel));
    if (status != NVME_SC_SUCCESS)
        return status;
    sel->frees =
        (g.flags & NVME_SEL_R_DROP) ||
        ((g.flags & NVME_SEL_R_FREE) && sel->off + sel->len == query_result_bytes(sel->result));
    return NVME_SC_SUCCESS;
}

static uint16_t prepare_basic(struct nvmf_cmd *cmd)
{
    struct nvmf_select *sel = cmd->select;
    struct nvme_sel_receive r;
    uint16_t status;

    nvme_sel_receive_decode(&cmd->sqe, &r);
    status = find_result(cmd, r.id, r.off, r.len);
    if (status == NVME_SC_SUCCESS)
        sel->frees = nvme_sel_receive_frees(&r, query_result_bytes(sel->result));
    return status;
}

static void do_receive(struct nvmf_cmd *cmd)
{
    uint16_t status = nvmf_kv_check_buffer(cmd);
    struct nvmf_select *sel;
    uint32_t n;

    if (status == NVME_SC_SUCCESS && !sel_new(cmd, cmd->sqe.opc == NVME_SEL_RESULT, 0))
        status = NVME_SC_SEL_BUSY;
    sel = cmd->select;
    if (status == NVME_SC_SUCCESS)
        status = sel->extended ? prepare_extended(cmd) : prepare_basic(cmd);
    if (status != NVME_SC_SUCCESS) {
        nvmf_cmd_complete(cmd, status);
        return;
    }
    n = info_bytes(sel) + sel->len;
    if (n == 0) {
        fetched(cmd);
        nvmf_cmd_complete(cmd, NVME_SC_SUCCESS);
    } else if (n <= RT_BUF_LARGE_BYTES && (sel->len == 0 || query_result_mem(sel->result))) {
        nvmf_out_begin(cmd, n, fetch_with_buffer);
    } else {
        nvmf_cmd_task(cmd, fetch_task);
    }
}

void nvmf_io_select(struct nvmf_cmd *cmd, struct bytes data)
{
    cmd->csd = cmd->ns->csd;
    if ((cmd->sqe.flags & NVME_SQE_FUSE_MASK) != 0)
        nvmf_cmd_complete(cmd, NVME_SC_INVALID_FIELD | NVME_SC_DNR);
    else if (cmd->conn->tgt->select == NULL)
        nvmf_cmd_complete(cmd, NVME_SC_INVALID_OPCODE | NVME_SC_DNR);
    else if (nvme_sel_is_send(cmd->sqe.opc) || cmd->sqe.opc == NVME_SEL_QUERY)
        do_send(cmd, data);
    else
        do_receive(cmd);
}
