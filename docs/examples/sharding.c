/* SPDX-License-Identifier: MIT */
/*
 * Several servers: a thousand keys find their servers, and each server tells how it fared.
 *
 *     cc sharding.c $(pkg-config --cflags --libs crabcache) -o sharding
 *     ./sharding 'crab://127.0.0.1:2722,127.0.0.1:2723?weights=1,2&eject=1&retries=2'
 */
#include <crabcache/crabcache.h>
#include <stdio.h>

#define KEYS 1000

static size_t name_key(char *key, size_t size, int number)
{
    return (size_t)snprintf(key, size, "user:%d", number);
}

//! [place]
static void count_places(const struct crab_client *client)
{
    unsigned keys[CRAB_MAX_SERVERS] = {0};
    char key[16];
    for (int i = 0; i < KEYS; i++)
        keys[crab_client_server_of(client, key, name_key(key, sizeof key, i))]++;
    for (size_t i = 0; i < crab_client_servers(client); i++)
        printf("server %zu: %u keys\n", i, keys[i]);
}
//! [place]

static unsigned store(struct crab_client *client)
{
    char key[16];
    unsigned stored = 0;
    for (int i = 0; i < KEYS; i++) {
        size_t len = name_key(key, sizeof key, i);
        if (crab_client_put(client, key, len, key, len, NULL, NULL, NULL) == CRAB_OK)
            stored++;
    }
    return stored;
}

static unsigned read_back(struct crab_client *client)
{
    char key[16];
    unsigned found = 0;
    struct crab_value value = {0};
    for (int i = 0; i < KEYS; i++)
        if (crab_client_get(client, key, name_key(key, sizeof key, i), &value, NULL) == CRAB_OK)
            found++;
    crab_value_fini(&value);
    return found;
}

//! [statistics]
static void tell_states(struct crab_client *client)
{
    static const char *const states[] = {"up", "down", "probing"};
    struct crab_server_stats stats;
    for (size_t i = 0; i < crab_client_servers(client); i++)
        if (crab_client_server_stats(client, i, &stats) == CRAB_OK)
            printf("%s: %s, %llu requests, %llu timeouts, %llu connections made, %llu failed\n", stats.name,
                   states[stats.state], (unsigned long long)stats.requests, (unsigned long long)stats.timeouts,
                   (unsigned long long)stats.connects, (unsigned long long)stats.connect_failures);
}
//! [statistics]

int main(int argc, char **argv)
{
    struct crab_client *client;
    struct crab_failure failure;
    if (crab_client_open(argc > 1 ? argv[1] : NULL, NULL, &client, &failure) != CRAB_OK) {
        fprintf(stderr, "%s\n", failure.text);
        return 1;
    }
    count_places(client);
    unsigned stored = store(client);
    unsigned found = read_back(client);
    printf("stored: %u, found: %u\n", stored, found);
    tell_states(client);
    crab_client_close(client);
    return stored == KEYS && found == KEYS ? 0 : 1;
}
