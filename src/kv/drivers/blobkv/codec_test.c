/* SPDX-License-Identifier: Apache-2.0 */
/* Codecs: opened as users do it, records through them, and everything that must be refused. */
#include "kv/drivers/blobkv/record.h"

#include "config.h"
#include "rt/rt.h"

#ifdef HAVE_LIBCRYPTO
#include <openssl/evp.h>
#endif

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#define ADDR 0x10000u
#define GEN 3u
#define HEX_KEY "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F\n"

static uint8_t buf[2 * BKV_INLINE_MAX], scratch[BKV_SCRATCH_BYTES], back[BKV_INLINE_MAX];
static char key_path[] = "codec_test-XXXXXX";

/* Opening may wait: each in a runtime of its own. */
struct opening {
    struct bkv_codec_opts opts;
    struct bkv_super *super;
    struct bkv_codec *codec;
    struct err why;
    bool create;
    uint32_t epoch;
};

static int opening_task(struct rt_task *t, void *arg)
{
    struct opening *o = arg;
    int rc = o->create ? bkv_codec_create(t, &o->opts, o->super, &o->codec, &o->why)
                       : bkv_codec_open(t, &o->opts, o->super, &o->codec, &o->why);

    if (rc == 0)
        bkv_codec_start(o->codec, o->epoch);
    return rc;
}

static int run(struct opening *o)
{
    struct rt_config cfg = {.poll = RT_POLL_NEVER, .buf_bytes = MIB};

    o->why.text[0] = '\0';
    return rt_run(&cfg, opening_task, o, &o->why);
}

static void write_key(const char *text, size_t len, mode_t mode)
{
    int fd = open(key_path, O_WRONLY | O_TRUNC);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, len), len);
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static int setup(void **state)
{
    int fd = mkstemp(key_path);

    close(fd);
    return fd < 0 ? -1 : 0;
}

static int teardown(void **state)
{
    return unlink(key_path);
}

static void fill(uint8_t *p, size_t len, bool random)
{
    uint64_t x = 88172645463325252u;

    for (size_t i = 0; i < len; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        p[i] = random ? (uint8_t)x : "compressible "[i % 13];
    }
}

static struct bkv_record_in value_in(const struct iovec *iov, unsigned iovcnt)
{
    return (struct bkv_record_in){
        .type = BKV_VALUE,
        .key = bytes_of_str("the key"),
        .hash = 77,
        .seq = 5,
        .iov = iov,
        .iovcnt = iovcnt,
        .value_bytes = (uint32_t)iov_len(iov, iovcnt),
        .value_len = iov_len(iov, iovcnt),
    };
}

/* A value of `len` bytes there and back; returns the record's length. */
static int round_trip(struct bkv_codec *codec, uint32_t len, bool random)
{
    static uint8_t value[BKV_INLINE_MAX];
    uint64_t off = len / 3, moved;
    struct iovec iov[2] = {{value, off}, {value + off, len - off}};
    struct iovec out_iov = {back, sizeof(back)};
    struct bkv_record_in in = value_in(iov, 2);
    struct bkv_record_out out;
    struct bytes key;
    uint32_t need;
    int n;

    fill(value, len, random);
    memset(buf, 0xee, sizeof(buf));
    n = bkv_record_encode(codec, &in, ADDR, GEN, buf, bkv_record_len(7, len) + BKV_CODEC_EXTRA);
    assert_true(n > 0 && n % 16 == 0);
    assert_int_equal(buf[n], 0xee);
    assert_int_equal(bkv_record_decode(buf, (size_t)n, ADDR, GEN, &out, NULL), n);
    assert_int_equal(out.value_len, len);
    memset(back, 0, sizeof(back));
    assert_int_equal(bkv_record_key(codec, &out, scratch, &key), 0);
    assert_true(bytes_eq(key, bytes_of_str("the key")));
    assert_int_equal(bkv_record_value(codec, &out, off, UINT64_MAX, &out_iov, 1, scratch, &moved),
                     0);
    assert_int_equal(moved, len - off);
    assert_memory_equal(back, value + off, moved);
    assert_int_equal(bkv_record_search(codec, buf, sizeof(buf), ADDR, GEN, 512,
                                       bytes_of_str("the key"), 77, scratch, &out, &need),
                     0);
    assert_int_equal(bkv_record_search(codec, buf, sizeof(buf), ADDR, GEN, 512,
                                       bytes_of_str("one key"), 77, scratch, &out, &need),
                     -ENOENT);
    return n;
}

static void check_codec(struct bkv_codec *codec, bool packs, bool seals)
{
    static const uint32_t lens[] = {0, 1, 63, 64, 100, 4096, 20000, BKV_INLINE_MAX};

    assert_int_equal(bkv_codec_seals(codec), seals);
    for (unsigned i = 0; i < ARRAY_LEN(lens); i++) {
        uint32_t plain = bkv_record_len(7, lens[i] + (seals ? BKV_SEAL_BYTES : 0));
        int random = round_trip(codec, lens[i], true);
        int text = round_trip(codec, lens[i], false);

        assert_int_equal(random, plain); /* what does not shrink is stored as it is */
        if (packs && lens[i] >= 64)
            assert_true(text < (int)plain);
        else
            assert_int_equal(text, plain);
    }
}

static void no_codec_is_null(void **state)
{
    struct bkv_super super = {0};
    struct opening o = {.super = &super, .create = true};

    assert_int_equal(run(&o), 0);
    assert_null(o.codec);
    assert_int_equal(le32_get(super.incompat), 0);
    check_codec(NULL, false, false);
    o.opts.key_file = key_path;
    o.create = false;
    assert_int_equal(run(&o), -EINVAL);
    assert_non_null(strstr(o.why.text, "not encrypted"));
}

static void parsing_says_what_is_allowed(void **state)
{
    struct bkv_codec_opts opts;
    struct err why;

    assert_int_equal(bkv_codec_parse(NULL, 0, &opts, &why), 0);
    assert_int_equal(opts.compress, BKV_COMPRESS_DEFAULT);
    assert_int_equal(bkv_codec_parse("lz4", 12, &opts, &why), 0);
    assert_int_equal(opts.compress, BKV_COMPRESS_LZ4);
    assert_int_equal(opts.level, 12);
    assert_int_equal(bkv_codec_parse("lz4", 13, &opts, &why), -EINVAL);
    assert_int_equal(bkv_codec_parse("gzip", 1, &opts, &why), -EINVAL);
    assert_non_null(strstr(why.text, "zstd, lz4 or none"));
}

static void compression(enum bkv_compress compress, uint32_t bit, int level)
{
    struct bkv_super super = {0};
    struct opening o = {.super = &super, .create = true};
    struct bkv_codec *first;
    uint8_t flag = 0, packed[200], raw[4096], got[4096];
    size_t n;

    o.opts.compress = compress;
    o.opts.level = level;
    assert_int_equal(run(&o), 0);
    assert_int_equal(le32_get(super.incompat), bit);
    check_codec(o.codec, true, false);
    fill(raw, sizeof(raw), false);
    n = bkv_codec_pack(o.codec, bytes_make(raw, sizeof(raw)), packed, sizeof(packed), &flag);
    assert_true(n > 0 && n < sizeof(packed));
    /* Opened again without asking: as it was; asked for none: reads what is there. */
    first = o.codec;
    o.create = false;
    o.opts.compress = BKV_COMPRESS_DEFAULT;
    assert_int_equal(run(&o), 0);
    assert_int_equal(bkv_codec_compresses(o.codec), flag);
    bkv_codec_free(o.codec);
    o.opts.compress = BKV_COMPRESS_NONE;
    assert_int_equal(run(&o), 0);
    assert_int_equal(bkv_codec_compresses(o.codec), 0);
    assert_int_equal(le32_get(super.incompat), bit);
    assert_int_equal(bkv_codec_unpack(o.codec, flag, bytes_make(packed, n), got, 4096), 0);
    assert_memory_equal(got, raw, 4096);
    assert_int_equal(bkv_codec_unpack(o.codec, flag, bytes_make(packed, n), got, 4095), -EBADMSG);
    assert_int_equal(bkv_codec_unpack(o.codec, flag, bytes_make(packed, n - 1), got, 4096),
                     -EBADMSG);
    bkv_codec_free(o.codec);
    bkv_codec_free(first);
}

#ifdef HAVE_LIBZSTD
static void zstd(void **state)
{
    compression(BKV_COMPRESS_ZSTD, BKV_INCOMPAT_ZSTD, 0);
    compression(BKV_COMPRESS_ZSTD, BKV_INCOMPAT_ZSTD, 1);
}
#endif

#ifdef HAVE_LIBLZ4
static void lz4(void **state)
{
    compression(BKV_COMPRESS_LZ4, BKV_INCOMPAT_LZ4, 0);
    compression(BKV_COMPRESS_LZ4, BKV_INCOMPAT_LZ4, 9);
}
#endif

#ifdef HAVE_LIBCRYPTO

static struct opening sealed(struct bkv_super *super)
{
    struct opening o = {.super = super, .create = true};

    *super = (struct bkv_super){0};
    memset(super->uuid, 0x42, sizeof(super->uuid));
    write_key(HEX_KEY, strlen(HEX_KEY), 0600);
    o.opts.key_file = key_path;
    assert_int_equal(run(&o), 0);
    assert_int_equal(le32_get(super->incompat), BKV_INCOMPAT_SEALED);
    return o;
}

static void sealed_records_come_back(void **state)
{
    struct bkv_super super;
    struct opening o = sealed(&super);
    struct bkv_record_out out;
    struct bytes key;
    uint64_t secret[2] = {1, 2}, moved;
    struct iovec iov = {back, 1};

    check_codec(o.codec, false, true);
    round_trip(o.codec, 1000, false);
    assert_null(memmem(buf, 1200, "the key", 7));
    assert_null(memmem(buf, 1200, "compressible", 12));
    bkv_codec_hash_key(o.codec, secret);
    assert_true(secret[0] != 1 && secret[1] != 2);
    /* Without the codec a record can be checked, but not read. */
    assert_true(bkv_record_decode(buf, sizeof(buf), ADDR, GEN, &out, NULL) > 0);
    assert_int_equal(bkv_record_key(NULL, &out, scratch, &key), -EACCES);
    assert_int_equal(bkv_record_value(NULL, &out, 0, 1, &iov, 1, scratch, &moved), -EACCES);
    bkv_codec_free(o.codec);
    /* Opened again it reads the same record. */
    o.create = false;
    assert_int_equal(run(&o), 0);
    assert_int_equal(bkv_record_key(o.codec, &out, scratch, &key), 0);
    assert_true(bytes_eq(key, bytes_of_str("the key")));
    bkv_codec_free(o.codec);
}

/* Flips each bit of a record that its owner made whole again: only the tag is left to see it. */
static void tampering_is_seen(void **state)
{
    struct bkv_super super;
    struct opening o = sealed(&super);
    int n = round_trip(o.codec, 40, true);
    uint32_t used = 32 + 7 + 40 + BKV_SEAL_BYTES;
    struct bkv_record_out out;
    struct bytes key;
    struct iovec iov = {back, sizeof(back)};
    uint64_t moved;

    for (uint32_t bit = 32; bit < used * 8; bit++) {
        int rc;

        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
        le32_put(buf, bkv_crc(ADDR, GEN, buf + 4, used - 4));
        rc = bkv_record_decode(buf, (size_t)n, ADDR, GEN, &out, NULL);
        if (rc > 0 && (out.flags & BKV_F_SEALED) != 0) {
            assert_int_equal(bkv_record_key(o.codec, &out, scratch, &key), -EBADMSG);
            assert_int_equal(bkv_record_value(o.codec, &out, 0, 40, &iov, 1, scratch, &moved),
                             -EBADMSG);
        } else {
            assert_true(rc == -EBADMSG || rc == -E2BIG);
        }
        buf[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    bkv_codec_free(o.codec);
}

static void records_move_without_the_key(void **state)
{
    struct bkv_super super;
    struct opening o = sealed(&super);
    int n = round_trip(o.codec, 100, true);
    uint32_t used = 32 + 7 + 100 + BKV_SEAL_BYTES;
    struct bkv_record_out out;
    struct bytes key;

    le32_put(buf, bkv_crc(ADDR + 4096, GEN + 1, buf + 4, used - 4));
    assert_int_equal(bkv_record_decode(buf, (size_t)n, ADDR + 4096, GEN + 1, &out, NULL), n);
    assert_int_equal(bkv_record_key(o.codec, &out, scratch, &key), 0);
    bkv_codec_free(o.codec);
}

static void pages_are_bound_to_their_place(void **state)
{
    struct bkv_super super;
    struct opening o = sealed(&super);
    uint8_t page[4000], was[4000], seal[BKV_SEAL_BYTES];

    fill(page, sizeof(page), true);
    memcpy(was, page, sizeof(was));
    assert_int_equal(bkv_codec_seal_page(o.codec, 4096, 1, page, sizeof(page), seal), 0);
    assert_memory_not_equal(page, was, 64);
    memcpy(buf, page, sizeof(page));
    assert_int_equal(bkv_codec_open_page(o.codec, 8192, 1, buf, sizeof(page), seal), -EBADMSG);
    memcpy(buf, page, sizeof(page));
    assert_int_equal(bkv_codec_open_page(o.codec, 4096, 2, buf, sizeof(page), seal), -EBADMSG);
    memcpy(buf, page, sizeof(page));
    assert_int_equal(bkv_codec_open_page(o.codec, 4096, 1, buf, sizeof(page), seal), 0);
    assert_memory_equal(buf, was, sizeof(was));
    bkv_codec_free(o.codec);
}

static void nonces_never_come_twice(void **state)
{
    struct bkv_super super;
    struct opening o = sealed(&super);
    uint8_t nonce[3][BKV_NONCE_BYTES], tag[BKV_TAG_BYTES], data[16] = {0};

    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(
            bkv_codec_seal(o.codec, bytes_make("", 0), data, sizeof(data), nonce[i], tag), 0);
    assert_int_equal(le64_at(nonce[1] + 4), le64_at(nonce[0] + 4) + 1);
    bkv_codec_free(o.codec);
    o.create = false;
    o.epoch = 2;
    assert_int_equal(run(&o), 0);
    assert_int_equal(bkv_codec_seal(o.codec, bytes_make("", 0), data, sizeof(data), nonce[2], tag),
                     0);
    assert_int_equal(le32_at(nonce[0]), 0);
    assert_int_equal(le32_at(nonce[2]), 2);
    bkv_codec_free(o.codec);
}

/* What a reader written from the documentation would do: unwrap by hand, then decrypt. */
static void open_by_hand(const uint8_t *key, const uint8_t *aad, int aad_len, const uint8_t *nonce,
                         const uint8_t *ct, int len, const uint8_t *tag, uint8_t *out)
{
    EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();
    int n;

    assert_int_equal(EVP_DecryptInit_ex(ctx, EVP_aes_256_gcm(), NULL, key, nonce), 1);
    assert_int_equal(EVP_DecryptUpdate(ctx, NULL, &n, aad, aad_len), 1);
    assert_int_equal(EVP_DecryptUpdate(ctx, out, &n, ct, len), 1);
    EVP_CIPHER_CTX_ctrl(ctx, EVP_CTRL_AEAD_SET_TAG, 16, (void *)(uintptr_t)tag);
    assert_int_equal(EVP_DecryptFinal_ex(ctx, out + n, &n), 1);
    EVP_CIPHER_CTX_free(ctx);
}

static void format_is_the_documented_one(void **state)
{
    struct bkv_super super;
    struct opening o = sealed(&super);
    uint8_t user[32], data_key[32], aad[20] = {1}, plain[64];

    for (unsigned i = 0; i < 32; i++)
        user[i] = (uint8_t)i;
    memset(aad + 4, 0x42, 16);
    open_by_hand(user, aad, 20, super.seal + 4, super.seal + 16, 32, super.seal + 48, data_key);
    round_trip(o.codec, 3, false);
    open_by_hand(data_key, buf + 4, 28, buf + 32, buf + 44, 10, buf + 54, plain);
    assert_memory_equal(plain, "the keycom", 10);
    bkv_codec_free(o.codec);
}

static void wrong_keys_are_refused(void **state)
{
    struct bkv_super super;
    struct opening o = sealed(&super);
    char other[] = HEX_KEY;

    bkv_codec_free(o.codec);
    o.create = false;
    o.opts.key_file = NULL;
    assert_int_equal(run(&o), -EACCES);
    assert_non_null(strstr(o.why.text, "key_file=PATH"));
    o.opts.key_file = key_path;
    other[0] = 'f';
    write_key(other, strlen(other), 0600);
    assert_int_equal(run(&o), -EACCES);
    assert_non_null(strstr(o.why.text, "does not open"));
    write_key(HEX_KEY, strlen(HEX_KEY), 0644);
    assert_int_equal(run(&o), -EACCES);
    assert_non_null(strstr(o.why.text, "chmod 600"));
    write_key("a password", 10, 0600);
    assert_int_equal(run(&o), -EINVAL);
    o.opts.key_file = "no/such/file";
    assert_int_equal(run(&o), -ENOENT);
    /* Another store's seal under this uuid, one bit off, a version to come. */
    o.opts.key_file = key_path;
    write_key(HEX_KEY, strlen(HEX_KEY), 0600);
    super.seal[20] ^= 1;
    assert_int_equal(run(&o), -EACCES);
    super.seal[20] ^= 1;
    super.uuid[0] ^= 1;
    assert_int_equal(run(&o), -EACCES);
    super.uuid[0] ^= 1;
    super.seal[0] = 2;
    assert_int_equal(run(&o), -ENOTSUP);
}

static void keys_come_from_commands(void **state)
{
    struct bkv_super super;
    struct opening o = sealed(&super);
    char line[128];

    bkv_codec_free(o.codec);
    o.create = false;
    o.opts.key_file = NULL;
    snprintf(line, sizeof(line), "cat %s", key_path);
    o.opts.key_command = line;
    assert_int_equal(run(&o), 0);
    bkv_codec_free(o.codec);
    /* 32 bytes are a key as they are. */
    o.opts.key_command = "i=0; while [ $i -lt 32 ]; do printf \"\\\\$(printf %o $i)\"; "
                         "i=$((i+1)); done";
    assert_int_equal(run(&o), 0);
    bkv_codec_free(o.codec);
    o.opts.key_command = "exit 3";
    assert_int_equal(run(&o), -EACCES);
    assert_non_null(strstr(o.why.text, "exit status 3"));
    o.opts.key_command = "yes";
    assert_int_equal(run(&o), -EINVAL);
    o.opts.key_file = key_path;
    assert_int_equal(run(&o), -EINVAL);
}

#ifdef HAVE_LIBZSTD
static void compressed_and_sealed(void **state)
{
    struct bkv_super super = {0};
    struct opening o = {.super = &super, .create = true};

    write_key(HEX_KEY, strlen(HEX_KEY), 0600);
    o.opts.key_file = key_path;
    o.opts.compress = BKV_COMPRESS_ZSTD;
    assert_int_equal(run(&o), 0);
    assert_int_equal(le32_get(super.incompat), BKV_INCOMPAT_SEALED | BKV_INCOMPAT_ZSTD);
    check_codec(o.codec, true, true);
    bkv_codec_free(o.codec);
}
#endif
#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_codec_is_null),
        cmocka_unit_test(parsing_says_what_is_allowed),
#ifdef HAVE_LIBZSTD
        cmocka_unit_test(zstd),
#endif
#ifdef HAVE_LIBLZ4
        cmocka_unit_test(lz4),
#endif
#ifdef HAVE_LIBCRYPTO
        cmocka_unit_test(sealed_records_come_back),
        cmocka_unit_test(tampering_is_seen),
        cmocka_unit_test(records_move_without_the_key),
        cmocka_unit_test(pages_are_bound_to_their_place),
        cmocka_unit_test(nonces_never_come_twice),
        cmocka_unit_test(format_is_the_documented_one),
        cmocka_unit_test(wrong_keys_are_refused),
        cmocka_unit_test(keys_come_from_commands),
#ifdef HAVE_LIBZSTD
        cmocka_unit_test(compressed_and_sealed),
#endif
#endif
    };

    return cmocka_run_group_tests_name("kv/blobkv/codec", tests, setup, teardown);
}
