/* SPDX-License-Identifier: MIT */
/*
 * What the parts of bench_store share: load.c makes requests, rig.c executes them without a network, report.c prints
 * what came out; speed.c, memory.c and stall.c measure.
 */
#ifndef CRABCACHE_TESTS_BENCH_STORE_BENCH_H
#define CRABCACHE_TESTS_BENCH_STORE_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "client/load/random.h"
#include "server/dispatch.h"
#include "server/stats.h"
#include "server/store/store.h"

#define BATCH     64U
#define KEY_BYTES 16U
#define MAX_VALUE 4096U

/** How much is measured: 1, or more for a short run whose figures are worth less. */
extern unsigned hurry;

/* ---- load.c: what is asked ---- */

/** Which ids a stream names, and what it asks of them. */
struct load {
    uint64_t items;      /**< Ids are below this. */
    uint64_t seed;
    unsigned put_percent;
    size_t value_len;    /**< Of puts, up to MAX_VALUE. */
    uint64_t ttl_ms;     /**< Of puts; 0: none. */
    bool zipf;           /**< With exponent 0.99, else uniform. */
};

/** Requests, encoded beforehand, in batches of BATCH. */
struct stream {
    uint8_t *bytes;
    size_t mapped;
    uint32_t *ends; /**< Offset behind each batch's last byte, from the batch before. */
    size_t batches;
};

void name_key(uint8_t key[KEY_BYTES], uint64_t id);

/** @brief Append a request. @return its bytes. */
size_t encode_get(uint8_t *to, uint64_t id);
size_t encode_put(uint8_t *to, uint64_t id, size_t value_len, uint64_t ttl_ms);

void stream_make(struct stream *stream, const struct load *load, size_t requests);
void stream_free(struct stream *stream);

/* ---- rig.c: who answers ---- */

/** What all workers of a server share, without the server. */
struct rig {
    struct store *store;
    struct stats stats;
    struct buf_budget budget;
    uint64_t now_ms; /**< The store's clock, if it is not the real one. */
};

/** One worker. */
struct rig_worker {
    struct rig *rig;
    struct dispatch *dispatch;
    struct session session;
    struct buf_pool pool;
    struct buf_out out;
    struct buf_ref refs[BUF_OUT_REFS];
    uint8_t *out_bytes;
};

/** @brief Make a store. @param fake_clock  its time is rig->now_ms. */
void rig_init(struct rig *rig, size_t memory, enum store_eviction eviction, bool fake_clock);
void rig_fini(struct rig *rig);

/** @brief Touch the memory that so many items will take, so that it costs nothing later. */
void rig_touch(struct rig *rig, uint64_t items);
void rig_attach(struct rig_worker *worker, struct rig *rig, unsigned number);
void rig_detach(struct rig_worker *worker);

/** @brief Execute whole requests, throw the replies away. @return bytes of the replies. */
size_t rig_run(struct rig_worker *worker, const uint8_t *bytes, size_t len);

/** @brief Execute a stream. @return nanoseconds of CPU time. */
uint64_t rig_run_stream(struct rig_worker *worker, const struct stream *stream);

/** @brief Put the ids from `first` on. */
void rig_fill(struct rig_worker *worker, uint64_t first, uint64_t items, size_t value_len, uint64_t ttl_ms);

uint64_t cpu_ns(void);
uint64_t wall_ns(void);

/** @brief Bytes resident now. */
double resident_bytes(void);

/**
 * @brief Touch so many bytes and give them back. The first touch of a virtual machine's memory may cost its host much
 *        more than the kernel in it; that is not what is measured here.
 */
void warm_memory(size_t bytes);

/* ---- report.c: what came out ---- */

enum sense { AT_LEAST, AT_MOST, NO_TARGET };

/** @brief Add a line to the table. @param target  ignored with NO_TARGET. */
void report(const char *part, enum sense sense, double target, double measured, const char *unit, const char *note,
            const char *format, ...) __attribute__((format(printf, 7, 8)));

/** @brief Print all lines as a Markdown table, and as JSON to `json` unless it is NULL. @return 0, or an errno value. */
int report_print(const char *json);

double median(double *values, size_t count);

/* ---- the parts ---- */

void measure_speed(void);
void measure_speed_many(void);
void measure_speed_small_pages(void);
void measure_threads(void);
void measure_overhead(void);
void measure_overwrite(void);
void measure_stalls_growing(void);
void measure_stalls_growing_untouched(void);
void measure_stalls_growing_touched(void);
void measure_stalls_evicting(void);
void measure_stalls_both_evicting(void);
void measure_stalls_expiring(void);
void measure_stalls_of_nothing(void);

#endif
