/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Compression (zstd, lz4) and encryption at rest (AES-256-GCM by OpenSSL) of one store. A codec
 * without either is NULL everywhere. Nonces are the store's epoch (durable before the first use,
 * one more for each open that writes) and a counter, so that none comes twice after the log has
 * lost its tail. The counter begins at a random number, so that two copies of one store, written
 * by two machines, do not meet either. The key that encrypts data is random, and itself stored in
 * the super slot wrapped by the user's key, which comes from a file or a command and never from an
 * argument.
 *
 * A codec is for one reactor and makes all it needs when it is opened: nothing here allocates or
 * waits but the opening.
 */
#ifndef KVASIR_KV_BLOBKV_CODEC_H
#define KVASIR_KV_BLOBKV_CODEC_H

#include "base/bytes.h"
#include "base/err.h"

#define BKV_CODEC_EXTRA 64u /* bytes a record may grow by */

#define BKV_NONCE_BYTES 12u
#define BKV_TAG_BYTES 16u
#define BKV_SEAL_BYTES (BKV_NONCE_BYTES + BKV_TAG_BYTES) /* nonce, then tag */
#define BKV_USER_KEY_BYTES 32u

struct bkv_codec;
struct bkv_super;
struct rt_task;

enum bkv_compress {
    BKV_COMPRESS_DEFAULT, /* as the store has it; a new one: none */
    BKV_COMPRESS_NONE,
    BKV_COMPRESS_ZSTD,
    BKV_COMPRESS_LZ4,
};

/** What the user asks for. */
struct bkv_codec_opts {
    enum bkv_compress compress;
    int level;               /* of compression; 0: the library's own */
    const char *key_file;    /* at most one of the two is set; NULL both: not encrypted */
    const char *key_command;
};

/** "zstd", "lz4", "none" or NULL (default) to opts->compress; -EINVAL with text. */
int bkv_codec_parse(const char *compress, uint64_t level, struct bkv_codec_opts *opts,
                    struct err *why);

/**
 * For a new store: sets its incompat bits, compression and seal in `super` (uuid is set already).
 * *out_codec is NULL when nothing is transformed. -EINVAL the key or its file is no good, -EACCES
 * it can be read by everybody, -ENOENT, -ENOTSUP this build cannot; with text. May wait.
 */
int bkv_codec_create(struct rt_task *t, const struct bkv_codec_opts *opts, struct bkv_super *super,
                     struct bkv_codec **out_codec, struct err *why);
/**
 * For a store that is there. Asking for another compression than the store has changes `super`,
 * which has to be durable before anything is written. -EACCES the key is missing or another one;
 * else as above.
 */
int bkv_codec_open(struct rt_task *t, const struct bkv_codec_opts *opts, struct bkv_super *super,
                   struct bkv_codec **out_codec, struct err *why);
/** Wipes the keys. NULL is fine. */
void bkv_codec_free(struct bkv_codec *c);

/** Before the first thing is written: `epoch` is in a durable super slot for the first time. */
void bkv_codec_start(struct bkv_codec *c, uint32_t epoch);
/** Turns what the super slot says into the secret of key hashes, which an encrypted store does not
 * tell to those who have no key. */
void bkv_codec_hash_key(const struct bkv_codec *c, uint64_t secret[2]);

/** Whether what is written is encrypted (what is read may always be, if the store is). */
bool bkv_codec_seals(const struct bkv_codec *c);

/**
 * Encrypts `buf` in place; what belongs to it but stays readable is `aad`. 0, or -EIO.
 * Unsealing may be in place as well; -EBADMSG it has been tampered with, or the key is another
 * one: nothing in dst is to be used then. -EACCES there is no key.
 */
int bkv_codec_seal(struct bkv_codec *c, struct bytes aad, uint8_t *buf, size_t len,
                   uint8_t out_nonce[BKV_NONCE_BYTES], uint8_t out_tag[BKV_TAG_BYTES]);
int bkv_codec_unseal(struct bkv_codec *c, struct bytes aad, const uint8_t *src, size_t len,
                     const uint8_t nonce[BKV_NONCE_BYTES], const uint8_t tag[BKV_TAG_BYTES],
                     uint8_t *dst);
/** As unsealing, but only the first `want` bytes of what becomes of `src` are wanted; the rest, 32
 * KiB at most, is authenticated and forgotten. */
int bkv_codec_unseal_some(struct bkv_codec *c, struct bytes aad, struct bytes src,
                          const uint8_t nonce[BKV_NONCE_BYTES], const uint8_t tag[BKV_TAG_BYTES],
                          uint8_t *dst, size_t want);

/** The same for pages of the index and runs of a checkpoint, in place, bound to where they lie.
 * The checksum of the page is made after sealing and checked before unsealing. */
int bkv_codec_seal_page(struct bkv_codec *c, uint64_t addr, uint32_t gen, uint8_t *buf, size_t len,
                        uint8_t out_seal[BKV_SEAL_BYTES]);
int bkv_codec_open_page(struct bkv_codec *c, uint64_t addr, uint32_t gen, uint8_t *buf, size_t len,
                        const uint8_t seal[BKV_SEAL_BYTES]);

/**
 * Encrypts or decrypts pages of a checkpoint's root in place, if the store is sealed: AES-256-XTS
 * by address, as disks do it, because it keeps the length. What it says is as little authenticated
 * as the super slot that names it; leaves and records are. 0; -EIO.
 */
int bkv_codec_crypt_root(struct bkv_codec *c, uint64_t addr, uint8_t *pages, size_t len,
                         bool encrypt);

/** How the store compresses now: a BKV_F_* flag, or 0. */
uint8_t bkv_codec_compresses(const struct bkv_codec *c);
/**
 * Compresses src into dst. Returns the length, less than src.len and at most `room`, and the flag;
 * 0 when it is not worth it.
 */
size_t bkv_codec_pack(struct bkv_codec *c, struct bytes src, uint8_t *dst, size_t room,
                      uint8_t *out_flag);
/** As bkv_codec_pack() of bytes in iovecs; at most 32 KiB. */
size_t bkv_codec_pack_iov(struct bkv_codec *c, const struct iovec *iov, size_t len, uint8_t *dst,
                          size_t room, uint8_t *out_flag);
/** Back to exactly raw_len bytes; `flags` has one of BKV_F_ZSTD, BKV_F_LZ4. 0; -EBADMSG; -ENOTSUP
 * this build lacks the library. */
int bkv_codec_unpack(struct bkv_codec *c, uint8_t flags, struct bytes src, uint8_t *dst,
                     size_t raw_len);

/* --- codec_key.c */

/** Reads the user's key. -EINVAL, -EACCES, -ENOENT, -EIO, -ETIMEDOUT with text. May wait. */
int bkv_user_key(struct rt_task *t, const struct bkv_codec_opts *opts,
                 uint8_t out_key[BKV_USER_KEY_BYTES], struct err *why);
void bkv_wipe(void *p, size_t len);

#endif
