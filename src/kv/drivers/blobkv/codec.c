/* SPDX-License-Identifier: Apache-2.0 */
#include "kv/drivers/blobkv/codec.h"

#include "kv/drivers/blobkv/format.h"

#include "base/must.h"
#include "config.h"
#include "rt/rt.h"

#ifdef HAVE_LIBCRYPTO
#include <openssl/evp.h>
#include <openssl/hmac.h>
#endif
#ifdef HAVE_LIBZSTD
#include <zstd.h>
#endif
#ifdef HAVE_LIBLZ4
#include <lz4.h>
#include <lz4hc.h>
#endif

#define DATA_KEY_BYTES 32u
#define PACK_MIN_BYTES 64u /* records are multiples of 16: shorter values gain nothing */

/*
 * bkv_super.seal: what stands here, the rest zero. The text that is authenticated with the wrapped
 * key is the version and the store's uuid.
 */
struct seal {
    uint8_t version;                  /*  0  1 */
    uint8_t rsvd[3];                  /*  1 */
    uint8_t nonce[BKV_NONCE_BYTES];   /*  4 */
    uint8_t data_key[DATA_KEY_BYTES]; /* 16  encrypted */
    uint8_t tag[BKV_TAG_BYTES];       /* 48 */
};
static_assert(sizeof(struct seal) == 64, "seal");

struct bkv_codec {
    uint8_t compress; /* enum bkv_compress, never the default one */
    int level;
    bool sealed, started;
    uint32_t epoch;
    uint64_t counter;
    uint64_t hash_mask[2];
    /* A value that lies in pieces, for compression; what nobody wants, of decryption. */
    uint8_t gather[BKV_INLINE_MAX];
#ifdef HAVE_LIBCRYPTO
    EVP_CIPHER_CTX *enc, *dec, *root_enc, *root_dec;
#endif
#ifdef HAVE_LIBZSTD
    ZSTD_CCtx *zstd;
    ZSTD_DCtx *unzstd;
#endif
#ifdef HAVE_LIBLZ4
    void *lz4;
#endif
};

/* --- encryption */

#ifdef HAVE_LIBCRYPTO

static int ctx_new(EVP_CIPHER_CTX **out, const uint8_t *key, bool encrypt)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

    *out = ctx;
    if (ctx == NULL)
        return -ENOMEM;
    return EVP_CipherInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, NULL, encrypt) == 1 ? 0 : -EIO;
}

static int gcm_seal(EVP_CIPHER_CTX *ctx, struct bytes aad, uint8_t *buf, size_t len,
                    const uint8_t *nonce, uint8_t *tag)
{
    int n;

    if (EVP_EncryptInit_ex(ctx, NULL, NULL, NULL, nonce) != 1 ||
        EVP_EncryptUpdate(ctx, NULL, &n, aad.ptr, (int)aad.len) != 1 ||
        EVP_EncryptUpdate(ctx, buf, &n, buf, (int)len) != 1 ||
        EVP_EncryptFinal_ex(ctx, buf + len, &n) != 1 ||
        EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_GET_TAG, BKV_TAG_BYTES, tag) != 1)
        return -EIO;
    return 0;
}

/* The first `want` bytes go to dst, the others to `rest`. */
static int gcm_open(EVP_CIPHER_CTX *ctx, struct bytes aad, struct bytes src, const uint8_t *nonce,
                    const uint8_t *tag, uint8_t *dst, size_t want, uint8_t *rest)
{
    uint8_t tag_copy[BKV_TAG_BYTES], end[16];
    size_t more = src.len - want;
    int n;

    memcpy(tag_copy, tag, sizeof(tag_copy));
    if (EVP_DecryptInit_ex(ctx, NULL, NULL, NULL, nonce) != 1 ||
        EVP_DecryptUpdate(ctx, NULL, &n, aad.ptr, (int)aad.len) != 1 ||
        EVP_DecryptUpdate(ctx, dst, &n, src.ptr, (int)want) != 1)
        return -EBADMSG;
    if (more > 0 && EVP_DecryptUpdate(ctx, rest, &n, src.ptr + want, (int)more) != 1)
        return -EBADMSG;
    if (EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, BKV_TAG_BYTES, tag_copy) != 1 ||
        EVP_DecryptFinal_ex(ctx, end, &n) != 1)
        return -EBADMSG;
    return 0;
}

/* What keeps key hashes secret: from the data key, so that it is secret as well. */
static int derive_hash_mask(struct bkv_codec *c, const uint8_t *data_key)
{
    static const uint8_t label[] = "blobkv key hashes";
    uint8_t out[EVP_MAX_MD_SIZE];
    unsigned n = 0;

    if (HMAC(EVP_sha256(), data_key, DATA_KEY_BYTES, label, sizeof(label) - 1, out, &n) == NULL)
        return -EIO;
    c->hash_mask[0] = le64_at(out);
    c->hash_mask[1] = le64_at(out + 8);
    bkv_wipe(out, sizeof(out));
    return 0;
}

/* For pages of the root: two keys, one context for each direction. */
static int root_keys(struct bkv_codec *c, const uint8_t *data_key)
{
    static const uint8_t label[] = "blobkv root pages";
    uint8_t key[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    int rc = 0;

    c->root_enc = EVP_CIPHER_CTX_new();
    c->root_dec = EVP_CIPHER_CTX_new();
    if (c->root_enc == NULL || c->root_dec == NULL)
        return -ENOMEM;
    if (HMAC(EVP_sha512(), data_key, DATA_KEY_BYTES, label, sizeof(label) - 1, key, &n) == NULL ||
        n != 64 || EVP_EncryptInit_ex(c->root_enc, EVP_aes_256_xts(), NULL, key, NULL) != 1 ||
        EVP_DecryptInit_ex(c->root_dec, EVP_aes_256_xts(), NULL, key, NULL) != 1)
        rc = -EIO;
    bkv_wipe(key, sizeof(key));
    return rc;
}

static size_t seal_aad(const struct bkv_super *super, uint8_t *out)
{
    memcpy(out, super->seal, 4);
    memcpy(out + 4, super->uuid, sizeof(super->uuid));
    return 4 + sizeof(super->uuid);
}

struct seal_job {
    struct bkv_codec *codec;
    struct bkv_super *super;
    uint8_t user_key[BKV_USER_KEY_BYTES];
    uint8_t data_key[DATA_KEY_BYTES];
    uint8_t nonce[BKV_NONCE_BYTES];
    bool create;
};

/* Wraps or unwraps the data key, and makes the contexts with it. */
static int seal_with(struct seal_job *job, EVP_CIPHER_CTX **wrap)
{
    struct seal *seal = (struct seal *)job->super->seal;
    uint8_t aad[32];
    int rc = ctx_new(wrap, job->user_key, job->create);

    if (rc < 0)
        return rc;
    if (job->create) {
        *seal = (struct seal){.version = 1};
        memcpy(seal->nonce, job->nonce, sizeof(seal->nonce));
        memcpy(seal->data_key, job->data_key, sizeof(seal->data_key));
        rc = gcm_seal(*wrap, bytes_make(aad, seal_aad(job->super, aad)), seal->data_key,
                      DATA_KEY_BYTES, seal->nonce, seal->tag);
    } else {
        if (seal->version != 1)
            return -ENOTSUP;
        rc = gcm_open(*wrap, bytes_make(aad, seal_aad(job->super, aad)),
                      bytes_make(seal->data_key, DATA_KEY_BYTES), seal->nonce, seal->tag,
                      job->data_key, DATA_KEY_BYTES, NULL);
    }
    if (rc == 0)
        rc = ctx_new(&job->codec->enc, job->data_key, true);
    if (rc == 0)
        rc = ctx_new(&job->codec->dec, job->data_key, false);
    if (rc == 0)
        rc = derive_hash_mask(job->codec, job->data_key);
    if (rc == 0)
        rc = root_keys(job->codec, job->data_key);
    return rc;
}

/* On a thread of its own: the first use of OpenSSL reads files and takes a deep stack. */
static int seal_job_run(void *arg)
{
    EVP_CIPHER_CTX *wrap = NULL;
    int rc = seal_with(arg, &wrap);

    EVP_CIPHER_CTX_free(wrap);
    return rc;
}

static int seal_open(struct rt_task *t, struct bkv_codec *c, const struct bkv_codec_opts *opts,
                     struct bkv_super *super, bool create, struct err *why)
{
    struct seal_job job = {.codec = c, .super = super, .create = create};
    int rc;

    if (opts->key_file == NULL && opts->key_command == NULL)
        return err_set(why, -EACCES,
                       "the store is encrypted: give its key by key_file=PATH or "
                       "key_command=COMMAND");
    rc = bkv_user_key(t, opts, job.user_key, why);
    if (rc < 0)
        return rc;
    if (create) {
        rt_random(job.data_key, sizeof(job.data_key));
        rt_random(job.nonce, sizeof(job.nonce));
    }
    rc = rt_offload(t, seal_job_run, &job);
    bkv_wipe(&job, sizeof(job));
    if (rc == -EBADMSG)
        return err_set(why, -EACCES,
                       "the key does not open this store: it is another store's, or "
                       "the super block was tampered with");
    if (rc == -ENOTSUP)
        return err_set(why, rc, "the store is encrypted in a way this version does not know");
    if (rc < 0)
        return err_set(why, rc, "cannot set up encryption: %s", err_str(rc));
    c->sealed = true;
    return 0;
}

static void seal_free(struct bkv_codec *c)
{
    EVP_CIPHER_CTX_free(c->enc);
    EVP_CIPHER_CTX_free(c->dec);
    EVP_CIPHER_CTX_free(c->root_enc);
    EVP_CIPHER_CTX_free(c->root_dec);
}

int bkv_codec_seal(struct bkv_codec *c, struct bytes aad, uint8_t *buf, size_t len,
                   uint8_t out_nonce[BKV_NONCE_BYTES], uint8_t out_tag[BKV_TAG_BYTES])
{
    must(c->sealed && c->started);
    le32_put(out_nonce, c->epoch);
    le64_put(out_nonce + 4, c->counter++);
    return gcm_seal(c->enc, aad, buf, len, out_nonce, out_tag);
}

int bkv_codec_unseal(struct bkv_codec *c, struct bytes aad, const uint8_t *src, size_t len,
                     const uint8_t nonce[BKV_NONCE_BYTES], const uint8_t tag[BKV_TAG_BYTES],
                     uint8_t *dst)
{
    if (c == NULL || !c->sealed)
        return -EACCES;
    return gcm_open(c->dec, aad, bytes_make(src, len), nonce, tag, dst, len, NULL);
}

int bkv_codec_unseal_some(struct bkv_codec *c, struct bytes aad, struct bytes src,
                          const uint8_t nonce[BKV_NONCE_BYTES], const uint8_t tag[BKV_TAG_BYTES],
                          uint8_t *dst, size_t want)
{
    if (c == NULL || !c->sealed)
        return -EACCES;
    if (want > src.len || src.len - want > sizeof(c->gather))
        return -EBADMSG;
    return gcm_open(c->dec, aad, src, nonce, tag, dst, want, c->gather);
}

int bkv_codec_crypt_root(struct bkv_codec *c, uint64_t addr, uint8_t *pages, size_t len,
                         bool encrypt)
{
    if (c == NULL || !c->sealed)
        return 0;
    must(len % BKV_PAGE_BYTES == 0);
    for (size_t at = 0; at < len; at += BKV_PAGE_BYTES) {
        EVP_CIPHER_CTX *ctx = encrypt ? c->root_enc : c->root_dec;
        uint8_t tweak[16] = {0};
        int n;

        le64_put(tweak, addr + at);
        if (EVP_CipherInit_ex(ctx, NULL, NULL, NULL, tweak, -1) != 1 ||
            EVP_CipherUpdate(ctx, pages + at, &n, pages + at, BKV_PAGE_BYTES) != 1)
            return -EIO;
    }
    return 0;
}

#else

int bkv_codec_crypt_root(struct bkv_codec *c, uint64_t addr, uint8_t *pages, size_t len,
                         bool encrypt)
{
    return 0;
}

static int seal_open(struct rt_task *t, struct bkv_codec *c, const struct bkv_codec_opts *opts,
                     struct bkv_super *super, bool create, struct err *why)
{
    return err_set(why, -ENOTSUP, "encryption needs libcrypto (OpenSSL), which this build lacks");
}

static void seal_free(struct bkv_codec *c)
{
}

int bkv_codec_seal(struct bkv_codec *c, struct bytes aad, uint8_t *buf, size_t len,
                   uint8_t out_nonce[BKV_NONCE_BYTES], uint8_t out_tag[BKV_TAG_BYTES])
{
    return -ENOTSUP;
}

int bkv_codec_unseal(struct bkv_codec *c, struct bytes aad, const uint8_t *src, size_t len,
                     const uint8_t nonce[BKV_NONCE_BYTES], const uint8_t tag[BKV_TAG_BYTES],
                     uint8_t *dst)
{
    return -EACCES;
}

int bkv_codec_unseal_some(struct bkv_codec *c, struct bytes aad, struct bytes src,
                          const uint8_t nonce[BKV_NONCE_BYTES], const uint8_t tag[BKV_TAG_BYTES],
                          uint8_t *dst, size_t want)
{
    return -EACCES;
}

#endif

void bkv_codec_start(struct bkv_codec *c, uint32_t epoch)
{
    if (c == NULL)
        return;
    c->epoch = epoch;
    rt_random(&c->counter, sizeof(c->counter));
    c->started = true;
}

void bkv_codec_hash_key(const struct bkv_codec *c, uint64_t secret[2])
{
    if (c == NULL)
        return;
    secret[0] ^= c->hash_mask[0];
    secret[1] ^= c->hash_mask[1];
}

bool bkv_codec_seals(const struct bkv_codec *c)
{
    return c != NULL && c->sealed;
}

#define PAGE_AAD_BYTES 16

static struct bytes page_aad(uint64_t addr, uint32_t gen, uint8_t *out)
{
    memcpy(out, "page", 4);
    le64_put(out + 4, addr);
    le32_put(out + 12, gen);
    return bytes_make(out, PAGE_AAD_BYTES);
}

int bkv_codec_seal_page(struct bkv_codec *c, uint64_t addr, uint32_t gen, uint8_t *buf, size_t len,
                        uint8_t out_seal[BKV_SEAL_BYTES])
{
    uint8_t aad[PAGE_AAD_BYTES];

    return bkv_codec_seal(c, page_aad(addr, gen, aad), buf, len, out_seal,
                          out_seal + BKV_NONCE_BYTES);
}

int bkv_codec_open_page(struct bkv_codec *c, uint64_t addr, uint32_t gen, uint8_t *buf, size_t len,
                        const uint8_t seal[BKV_SEAL_BYTES])
{
    uint8_t aad[PAGE_AAD_BYTES];

    return bkv_codec_unseal(c, page_aad(addr, gen, aad), buf, len, seal, seal + BKV_NONCE_BYTES,
                            buf);
}

/* --- compression */

static int zstd_open(struct bkv_codec *c, struct err *why)
{
#ifdef HAVE_LIBZSTD
    c->unzstd = ZSTD_createDCtx();
    if (c->compress == BKV_COMPRESS_ZSTD)
        c->zstd = ZSTD_createCCtx();
    if (c->unzstd == NULL || (c->compress == BKV_COMPRESS_ZSTD && c->zstd == NULL))
        return err_set(why, -ENOMEM, "no memory for zstd");
    return 0;
#else
    return err_set(why, -ENOTSUP, "the store uses zstd, which this build lacks (libzstd)");
#endif
}

static int lz4_open(struct bkv_codec *c, struct err *why)
{
#ifdef HAVE_LIBLZ4
    if (c->compress == BKV_COMPRESS_LZ4)
        c->lz4 = malloc((size_t)MAX(LZ4_sizeofState(), LZ4_sizeofStateHC()));
    if (c->compress == BKV_COMPRESS_LZ4 && c->lz4 == NULL)
        return err_set(why, -ENOMEM, "no memory for lz4");
    return 0;
#else
    return err_set(why, -ENOTSUP, "the store uses lz4, which this build lacks (liblz4)");
#endif
}

uint8_t bkv_codec_compresses(const struct bkv_codec *c)
{
    if (c == NULL)
        return 0;
    return c->compress == BKV_COMPRESS_ZSTD  ? BKV_F_ZSTD
           : c->compress == BKV_COMPRESS_LZ4 ? BKV_F_LZ4
                                             : 0;
}

size_t bkv_codec_pack(struct bkv_codec *c, struct bytes src, uint8_t *dst, size_t room,
                      uint8_t *out_flag)
{
    size_t n = 0;

    if (c == NULL || src.len < PACK_MIN_BYTES)
        return 0;
    room = MIN(room, src.len - 1);
#ifdef HAVE_LIBZSTD
    if (c->compress == BKV_COMPRESS_ZSTD) {
        n = ZSTD_compressCCtx(c->zstd, dst, room, src.ptr, src.len,
                              c->level == 0 ? ZSTD_CLEVEL_DEFAULT : c->level);
        if (ZSTD_isError(n))
            n = 0;
        *out_flag = BKV_F_ZSTD;
    }
#endif
#ifdef HAVE_LIBLZ4
    if (c->compress == BKV_COMPRESS_LZ4) {
        int got = c->level <= 1
                      ? LZ4_compress_fast_extState(c->lz4, (const char *)src.ptr, (char *)dst,
                                                   (int)src.len, (int)room, 1)
                      : LZ4_compress_HC_extStateHC(c->lz4, (const char *)src.ptr, (char *)dst,
                                                   (int)src.len, (int)room, c->level);
        n = got > 0 ? (size_t)got : 0;
        *out_flag = BKV_F_LZ4;
    }
#endif
    return n;
}

size_t bkv_codec_pack_iov(struct bkv_codec *c, const struct iovec *iov, size_t len, uint8_t *dst,
                          size_t room, uint8_t *out_flag)
{
    if (bkv_codec_compresses(c) == 0 || len < PACK_MIN_BYTES)
        return 0;
    if (iov->iov_len >= len)
        return bkv_codec_pack(c, bytes_make(iov->iov_base, len), dst, room, out_flag);
    must(len <= sizeof(c->gather));
    for (size_t at = 0; at < len; iov++) {
        size_t n = MIN(iov->iov_len, len - at);

        if (n > 0)
            memcpy(c->gather + at, iov->iov_base, n);
        at += n;
    }
    return bkv_codec_pack(c, bytes_make(c->gather, len), dst, room, out_flag);
}

int bkv_codec_unpack(struct bkv_codec *c, uint8_t flags, struct bytes src, uint8_t *dst,
                     size_t raw_len)
{
    if (c == NULL)
        return -EBADMSG;
#ifdef HAVE_LIBZSTD
    if ((flags & BKV_F_ZSTD) != 0 && c->unzstd != NULL)
        return ZSTD_decompressDCtx(c->unzstd, dst, raw_len, src.ptr, src.len) == raw_len ? 0
                                                                                         : -EBADMSG;
#endif
#ifdef HAVE_LIBLZ4
    if ((flags & BKV_F_LZ4) != 0)
        return LZ4_decompress_safe((const char *)src.ptr, (char *)dst, (int)src.len,
                                   (int)raw_len) == (int)raw_len
                   ? 0
                   : -EBADMSG;
#endif
    return -EBADMSG;
}

/* --- opening */

int bkv_codec_parse(const char *compress, uint64_t level, struct bkv_codec_opts *opts,
                    struct err *why)
{
    uint64_t max = 19;

    if (compress == NULL)
        opts->compress = BKV_COMPRESS_DEFAULT;
    else if (strcmp(compress, "none") == 0)
        opts->compress = BKV_COMPRESS_NONE;
    else if (strcmp(compress, "zstd") == 0)
        opts->compress = BKV_COMPRESS_ZSTD;
    else if (strcmp(compress, "lz4") == 0)
        opts->compress = BKV_COMPRESS_LZ4;
    else
        return err_set(why, -EINVAL, "compress=%s is not known: zstd, lz4 or none", compress);
    if (opts->compress == BKV_COMPRESS_LZ4)
        max = 12;
    if (level > max)
        return err_set(why, -EINVAL, "level=%llu: 1 to %llu, or 0 for the default",
                       (unsigned long long)level, (unsigned long long)max);
    opts->level = (int)level;
    return 0;
}

void bkv_codec_free(struct bkv_codec *c)
{
    if (c == NULL)
        return;
    seal_free(c);
#ifdef HAVE_LIBZSTD
    ZSTD_freeCCtx(c->zstd);
    ZSTD_freeDCtx(c->unzstd);
#endif
#ifdef HAVE_LIBLZ4
    free(c->lz4);
#endif
    bkv_wipe(c, sizeof(*c));
    free(c);
}

/* The store's compression becomes what was asked for. */
static void choose_compression(const struct bkv_codec_opts *opts, struct bkv_super *super)
{
    uint32_t incompat = le32_get(super->incompat);

    if (opts->compress != BKV_COMPRESS_DEFAULT) {
        super->compress = (uint8_t)opts->compress;
        super->level = (uint8_t)opts->level;
    }
    if (super->compress == BKV_COMPRESS_ZSTD)
        incompat |= BKV_INCOMPAT_ZSTD;
    if (super->compress == BKV_COMPRESS_LZ4)
        incompat |= BKV_INCOMPAT_LZ4;
    super->incompat = le32_make(incompat);
}

static int codec_make(struct rt_task *t, const struct bkv_codec_opts *opts, struct bkv_super *super,
                      bool create, struct bkv_codec **out_codec, struct err *why)
{
    uint32_t incompat = le32_get(super->incompat);
    struct bkv_codec *c;
    int rc = 0;

    if ((incompat & (BKV_INCOMPAT_ZSTD | BKV_INCOMPAT_LZ4 | BKV_INCOMPAT_SEALED)) == 0) {
        *out_codec = NULL;
        return 0;
    }
    if (super->compress > BKV_COMPRESS_LZ4)
        return err_set(why, -ENOTSUP,
                       "the store is compressed in a way this version does not "
                       "know");
    c = calloc(1, sizeof(*c));
    if (c == NULL)
        return err_set(why, -ENOMEM, "no memory");
    c->compress = super->compress;
    c->level = super->level;
    if ((incompat & BKV_INCOMPAT_ZSTD) != 0)
        rc = zstd_open(c, why);
    if (rc == 0 && (incompat & BKV_INCOMPAT_LZ4) != 0)
        rc = lz4_open(c, why);
    if (rc == 0 && (incompat & BKV_INCOMPAT_SEALED) != 0)
        rc = seal_open(t, c, opts, super, create, why);
    if (rc < 0) {
        bkv_codec_free(c);
        return rc;
    }
    *out_codec = c;
    return 0;
}

int bkv_codec_create(struct rt_task *t, const struct bkv_codec_opts *opts, struct bkv_super *super,
                     struct bkv_codec **out_codec, struct err *why)
{
    bool seal = opts->key_file != NULL || opts->key_command != NULL;

    super->incompat = le32_make(seal ? BKV_INCOMPAT_SEALED : 0);
    choose_compression(opts, super);
    return codec_make(t, opts, super, true, out_codec, why);
}

int bkv_codec_open(struct rt_task *t, const struct bkv_codec_opts *opts, struct bkv_super *super,
                   struct bkv_codec **out_codec, struct err *why)
{
    bool seal = opts->key_file != NULL || opts->key_command != NULL;

    if (seal && (le32_get(super->incompat) & BKV_INCOMPAT_SEALED) == 0)
        return err_set(why, -EINVAL,
                       "the store is not encrypted, but a key was given: encryption "
                       "is chosen when a store is made");
    choose_compression(opts, super);
    return codec_make(t, opts, super, false, out_codec, why);
}
