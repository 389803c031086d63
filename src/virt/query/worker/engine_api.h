/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The C functions of libduckdb that are used, declared here, so that building needs no header of
 * DuckDB and no library. They were compared by hand with the duckdb.h of v1.5.6. The library is
 * opened by path and asked for its version: another one is refused, since it may differ.
 */
#ifndef KVASIR_QUERY_WORKER_ENGINE_API_H
#define KVASIR_QUERY_WORKER_ENGINE_API_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ENGINE_VERSION "v1.5.6"

struct ArrowSchema;
struct ArrowArray;

typedef uint64_t idx_t;
typedef struct duckdb_database_s *duckdb_database;
typedef struct duckdb_connection_s *duckdb_connection;
typedef struct duckdb_config_s *duckdb_config;
typedef struct duckdb_prepared_s *duckdb_prepared;
typedef struct duckdb_pending_s *duckdb_pending;
typedef struct duckdb_extracted_s *duckdb_extracted;
typedef struct duckdb_chunk_s *duckdb_chunk;
typedef struct duckdb_vector_s *duckdb_vector;
typedef struct duckdb_type_s *duckdb_type;
typedef struct duckdb_error_s *duckdb_error;
typedef struct duckdb_arrow_options_s *duckdb_arrow_options;
typedef struct duckdb_value_s *duckdb_value;
typedef struct duckdb_replacement_s *duckdb_replacement;
typedef void (*duckdb_replacement_fn)(duckdb_replacement, const char *table, void *arg);
typedef void (*duckdb_delete_fn)(void *arg);
typedef enum { DUCKDB_OK = 0, DUCKDB_ERROR = 1 } duckdb_state;

typedef struct {
    idx_t columns, rows, changed; /* not to be used */
    void *column;
    char *error;
    void *internal;
} duckdb_result;

#define DUCKDB_STATEMENT_SELECT 1
#define DUCKDB_STATEMENT_COPY 11
#define DUCKDB_TYPE_BIGINT 5
#define DUCKDB_TYPE_VARCHAR 17

/* X(return type, name without duckdb_, arguments) */
#define ENGINE_FUNCTIONS(X)                                                                        \
    X(const char *, library_version, (void))                                                       \
    X(duckdb_state, create_config, (duckdb_config *))                                              \
    X(duckdb_state, set_config, (duckdb_config, const char *name, const char *value))              \
    X(void, destroy_config, (duckdb_config *))                                                     \
    X(duckdb_state, open_ext,                                                                      \
      (const char *path, duckdb_database *, duckdb_config, char **out_error))                      \
    X(void, close, (duckdb_database *))                                                            \
    X(duckdb_state, connect, (duckdb_database, duckdb_connection *))                               \
    X(void, disconnect, (duckdb_connection *))                                                     \
    X(void, interrupt, (duckdb_connection))                                                        \
    X(void, free, (void *))                                                                        \
    X(duckdb_state, query, (duckdb_connection, const char *sql, duckdb_result *))                  \
    X(void, destroy_result, (duckdb_result *))                                                     \
    X(const char *, result_error, (duckdb_result *))                                               \
    X(int, result_error_type, (duckdb_result *))                                                   \
    X(idx_t, column_count, (duckdb_result *))                                                      \
    X(const char *, column_name, (duckdb_result *, idx_t column))                                  \
    X(int, column_type, (duckdb_result *, idx_t column))                                           \
    X(duckdb_type, column_logical_type, (duckdb_result *, idx_t column))                           \
    X(void, destroy_logical_type, (duckdb_type *))                                                 \
    X(idx_t, rows_changed, (duckdb_result *))                                                      \
    X(char *, value_varchar, (duckdb_result *, idx_t column, idx_t row)) /* free() it */           \
    X(int64_t, value_int64, (duckdb_result *, idx_t column, idx_t row))                            \
    X(duckdb_chunk, fetch_chunk, (duckdb_result))                                                  \
    X(void, destroy_data_chunk, (duckdb_chunk *))                                                  \
    X(idx_t, data_chunk_get_size, (duckdb_chunk))                                                  \
    X(idx_t, data_chunk_get_column_count, (duckdb_chunk))                                          \
    X(duckdb_vector, data_chunk_get_vector, (duckdb_chunk, idx_t column))                          \
    X(void *, vector_get_data, (duckdb_vector))                                                    \
    X(uint64_t *, vector_get_validity, (duckdb_vector))                                            \
    X(duckdb_state, prepare, (duckdb_connection, const char *sql, duckdb_prepared *))              \
    X(void, destroy_prepare, (duckdb_prepared *))                                                  \
    X(const char *, prepare_error, (duckdb_prepared))                                              \
    X(idx_t, nparams, (duckdb_prepared))                                                           \
    X(int, prepared_statement_type, (duckdb_prepared))                                             \
    X(duckdb_state, bind_varchar_length,                                                           \
      (duckdb_prepared, idx_t from_1, const char *, idx_t len))                                    \
    X(duckdb_state, execute_prepared, (duckdb_prepared, duckdb_result *))                          \
    X(duckdb_state, pending_prepared_streaming, (duckdb_prepared, duckdb_pending *))               \
    X(void, destroy_pending, (duckdb_pending *))                                                   \
    X(const char *, pending_error, (duckdb_pending))                                               \
    X(duckdb_state, execute_pending, (duckdb_pending, duckdb_result *))                            \
    X(idx_t, extract_statements, (duckdb_connection, const char *sql, duckdb_extracted *))         \
    X(duckdb_state, prepare_extracted_statement,                                                   \
      (duckdb_connection, duckdb_extracted, idx_t index, duckdb_prepared *))                       \
    X(const char *, extract_statements_error, (duckdb_extracted))                                  \
    X(void, destroy_extracted, (duckdb_extracted *))                                               \
    X(void, add_replacement_scan,                                                                  \
      (duckdb_database, duckdb_replacement_fn, void *arg, duckdb_delete_fn))                       \
    X(void, replacement_scan_set_function_name, (duckdb_replacement, const char *))                \
    X(void, replacement_scan_add_parameter, (duckdb_replacement, duckdb_value))                    \
    X(duckdb_type, create_logical_type, (int type))                                                \
    X(duckdb_type, create_struct_type, (duckdb_type * members, const char **names, idx_t n))       \
    X(duckdb_value, create_varchar, (const char *))                                                \
    X(duckdb_value, create_bool, (bool))                                                           \
    X(duckdb_value, create_int64, (int64_t))                                                       \
    X(duckdb_value, create_uint64, (uint64_t))                                                     \
    X(duckdb_value, create_list_value, (duckdb_type, duckdb_value *, idx_t n))                     \
    X(duckdb_value, create_struct_value, (duckdb_type, duckdb_value *))                            \
    X(void, destroy_value, (duckdb_value *))                                                       \
    X(void, connection_get_arrow_options, (duckdb_connection, duckdb_arrow_options *))             \
    X(void, destroy_arrow_options, (duckdb_arrow_options *))                                       \
    X(duckdb_error, to_arrow_schema,                                                               \
      (duckdb_arrow_options, duckdb_type *, const char **names, idx_t n, struct ArrowSchema *))    \
    X(duckdb_error, data_chunk_to_arrow,                                                           \
      (duckdb_arrow_options, duckdb_chunk, struct ArrowArray *))                                   \
    X(bool, error_data_has_error, (duckdb_error))                                                  \
    X(const char *, error_data_message, (duckdb_error))                                            \
    X(void, destroy_error_data, (duckdb_error *))

struct engine_api {
#define ENGINE_MEMBER(type, name, args) type(*name) args;
    ENGINE_FUNCTIONS(ENGINE_MEMBER)
#undef ENGINE_MEMBER
};
extern struct engine_api duck;

/**
 * Opens the library and fills `duck`. 0; -ENOENT no library there, -ENOTSUP not one that will do;
 * `text` says which and what to do.
 */
int engine_api_load(const char *path, char *text, size_t text_size);

#endif
