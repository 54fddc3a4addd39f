/* SPDX-License-Identifier: MIT */
/*
 * crabcache-replay: read a stream of requests, deal them out to workers by key, sum up what they counted.
 *
 *     source --> main thread: hash, prefix --> feeds (bounded) --> workers (worker.c), one connection each
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "client/replay/options.h"
#include "client/replay/report.h"
#include "client/replay/source.h"
#include "client/replay/value.h"
#include "client/replay/worker.h"

#define PROGRESS_NS UINT64_C(250000000)

struct replay {
    struct options options;
    struct source *source;
    struct worker *workers;
    uint32_t running; /* workers whose thread was started */
    struct report report;
    uint64_t start_ns;
    uint64_t shown_ns;
    uint8_t key[CRAB_MAX_KEY];
};

static uint64_t now_ns(void)
{
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static void show_progress(struct replay *replay, bool now)
{
    if (!replay->options.progress)
        return;
    uint64_t time_ns = now_ns();
    if (!now && time_ns - replay->shown_ns < PROGRESS_NS)
        return;
    uint64_t requests = 0;
    uint64_t hits = 0;
    for (uint32_t i = 0; i < replay->options.threads; i++) {
        requests += atomic_load_explicit(&replay->workers[i].progress, memory_order_relaxed);
        hits += atomic_load_explicit(&replay->workers[i].progress_hits, memory_order_relaxed);
    }
    report_progress(requests, hits, time_ns - replay->start_ns);
    replay->shown_ns = time_ns;
}

static int start_workers(struct replay *replay)
{
    for (uint32_t i = 0; i < replay->options.threads; i++) {
        struct worker *worker = &replay->workers[i];
        worker->options = &replay->options.conn;
        worker->depth = replay->options.depth;
        if (worker_init(worker) != 0)
            return -1;
    }
    replay->start_ns = replay->shown_ns = now_ns();
    for (uint32_t i = 0; i < replay->options.threads; i++) {
        int failed = pthread_create(&replay->workers[i].thread, NULL, worker_run, &replay->workers[i]);
        if (failed != 0) {
            (void)fprintf(stderr, "crabcache-replay: cannot start a thread: %s\n", strerror(failed));
            return -1;
        }
        replay->running++;
    }
    return 0;
}

/* Hand one request to its worker. 0; 1: the worker has given up; 2: the key is too long with the prefix. */
static int deal(struct replay *replay, const struct request *request)
{
    size_t prefix_len = strlen(replay->options.prefix);
    size_t key_len = prefix_len + request->key_len;
    if (key_len > sizeof replay->key)
        return 2;
    memcpy(replay->key, replay->options.prefix, prefix_len);
    memcpy(replay->key + prefix_len, request->key, request->key_len);
    uint64_t hash = value_hash(replay->key, key_len);
    struct feed *feed = &replay->workers[(hash >> 32) % replay->options.threads].feed;

    struct batch *batch = feed_to_fill(feed);
    if (batch != NULL && batch->key_used + key_len > FEED_KEY_BYTES) {
        feed_commit(feed);
        batch = feed_to_fill(feed);
    }
    if (batch == NULL)
        return 1;
    memcpy(batch->key_bytes + batch->key_used, replay->key, key_len);
    batch->requests[batch->count++] = (struct fed_request){.hash = hash,
                                                           .key_start = batch->key_used,
                                                           .key_len = (uint32_t)key_len,
                                                           .value_bytes = request->value_bytes};
    batch->key_used += (uint32_t)key_len;
    if (batch->count == FEED_BATCH) {
        feed_commit(feed);
        show_progress(replay, false);
    }
    return 0;
}

/* Read the whole stream. 0, or the exit status of a broken one. */
static int read_stream(struct replay *replay)
{
    struct request request;
    int found = 0;
    for (uint64_t i = 0; i < replay->options.limit && (found = source_next(replay->source, &request)) == 1; i++) {
        int dealt = deal(replay, &request);
        if (dealt == 2) {
            (void)fprintf(stderr, "crabcache-replay: a key of %zu bytes is too long with the prefix\n",
                          request.key_len);
            return REPLAY_USAGE;
        }
        if (dealt != 0)
            return 0; /* its worker says why */
    }
    if (found < 0) {
        (void)fprintf(stderr, "crabcache-replay: %s\n", source_error(replay->source));
        return REPLAY_USAGE;
    }
    return 0;
}

static void finish_workers(struct replay *replay)
{
    for (uint32_t i = 0; i < replay->running; i++) {
        struct feed *feed = &replay->workers[i].feed;
        struct batch *last = feed_to_fill(feed);
        if (last != NULL && last->count != 0)
            feed_commit(feed);
        feed_end(feed);
    }
    for (uint32_t i = 0; i < replay->running; i++)
        (void)pthread_join(replay->workers[i].thread, NULL);
}

static void add_tally(struct tally *sum, const struct tally *part)
{
    sum->requests += part->requests;
    sum->hits += part->hits;
    sum->misses += part->misses;
    sum->keys += part->keys;
    sum->earlier_hits += part->earlier_hits;
    sum->puts += part->puts;
    sum->refused_memory += part->refused_memory;
    sum->refused_size += part->refused_size;
    sum->refused_busy += part->refused_busy;
    sum->failed_gets += part->failed_gets;
    sum->failed_puts += part->failed_puts;
    sum->wrong_values += part->wrong_values;
    sum->verified_bytes += part->verified_bytes;
    sum->put_bytes += part->put_bytes;
}

static int exit_status_of(enum crab_status status)
{
    switch (status) {
    case CRAB_E_SERVER:
        return REPLAY_SERVER;
    case CRAB_E_INVALID:
        return REPLAY_USAGE;
    case CRAB_E_NO_MEMORY:
        return REPLAY_WRONG;
    default:
        return REPLAY_CONNECTION;
    }
}

/* Sum up, complain about what went wrong, and choose the exit status. */
static int sum_up(struct replay *replay)
{
    int status = REPLAY_OK;
    struct report *report = &replay->report;
    report->threads = replay->options.threads;
    report->depth = replay->workers[0].depth;
    for (uint32_t i = 0; i < replay->options.threads; i++) {
        struct worker *worker = &replay->workers[i];
        add_tally(&report->tally, &worker->tally);
        histogram_merge(&report->latency, &worker->latency);
        if (worker->wrong[0] != '\0')
            (void)fprintf(stderr, "crabcache-replay: wrong value: %s\n", worker->wrong);
        if (worker->status != CRAB_OK && status == REPLAY_OK) {
            (void)fprintf(stderr, "crabcache-replay: %s\n", worker->failure.text);
            status = exit_status_of(worker->status);
        }
    }
    const struct tally *tally = &report->tally;
    if (status == REPLAY_OK && (tally->wrong_values != 0 || tally->failed_gets != 0 || tally->failed_puts != 0))
        status = REPLAY_WRONG;
    return status;
}

static int run(struct replay *replay)
{
    struct options *options = &replay->options;
    char error[512] = "no memory for a stream of requests";
    replay->source = options->trace != NULL ? source_open_trace(options->trace, error, sizeof error)
                                            : source_open_zipf(&options->zipf);
    if (replay->source == NULL) {
        (void)fprintf(stderr, "crabcache-replay: %s\n", error);
        return REPLAY_USAGE;
    }
    int stream = 0;
    bool started = start_workers(replay) == 0;
    if (started)
        stream = read_stream(replay);
    finish_workers(replay);
    replay->report.elapsed_ns = now_ns() - replay->start_ns;
    if (started && options->progress) {
        show_progress(replay, true);
        report_progress_end();
    }
    int status = sum_up(replay);
    if (!started)
        return status != REPLAY_OK ? status : REPLAY_WRONG;
    if (report_print(&replay->report, options) != 0) {
        (void)fprintf(stderr, "crabcache-replay: cannot write the result: %s\n", strerror(errno));
        return REPLAY_WRONG;
    }
    return stream != 0 ? stream : status;
}

int main(int argc, char **argv)
{
    struct replay *replay = calloc(1, sizeof *replay);
    if (replay == NULL) {
        (void)fputs("crabcache-replay: no memory\n", stderr);
        return REPLAY_WRONG;
    }
    int status = options_read(&replay->options, argc, argv);
    if (status >= 0) {
        free(replay);
        return status;
    }
    (void)signal(SIGPIPE, SIG_IGN); /* a closed standard output is reported as an error of writing */
    replay->workers = calloc(replay->options.threads, sizeof *replay->workers);
    if (replay->workers == NULL) {
        (void)fputs("crabcache-replay: no memory for the workers\n", stderr);
        free(replay);
        return REPLAY_WRONG;
    }
    status = run(replay);
    for (uint32_t i = 0; i < replay->options.threads; i++)
        worker_fini(&replay->workers[i]);
    free(replay->workers);
    source_close(replay->source);
    free(replay);
    return status;
}
