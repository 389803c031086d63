/* SPDX-License-Identifier: Apache-2.0 */
#include "proto/nvme.h"

#include "proto/nvme_kv_vendor.h"

#include <errno.h>

/* --- status and errno ------------------------------------------------------------------------- */

#define DNR(code) ((code) | NVME_SC_DNR)

/* What each errno of base/err.h is to a host; read, write and kv only where the command set has
 * another name for it. Without DNR: the same command may work a moment later. */
static const struct errno_status {
    int errnum;
    uint16_t status;
    uint16_t read, write, kv; /* 0: as status */
} errno_statuses[] = {
    {ENOENT, DNR(NVME_SC_INVALID_NS), .kv = DNR(NVME_SC_KV_KEY_NOT_EXIST)},
    {EEXIST, DNR(NVME_SC_INVALID_FIELD), .kv = DNR(NVME_SC_KV_KEY_EXISTS)},
    {ESTALE, DNR(NVME_SC_COMPARE_FAILED), .kv = DNR(NVME_SC_KVV_STALE)},
    {EINVAL, DNR(NVME_SC_INVALID_FIELD)},
    {ERANGE, DNR(NVME_SC_LBA_RANGE), .kv = DNR(NVME_SC_INVALID_FIELD)},
    {EFBIG, DNR(NVME_SC_INVALID_FIELD), .kv = DNR(NVME_SC_KV_INVALID_VALUE_SIZE)},
    {ENAMETOOLONG, DNR(NVME_SC_INVALID_FIELD), .kv = DNR(NVME_SC_KV_INVALID_KEY_SIZE)},
    {ENOSPC, DNR(NVME_SC_CAPACITY_EXCEEDED)},
    {EROFS, DNR(NVME_SC_NS_WRITE_PROTECTED)},
    {ENOTSUP, DNR(NVME_SC_INVALID_OPCODE)},
    {EBADMSG, DNR(NVME_SC_INTERNAL), .read = DNR(NVME_SC_READ_ERROR),
     .write = DNR(NVME_SC_WRITE_FAULT), .kv = DNR(NVME_SC_KV_UNRECOVERED)},
    {EIO, DNR(NVME_SC_INTERNAL), .read = DNR(NVME_SC_READ_ERROR),
     .write = DNR(NVME_SC_WRITE_FAULT)},
    {ENODEV, DNR(NVME_SC_INVALID_NS)},
    {ECONNRESET, NVME_SC_INTERNAL},
    {EILSEQ, DNR(NVME_SC_COMPARE_FAILED)},
    {EBUSY, NVME_SC_NS_NOT_READY},
    {EACCES, DNR(NVME_SC_ACCESS_DENIED)},
    {ECANCELED, DNR(NVME_SC_ABORT_REQ)},
    {ETIMEDOUT, NVME_SC_CMD_INTERRUPTED},
    {ENOMEM, NVME_SC_CMD_INTERRUPTED},
    {EPROTO, DNR(NVME_SC_DATA_XFER_ERROR)},
    {EDEADLK, DNR(NVME_SC_INTERNAL)},
    {EAGAIN, NVME_SC_CMD_INTERRUPTED},
};

static uint16_t status_for(const struct errno_status *e, enum nvme_status_for for_what)
{
    uint16_t own = for_what == NVME_FOR_READ    ? e->read
                   : for_what == NVME_FOR_WRITE ? e->write
                   : for_what == NVME_FOR_KV    ? e->kv
                                                : 0;

    return own != 0 ? own : e->status;
}

uint16_t nvme_status_of_errno(int rc, enum nvme_status_for for_what)
{
    if (rc >= 0)
        return NVME_SC_SUCCESS;
    for (size_t i = 0; i < ARRAY_LEN(errno_statuses); i++) {
        if (errno_statuses[i].errnum == -rc)
            return status_for(&errno_statuses[i], for_what);
    }
    return DNR(NVME_SC_INTERNAL);
}

/* --- status, errno and text ------------------------------------------------------------------- */

struct status_meaning {
    uint16_t code;
    int errnum;
    bool passing; /* worth another attempt when DNR is clear */
    const char *text;
};

static const struct status_meaning meanings[] = {
    {NVME_SC_SUCCESS, 0, false, "success"},
    {NVME_SC_INVALID_OPCODE, ENOTSUP, false, "invalid command opcode"},
    {NVME_SC_INVALID_FIELD, EINVAL, false, "invalid field in command"},
    {NVME_SC_CMDID_CONFLICT, EPROTO, false, "command id conflict"},
    {NVME_SC_DATA_XFER_ERROR, EIO, true, "data transfer error"},
    {NVME_SC_POWER_LOSS, EIO, true, "aborted by power loss"},
    {NVME_SC_INTERNAL, EIO, true, "internal error of the controller"},
    {NVME_SC_ABORT_REQ, ECANCELED, false, "aborted on request"},
    {NVME_SC_ABORT_QUEUE, ECANCELED, true, "aborted by deletion of the queue"},
    {NVME_SC_FUSED_FAIL, ECANCELED, false, "aborted: the other half of a fused pair failed"},
    {NVME_SC_FUSED_MISSING, EINVAL, false, "aborted: half of a fused pair is missing"},
    {NVME_SC_INVALID_NS, ENODEV, false, "invalid namespace or format"},
    {NVME_SC_CMD_SEQ_ERROR, EPROTO, false, "command sequence error"},
    {NVME_SC_SGL_INVALID_SEGMENT, EINVAL, false, "invalid SGL segment descriptor"},
    {NVME_SC_SGL_INVALID_COUNT, EINVAL, false, "invalid number of SGL descriptors"},
    {NVME_SC_SGL_INVALID_LENGTH, EINVAL, false, "invalid data SGL length"},
    {NVME_SC_SGL_INVALID_METADATA, EINVAL, false, "invalid metadata SGL length"},
    {NVME_SC_SGL_INVALID_TYPE, EINVAL, false, "invalid SGL descriptor type"},
    {NVME_SC_CMB_INVALID_USE, EINVAL, false, "invalid use of controller memory buffer"},
    {NVME_SC_PRP_INVALID_OFFSET, EINVAL, false, "invalid PRP offset"},
    {NVME_SC_ATOMIC_WRITE_UNIT, EINVAL, false, "atomic write unit exceeded"},
    {NVME_SC_OP_DENIED, EACCES, false, "operation denied"},
    {NVME_SC_SGL_INVALID_OFFSET, EINVAL, false, "invalid SGL offset"},
    {NVME_SC_HOSTID_FORMAT, EINVAL, false, "host identifier of inconsistent format"},
    {NVME_SC_KAT_EXPIRED, ETIMEDOUT, false, "keep alive timer expired"},
    {NVME_SC_KAT_INVALID, EINVAL, false, "invalid keep alive timeout"},
    {NVME_SC_ABORT_PREEMPT, EACCES, false, "aborted by preempt and abort"},
    {NVME_SC_SANITIZE_FAILED, EIO, false, "sanitize failed"},
    {NVME_SC_SANITIZE_IN_PROGRESS, EBUSY, true, "sanitize in progress"},
    {NVME_SC_SGL_INVALID_GRANULARITY, EINVAL, false, "invalid SGL data block granularity"},
    {NVME_SC_CMD_NOT_IN_CMB, EINVAL, false, "command not supported for queue in CMB"},
    {NVME_SC_NS_WRITE_PROTECTED, EROFS, false, "namespace is write protected"},
    {NVME_SC_CMD_INTERRUPTED, EAGAIN, true, "command interrupted"},
    {NVME_SC_TRANSIENT_TRANSPORT, EIO, true, "transient transport error"},
    {NVME_SC_ADMIN_MEDIA_NOT_READY, EBUSY, true, "media not ready for admin command"},
    {NVME_SC_LBA_RANGE, ERANGE, false, "LBA out of range"},
    {NVME_SC_CAPACITY_EXCEEDED, ENOSPC, false, "capacity exceeded"},
    {NVME_SC_NS_NOT_READY, EBUSY, true, "namespace not ready"},
    {NVME_SC_RESERVATION_CONFLICT, EBUSY, false, "reservation conflict"},
    {NVME_SC_FORMAT_IN_PROGRESS, EBUSY, true, "format in progress"},
    {NVME_SC_KV_INVALID_VALUE_SIZE, EFBIG, false, "invalid value size"},
    {NVME_SC_KV_INVALID_KEY_SIZE, ENAMETOOLONG, false, "invalid key size"},
    {NVME_SC_KV_KEY_NOT_EXIST, ENOENT, false, "key does not exist"},
    {NVME_SC_KV_UNRECOVERED, EBADMSG, false, "unrecovered error"},
    {NVME_SC_KV_KEY_EXISTS, EEXIST, false, "key exists"},
    {NVME_SC_SELECT_INVALID, EINVAL, false, "invalid parameter of a select"},
    {NVME_SC_CQ_INVALID, EINVAL, false, "invalid completion queue"},
    {NVME_SC_QID_INVALID, EINVAL, false, "invalid queue identifier"},
    {NVME_SC_QUEUE_SIZE, EINVAL, false, "invalid queue size"},
    {NVME_SC_ABORT_LIMIT, EBUSY, true, "abort limit exceeded"},
    {NVME_SC_ASYNC_LIMIT, EBUSY, false, "asynchronous event request limit exceeded"},
    {NVME_SC_FIRMWARE_SLOT, EINVAL, false, "invalid firmware slot"},
    {NVME_SC_FIRMWARE_IMAGE, EINVAL, false, "invalid firmware image"},
    {NVME_SC_INVALID_VECTOR, EINVAL, false, "invalid interrupt vector"},
    {NVME_SC_INVALID_LOG_PAGE, EINVAL, false, "invalid log page"},
    {NVME_SC_INVALID_FORMAT, EINVAL, false, "invalid format"},
    {NVME_SC_INVALID_QUEUE_DELETION, EINVAL, false, "invalid queue deletion"},
    {NVME_SC_FEATURE_NOT_SAVEABLE, EINVAL, false, "feature is not saveable"},
    {NVME_SC_FEATURE_NOT_CHANGEABLE, EINVAL, false, "feature is not changeable"},
    {NVME_SC_FEATURE_NOT_PER_NS, EINVAL, false, "feature is not namespace specific"},
    {NVME_SC_OVERLAPPING_RANGE, EINVAL, false, "overlapping range"},
    {NVME_SC_NS_ALREADY_ATTACHED, EEXIST, false, "namespace already attached"},
    {NVME_SC_NS_NOT_ATTACHED, ENODEV, false, "namespace not attached"},
    {NVME_SC_CTRL_LIST_INVALID, EINVAL, false, "invalid controller list"},
    {NVME_SC_INVALID_CTRL_ID, EINVAL, false, "invalid controller identifier"},
    {NVME_SC_ANA_GROUP_INVALID, EINVAL, false, "invalid ANA group"},
    {NVME_SC_IOCS_NOT_SUPPORTED, ENOTSUP, false, "I/O command set not supported"},
    {NVME_SC_IOCS_NOT_ENABLED, ENOTSUP, false, "I/O command set not enabled"},
    {NVME_SC_IOCS_COMBINATION_REJECTED, EINVAL, false, "I/O command set combination rejected"},
    {NVME_SC_INVALID_IOCS, EINVAL, false, "invalid I/O command set"},
    {NVME_SC_CONFLICTING_ATTRIBUTES, EINVAL, false, "conflicting attributes"},
    {NVME_SC_INVALID_PI, EINVAL, false, "invalid protection information"},
    {NVME_SC_READ_ONLY_RANGE, EROFS, false, "attempted write to read-only range"},
    {NVME_SC_CMD_SIZE_LIMIT, EINVAL, false, "command size limit exceeded"},
    {NVME_SC_WRITE_FAULT, EIO, false, "write fault"},
    {NVME_SC_READ_ERROR, EIO, false, "unrecovered read error"},
    {NVME_SC_GUARD_CHECK, EBADMSG, false, "guard check error"},
    {NVME_SC_APPTAG_CHECK, EBADMSG, false, "application tag check error"},
    {NVME_SC_REFTAG_CHECK, EBADMSG, false, "reference tag check error"},
    {NVME_SC_COMPARE_FAILED, EILSEQ, false, "compare failure"},
    {NVME_SC_ACCESS_DENIED, EACCES, false, "access denied"},
    {NVME_SC_UNWRITTEN_BLOCK, EIO, false, "deallocated or unwritten block"},
    {NVME_SC_INTERNAL_PATH_ERROR, EIO, true, "internal path error"},
    {NVME_SC_ANA_PERSISTENT_LOSS, ENODEV, false, "asymmetric access persistent loss"},
    {NVME_SC_ANA_INACCESSIBLE, EBUSY, true, "asymmetric access inaccessible"},
    {NVME_SC_ANA_TRANSITION, EBUSY, true, "asymmetric access transition"},
    {NVME_SC_CTRL_PATH_ERROR, EIO, true, "controller path error"},
    {NVME_SC_HOST_PATH_ERROR, ECONNRESET, true, "host path error"},
    {NVME_SC_HOST_ABORTED, ECANCELED, true, "aborted by the host"},
};

static const struct status_meaning fabrics_meanings[] = {
    {NVME_SC_CONNECT_FORMAT, EPROTO, false, "incompatible format of connect"},
    {NVME_SC_CONNECT_CTRL_BUSY, EBUSY, true, "controller busy"},
    {NVME_SC_CONNECT_INVALID_PARAM, EINVAL, false, "invalid parameters of connect"},
    {NVME_SC_CONNECT_RESTART_DISCOVERY, EAGAIN, false, "restart discovery"},
    {NVME_SC_CONNECT_INVALID_HOST, EACCES, false, "host not allowed"},
    {NVME_SC_DISCOVERY_RESTART, EAGAIN, true, "the discovery log changed"},
    {NVME_SC_AUTH_REQUIRED, EACCES, false, "authentication required"},
};

static const struct status_meaning *find(const struct status_meaning *table, size_t n,
                                         uint16_t status)
{
    for (size_t i = 0; i < n; i++) {
        if (table[i].code == (status & NVME_SC_CODE_MASK))
            return &table[i];
    }
    return NULL;
}

static const struct status_meaning *meaning_of(uint16_t status)
{
    return find(meanings, ARRAY_LEN(meanings), status);
}

static const struct status_meaning *fabrics_meaning_of(uint16_t status)
{
    const struct status_meaning *m = find(fabrics_meanings, ARRAY_LEN(fabrics_meanings), status);

    return m != NULL ? m : meaning_of(status);
}

/* By status code type, for codes that are not in the tables. */
static int errno_of_sct(uint16_t status)
{
    return NVME_STATUS_SCT(status) == NVME_SCT_COMMAND ? -EINVAL : -EIO;
}

int nvme_errno_of_status(uint16_t status)
{
    const struct status_meaning *m = meaning_of(status);

    return m != NULL ? -m->errnum : errno_of_sct(status);
}

int nvme_errno_of_fabrics_status(uint16_t status)
{
    const struct status_meaning *m = fabrics_meaning_of(status);

    return m != NULL ? -m->errnum : errno_of_sct(status);
}

bool nvme_status_may_retry(uint16_t status)
{
    const struct status_meaning *m = meaning_of(status);

    return (status & NVME_SC_DNR) == 0 && m != NULL && m->passing;
}

static const char *text_of_sct(uint16_t status)
{
    switch (NVME_STATUS_SCT(status)) {
    case NVME_SCT_GENERIC:
        return "unknown generic status";
    case NVME_SCT_COMMAND:
        return "unknown command specific status";
    case NVME_SCT_MEDIA:
        return "unknown media error";
    case NVME_SCT_PATH:
        return "unknown path status";
    case NVME_SCT_VENDOR:
        return "vendor specific status";
    default:
        return "unknown status";
    }
}

const char *nvme_status_text(uint16_t status)
{
    const struct status_meaning *m = meaning_of(status);

    return m != NULL ? m->text : text_of_sct(status);
}

const char *nvme_fabrics_status_text(uint16_t status)
{
    const struct status_meaning *m = fabrics_meaning_of(status);

    return m != NULL ? m->text : text_of_sct(status);
}

/* --- names ------------------------------------------------------------------------------------ */

const char *nvme_admin_opcode_name(uint8_t opc)
{
    switch (opc) {
    case NVME_OPC_DELETE_SQ:
        return "delete submission queue";
    case NVME_OPC_CREATE_SQ:
        return "create submission queue";
    case NVME_OPC_GET_LOG_PAGE:
        return "get log page";
    case NVME_OPC_DELETE_CQ:
        return "delete completion queue";
    case NVME_OPC_CREATE_CQ:
        return "create completion queue";
    case NVME_OPC_IDENTIFY:
        return "identify";
    case NVME_OPC_ABORT:
        return "abort";
    case NVME_OPC_SET_FEATURES:
        return "set features";
    case NVME_OPC_GET_FEATURES:
        return "get features";
    case NVME_OPC_ASYNC_EVENT_REQUEST:
        return "asynchronous event request";
    case NVME_OPC_KEEP_ALIVE:
        return "keep alive";
    case NVME_OPC_DOORBELL_BUFFER_CONFIG:
        return "doorbell buffer config";
    case NVME_OPC_FABRICS:
        return "fabrics";
    case NVME_OPC_FORMAT_NVM:
        return "format";
    default:
        return "unknown";
    }
}

const char *nvme_nvm_opcode_name(uint8_t opc)
{
    switch (opc) {
    case NVME_OPC_FLUSH:
        return "flush";
    case NVME_OPC_WRITE:
        return "write";
    case NVME_OPC_READ:
        return "read";
    case NVME_OPC_WRITE_UNCORRECTABLE:
        return "write uncorrectable";
    case NVME_OPC_COMPARE:
        return "compare";
    case NVME_OPC_WRITE_ZEROES:
        return "write zeroes";
    case NVME_OPC_DSM:
        return "dataset management";
    case NVME_OPC_VERIFY:
        return "verify";
    case NVME_OPC_RESV_REGISTER:
        return "reservation register";
    case NVME_OPC_RESV_REPORT:
        return "reservation report";
    case NVME_OPC_RESV_ACQUIRE:
        return "reservation acquire";
    case NVME_OPC_RESV_RELEASE:
        return "reservation release";
    case NVME_OPC_COPY:
        return "copy";
    default:
        return "unknown";
    }
}
