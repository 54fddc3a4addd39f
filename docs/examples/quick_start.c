/* SPDX-License-Identifier: MIT */
/*
 * The first steps with the handle that a whole program shares: store, read, count, delete, many keys at once.
 *
 *     cc quick_start.c $(pkg-config --cflags --libs crabcache) -o quick_start && ./quick_start crab://127.0.0.1:2722
 */
#include <crabcache/crabcache.h>
#include <stdio.h>
#include <string.h>

//! [three answers]
static enum crab_status show(struct crab_client *client, const char *key)
{
    struct crab_value value = {0};
    struct crab_failure failure;
    struct crab_call_options options = {.failure = &failure};
    enum crab_status status = crab_client_get(client, key, strlen(key), &value, &options);
    if (status == CRAB_OK)
        printf("%s: %.*s\n", key, (int)value.len, (const char *)value.data);
    else if (status == CRAB_MISS)
        printf("%s: not there\n", key);
    else
        fprintf(stderr, "%s: %s\n", key, failure.text);
    crab_value_fini(&value);
    return status;
}
//! [three answers]

static enum crab_status first_steps(struct crab_client *client)
{
    //! [put]
    struct crab_put_options minute = {.ttl_ms = 60000};
    enum crab_status status = crab_client_put(client, "colour", 6, "blue", 4, &minute, NULL, NULL);
    //! [put]
    if (status == CRAB_OK)
        status = show(client, "colour");
    //! [del]
    if (status == CRAB_OK)
        status = crab_client_del(client, "colour", 6, NULL);
    //! [del]
    if (status == CRAB_OK)
        status = show(client, "colour");
    return status == CRAB_MISS ? CRAB_OK : status;
}

static enum crab_status count(struct crab_client *client)
{
    //! [incr]
    struct crab_incr_options create = {.create = true, .initial = 1, .ttl_ms = 3600 * 1000};
    int64_t visits;
    enum crab_status status = crab_client_incr(client, "visits", 6, 1, &create, NULL, &visits);
    if (status == CRAB_OK)
        printf("visits: %lld\n", (long long)visits);
    //! [incr]
    return status;
}

static enum crab_status many(struct crab_client *client)
{
    //! [many]
    struct crab_pair pairs[] = {
        {crab_slice_str("north"), crab_slice_str("cold")},
        {crab_slice_str("south"), crab_slice_str("warm")},
    };
    struct crab_slice keys[] = {crab_slice_str("north"), crab_slice_str("west"), crab_slice_str("south")};
    struct crab_value values[3] = {{0}};
    enum crab_status statuses[3];
    enum crab_status status = crab_client_put_many(client, pairs, 2, NULL, NULL, NULL);
    if (status == CRAB_OK)
        status = crab_client_get_many(client, keys, 3, values, NULL, statuses);
    for (size_t i = 0; status == CRAB_OK && i < 3; i++)
        if (statuses[i] == CRAB_OK)
            printf("%s: %.*s\n", (const char *)keys[i].data, (int)values[i].len, (const char *)values[i].data);
        else
            printf("%s: %s\n", (const char *)keys[i].data, crab_status_text(statuses[i]));
    for (size_t i = 0; i < 3; i++)
        crab_value_fini(&values[i]);
    //! [many]
    return status;
}

int main(int argc, char **argv)
{
    //! [open]
    struct crab_client *client;
    struct crab_failure failure;
    if (crab_client_open(argc > 1 ? argv[1] : "crab://127.0.0.1:2722", NULL, &client, &failure) != CRAB_OK) {
        fprintf(stderr, "%s\n", failure.text);
        return 1;
    }
    //! [open]
    enum crab_status status = first_steps(client);
    if (status == CRAB_OK)
        status = count(client);
    if (status == CRAB_OK)
        status = many(client);
    if (status != CRAB_OK)
        fprintf(stderr, "%s\n", crab_status_text(status));
    crab_client_close(client);
    return status == CRAB_OK ? 0 : 1;
}
