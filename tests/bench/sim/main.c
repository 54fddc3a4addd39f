/* SPDX-License-Identifier: MIT */
/* The simulator's command line: streams times policies times memory sizes, one line of tab-separated values each. */
#include "tests/bench/sim/sim.h"

#include <getopt.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ARGS 256

static const char usage[] =
    "Usage: crabcache-sim --stream STREAM... --policy POLICY... --memory SIZE...\n"
    "       crabcache-sim --self-check\n"
    "Simulate eviction policies on request streams at a fixed memory, with every byte charged.\n"
    "\n"
    "  --stream FILE|zipf:OPTIONS   a trace (`key,value_bytes` lines, .xz or plain) or a synthetic stream; see synth.c\n"
    "  --policy NAME[:OPTIONS]      fifo lru slru s3fifo tinylfu redis-lru redis-lfu memcached segment, and\n"
    "                               store: the real one; options stand at the head of the policy's file;\n"
    "                               cost=0 ours without fragmentation,\n"
    "                               cost=1 size classes, cost=2 Redis\n"
    "  --memory BYTES|PERCENT%      of the stream's footprint (16 bytes of key and the value, of each key)\n"
    "  --limit N                    the first N requests only\n"
    "  --scale N                    values N times as large as in the stream\n"
    "  --self-check                 test the simulator itself\n";

struct args {
    const char *streams[MAX_ARGS], *policies[MAX_ARGS], *memories[MAX_ARGS];
    int stream_count, policy_count, memory_count;
    size_t limit;
    uint32_t scale;
};

static int add(const char **list, int *count)
{
    if (*count == MAX_ARGS)
        return -1;
    list[(*count)++] = optarg;
    return 0;
}

static uint64_t memory_of(const char *text, uint64_t footprint)
{
    char *end;
    double value = strtod(text, &end);

    if (end == text || value <= 0 || (*end && strcmp(end, "%") != 0))
        return 0;
    return (uint64_t)(*end ? value / 100 * (double)footprint : value);
}

static int simulate(const struct sim_stream *stream, const char *policy, const char *memory_text)
{
    struct sim_spec spec;
    struct sim_result r;
    uint64_t memory = memory_of(memory_text, stream->footprint);

    if (memory < 32768 || sim_spec_parse(policy, &spec)) {
        fprintf(stderr, "crabcache-sim: %s at %s: bad policy or too little memory\n", policy, memory_text);
        return 1;
    }
    int status = sim_run(stream, &spec, memory, &r);
    if (status) {
        fprintf(stderr, "crabcache-sim: %s on %s: %s\n", policy, stream->name,
                status == -1 ? "unknown policy or option" : "the books are wrong");
        return 1;
    }
    printf("%s\t%s\t%s\t%llu\t%.6f\t%.6f\t%.3f\t%.4f\t%.1f\n", stream->name, memory_text, policy,
           (unsigned long long)memory, (double)r.misses / (double)r.gets, (double)r.miss_bytes / (double)r.get_bytes,
           (double)r.counters.copied_bytes / (double)(r.counters.written_bytes + 1), r.live_mean, r.ns_per_request);
    fflush(stdout);
    return 0;
}

/* So that a small trace stands for a server of a real size. */
static void scale_values(struct sim_stream *stream, uint32_t scale)
{
    for (size_t i = 0; i < stream->count; i++)
        stream->requests[i].size *= scale;
    sim_stream_finish(stream);
}

static int run(const struct args *args)
{
    int failed = 0;

    puts("stream\tsize\tpolicy\tmemory\tmiss_ratio\tbyte_miss_ratio\tcopied_per_written\tlive_share\tns_per_request");
    for (int i = 0; i < args->stream_count; i++) {
        struct sim_stream stream;
        const char *text = args->streams[i];
        if (strncmp(text, "zipf", 4) == 0 ? sim_stream_make(text, &stream) : sim_stream_load(text, &stream)) {
            fprintf(stderr, "crabcache-sim: cannot use the stream %s\n", text);
            return 1;
        }
        stream.count = args->limit && args->limit < stream.count ? args->limit : stream.count;
        if (args->scale > 1)
            scale_values(&stream, args->scale);
        for (int m = 0; m < args->memory_count; m++)
            for (int p = 0; p < args->policy_count; p++)
                failed |= simulate(&stream, args->policies[p], args->memories[m]);
        sim_stream_fini(&stream);
    }
    return failed;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "stream", required_argument, NULL, 's' }, { "policy", required_argument, NULL, 'p' },
        { "memory", required_argument, NULL, 'm' }, { "limit", required_argument, NULL, 'l' },
        { "scale", required_argument, NULL, 'x' },   { "self-check", no_argument, NULL, 'c' },   { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    struct args args = { 0 };
    int option, bad = 0;

    while ((option = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (option) {
        case 's':
            bad |= add(args.streams, &args.stream_count);
            break;
        case 'p':
            bad |= add(args.policies, &args.policy_count);
            break;
        case 'm':
            bad |= add(args.memories, &args.memory_count);
            break;
        case 'l':
            args.limit = strtoull(optarg, NULL, 10);
            break;
        case 'x':
            args.scale = (uint32_t)strtoul(optarg, NULL, 10);
            break;
        case 'c':
            return sim_self_check();
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            bad = 1;
        }
    }
    if (bad || optind < argc || !args.stream_count || !args.policy_count || !args.memory_count) {
        fputs(usage, stderr);
        return 2;
    }
    return run(&args);
}
