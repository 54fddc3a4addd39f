/* SPDX-License-Identifier: MIT */
/*
 * crabcache-bench: start the threads, lead them through the phases of a run, sum up what they counted.
 *
 *     connect, preload --> warm-up --> measurement --> end
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "client/bench/driver.h"
#include "client/bench/plan.h"
#include "client/bench/result.h"
#include "client/load/random.h"

#define PROGRESS_NS UINT64_C(250000000)
#define SPARE_FILES 64U

struct bench {
    struct plan plan;
    struct run run;
    uint8_t *payload;
    struct driver *drivers;
    uint32_t started;
    uint64_t shown_ns;
    uint64_t shown_replies;
    struct result result;
};

/* Values that do not compress, in case something on the way tries. */
static uint8_t *make_payload(const struct plan *plan)
{
    size_t words = (size_t)plan->sizes.most / sizeof(uint64_t) + 1;
    uint64_t *payload = malloc(words * sizeof *payload);
    uint64_t state = plan->seed;
    for (size_t i = 0; payload != NULL && i < words; i++)
        payload[i] = random_next(&state);
    return (uint8_t *)payload;
}

/* As many descriptors as there are connections; if that fails, connecting says so. */
static void raise_file_limit(const struct plan *plan)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)plan->connections + SPARE_FILES;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = wanted < limit.rlim_max ? wanted : limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* ---- the phases ----------------------------------------------------------------------------------------------- */

static void show_progress(struct bench *bench, const char *phase)
{
    uint64_t now_ns = link_now_ns();
    if (!bench->plan.progress || now_ns - bench->shown_ns < PROGRESS_NS)
        return;
    uint64_t replies = 0;
    for (uint32_t i = 0; i < bench->started; i++)
        replies += atomic_load_explicit(&bench->drivers[i].replies, memory_order_relaxed);
    result_progress(phase, replies,
                    (double)(replies - bench->shown_replies) * 1e9 / (double)(now_ns - bench->shown_ns));
    bench->shown_ns = now_ns;
    bench->shown_replies = replies;
}

/* With the lock: wait until a moment or a change. */
static void wait_until(struct bench *bench, uint64_t until_ns)
{
    uint64_t next_ns = link_now_ns() + PROGRESS_NS;
    if (until_ns < next_ns || !bench->plan.progress)
        next_ns = until_ns;
    struct timespec until = {.tv_sec = (time_t)(next_ns / 1000000000), .tv_nsec = (long)(next_ns % 1000000000)};
    (void)pthread_cond_clockwait(&bench->run.changed, &bench->run.lock, CLOCK_MONOTONIC, &until);
}

/* Wait until a moment, or until one thread, or all, have ended or one has failed. true: some have ended. */
static bool wait_in_phase(struct bench *bench, const char *phase, uint64_t until_ns, bool all)
{
    struct run *run = &bench->run;
    uint32_t enough = all ? bench->plan.threads : 1;
    (void)pthread_mutex_lock(&run->lock);
    while (run->done < enough && run->failed == 0 && link_now_ns() < until_ns) {
        wait_until(bench, until_ns);
        show_progress(bench, phase);
    }
    bool ended = run->done != 0;
    (void)pthread_mutex_unlock(&run->lock);
    return ended;
}

/* true: all threads are connected and have preloaded; false: one has failed. */
static bool wait_for_ready(struct bench *bench)
{
    struct run *run = &bench->run;
    (void)pthread_mutex_lock(&run->lock);
    while (run->ready < bench->plan.threads && run->done == 0) {
        wait_until(bench, link_now_ns() + PROGRESS_NS);
        show_progress(bench, "preload");
    }
    bool ready = run->done == 0;
    (void)pthread_mutex_unlock(&run->lock);
    return ready;
}

static void set_phase(struct bench *bench, enum phase phase)
{
    (void)pthread_mutex_lock(&bench->run.lock);
    atomic_store_explicit(&bench->run.phase, (int)phase, memory_order_release);
    (void)pthread_cond_broadcast(&bench->run.changed);
    (void)pthread_mutex_unlock(&bench->run.lock);
}

/* The measured part of the run. */
static void measure(struct bench *bench)
{
    const struct plan *plan = &bench->plan;
    struct cpu_time server_begin = {0};
    struct cpu_time server_end = {0};
    struct cpu_time client_begin = {0};
    struct cpu_time client_end = {0};
    (void)cpu_of(0, &client_begin);
    if (plan->pid != 0)
        (void)cpu_of(plan->pid, &server_begin);
    uint64_t begin_ns = link_now_ns();
    set_phase(bench, PHASE_MEASURE);
    bool by_count = plan->requests != 0;
    (void)wait_in_phase(bench, "measurement", by_count ? UINT64_MAX / 2 : begin_ns + plan->duration_ns, by_count);
    bench->result.elapsed_ns = link_now_ns() - begin_ns;
    set_phase(bench, PHASE_END);
    (void)cpu_of(0, &client_end);
    bench->result.client = cpu_between(&client_begin, &client_end);
    if (plan->pid != 0 && cpu_of(plan->pid, &server_end) == 0)
        bench->result.server = cpu_between(&server_begin, &server_end);
}

/* ---- the whole ------------------------------------------------------------------------------------------------ */

static int start_drivers(struct bench *bench)
{
    for (uint32_t i = 0; i < bench->plan.threads; i++) {
        if (driver_init(&bench->drivers[i], &bench->run, i) != 0) {
            (void)fputs("crabcache-bench: no memory for the connections\n", stderr);
            return -1;
        }
    }
    for (uint32_t i = 0; i < bench->plan.threads; i++) {
        int failed = pthread_create(&bench->drivers[i].thread, NULL, driver_run, &bench->drivers[i]);
        if (failed != 0) {
            (void)fprintf(stderr, "crabcache-bench: cannot start a thread: %s\n", strerror(failed));
            return -1;
        }
        bench->started++;
    }
    return 0;
}

/* Sum up, complain about what went wrong, and choose the exit status. */
static int sum_up(struct bench *bench)
{
    int status = BENCH_OK;
    struct tally *tally = &bench->result.tally;
    for (uint32_t i = 0; i < bench->started; i++) {
        const struct driver *driver = &bench->drivers[i];
        tally_add(tally, &driver->tally);
        if (driver->failed && status == BENCH_OK) {
            (void)fprintf(stderr, "crabcache-bench: %s\n", driver->kit.failure);
            status = BENCH_CONNECTION;
        }
    }
    if (tally->errors != 0)
        (void)fprintf(stderr, "crabcache-bench: %llu errors, the first one: %s\n", (unsigned long long)tally->errors,
                      tally->first_error);
    if (tally->wrong != 0)
        (void)fprintf(stderr, "crabcache-bench: %llu wrong replies, the first one: %s\n",
                      (unsigned long long)tally->wrong, tally->first_wrong);
    if (status == BENCH_OK && (tally->errors != 0 || tally->wrong != 0))
        status = BENCH_WRONG;
    return status;
}

static int run(struct bench *bench)
{
    struct run *run = &bench->run;
    *run = (struct run){.plan = &bench->plan, .payload = bench->payload};
    (void)pthread_mutex_init(&run->lock, NULL); /* without attributes neither can fail on Linux */
    (void)pthread_cond_init(&run->changed, NULL);
    bench->shown_ns = link_now_ns();
    bool started = start_drivers(bench) == 0;
    bool measured = false;
    if (started && wait_for_ready(bench)) {
        run->origin_ns = link_now_ns();
        if (bench->plan.warmup_ns != 0)
            set_phase(bench, PHASE_WARM_UP);
        if (bench->plan.warmup_ns == 0 || !wait_in_phase(bench, "warm-up", run->origin_ns + bench->plan.warmup_ns, false)) {
            measure(bench);
            measured = true;
        }
    }
    set_phase(bench, PHASE_END);
    for (uint32_t i = 0; i < bench->started; i++)
        (void)pthread_join(bench->drivers[i].thread, NULL);
    if (bench->plan.progress)
        result_progress_end();
    (void)pthread_cond_destroy(&run->changed);
    (void)pthread_mutex_destroy(&run->lock);
    int status = sum_up(bench);
    if (!started)
        return BENCH_WRONG;
    if (status == BENCH_CONNECTION || !measured)
        return BENCH_CONNECTION;
    if (result_print(&bench->result, &bench->plan) != 0) {
        (void)fprintf(stderr, "crabcache-bench: cannot write the result: %s\n", strerror(errno));
        return BENCH_WRONG;
    }
    return status;
}

int main(int argc, char **argv)
{
    struct bench *bench = calloc(1, sizeof *bench);
    if (bench == NULL) {
        (void)fputs("crabcache-bench: no memory\n", stderr);
        return BENCH_WRONG;
    }
    int status = plan_read(&bench->plan, argc, argv);
    if (status >= 0) {
        free(bench);
        return status;
    }
    (void)signal(SIGPIPE, SIG_IGN); /* a closed standard output is reported as an error of writing */
    raise_file_limit(&bench->plan);
    bench->payload = make_payload(&bench->plan);
    bench->drivers = calloc(bench->plan.threads, sizeof *bench->drivers);
    if (bench->payload == NULL || bench->drivers == NULL) {
        (void)fputs("crabcache-bench: no memory for a value and the threads\n", stderr);
        status = BENCH_WRONG;
    } else {
        status = run(bench);
        for (uint32_t i = 0; i < bench->plan.threads; i++)
            driver_fini(&bench->drivers[i]);
    }
    free(bench->payload);
    free(bench->drivers);
    free(bench);
    return status;
}
