/* SPDX-License-Identifier: MIT */
/*
 * Threads that share one client: each counts its own visits and all of them count together, then a missing value is loaded once
 * for everybody.
 *
 *     cc shared_client.c $(pkg-config --cflags --libs crabcache) -pthread -o shared_client && ./shared_client 127.0.0.1 2722
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include <crabcache/crabcache.h>

#define THREADS 4
#define VISITS 100

static struct crab_client *client;
static atomic_int loads;
static atomic_int good;

//! [load]
/* Where the value comes from if the cache does not have it: here from nowhere. */
static enum crab_status load(void *context, const void *key, size_t key_len, struct crab_value *value)
{
    (void)context;
    (void)key;
    (void)key_len;
    atomic_fetch_add(&loads, 1);
    return crab_value_set(value, "expensive", 9);
}
//! [load]

static void *visit(void *argument)
{
    struct crab_failure failure = {.status = CRAB_OK};
    struct crab_call_options options = {.failure = &failure};
    struct crab_incr_options create = {.create = true, .initial = 1, .ttl_ms = 60000};
    struct crab_value value = {0};
    (void)argument;
    for (int i = 0; i < VISITS; i++) {
        if (crab_client_incr(client, "visits", 6, 1, &create, &options, NULL) != CRAB_OK) {
            fprintf(stderr, "visit: %s\n", failure.text);
            return NULL;
        }
    }
    //! [fetch]
    if (crab_fetch(client, "report", 6, 60000, load, NULL, &options, &value) == CRAB_OK && value.len == 9)
        atomic_fetch_add(&good, 1);
    crab_value_fini(&value);
    //! [fetch]
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    struct crab_failure failure;
    struct crab_value visits = {0};
    char uri[256];
    (void)snprintf(uri, sizeof uri, "crab://%s:%s?timeout=2000", argc > 1 ? argv[1] : "127.0.0.1",
                   argc > 2 ? argv[2] : "2722");
    if (crab_client_open(uri, NULL, &client, &failure) != CRAB_OK) {
        fprintf(stderr, "%s\n", failure.text);
        return 1;
    }
    //! [threads]
    for (int i = 0; i < THREADS; i++)
        (void)pthread_create(&threads[i], NULL, visit, NULL);
    for (int i = 0; i < THREADS; i++)
        (void)pthread_join(threads[i], NULL);
    //! [threads]
    enum crab_status status = crab_client_get(client, "visits", 6, &visits, NULL);
    if (status == CRAB_OK)
        printf("visits: %.*s\n", (int)visits.len, (const char *)visits.data);
    printf("reports: %d, loaded %s\n", (int)good, loads >= 1 ? "when missing" : "never");
    crab_value_fini(&visits);
    crab_client_close(client);
    return status == CRAB_OK ? 0 : 1;
}
