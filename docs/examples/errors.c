/* SPDX-License-Identifier: MIT */
/*
 * What a call may answer, and what to do then: errors of the server, versions and conditions, repeating, a cache that is away.
 *
 *     cc errors.c $(pkg-config --cflags --libs crabcache) -o errors && ./errors crab://127.0.0.1:2722
 */
#include <crabcache/crabcache.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

//! [verdict]
static const char *verdict(enum crab_status status, const struct crab_failure *failure)
{
    switch (status) {
    case CRAB_OK:
    case CRAB_MISS:
    case CRAB_EXISTS:
        return "an answer";
    case CRAB_E_SERVER:
        if (crab_error_class(failure->error) == CRAB_CLASS_RETRY)
            return "not done, it may go well later";
        if (crab_error_class(failure->error) == CRAB_CLASS_PERMANENT)
            return "not done, and never will be";
        return "it may have been done";
    case CRAB_E_OUTCOME_UNKNOWN:
        return "it may have been done";
    case CRAB_E_INVALID:
        return "a bug of this program";
    default:
        return "the cache is away: go on without it";
    }
}
//! [verdict]

static void tell(const char *what, enum crab_status status, const struct crab_failure *failure)
{
    printf("%s: %s\n", what, verdict(status, failure));
}

//! [server error]
static void wrong_type(struct crab_client *client)
{
    struct crab_failure failure = {.status = CRAB_OK};
    struct crab_call_options options = {.failure = &failure};
    enum crab_status status = crab_client_put(client, "name", 4, "crab", 4, NULL, &options, NULL);
    if (status == CRAB_OK)
        status = crab_client_incr(client, "name", 4, 1, NULL, &options, NULL);
    if (status == CRAB_E_SERVER)
        printf("the server says %s\n", crab_error_name(failure.error));
    tell("counting a name", status, &failure);
}
//! [server error]

//! [compare and set]
/* Appends to a value, whoever else does so at the same time: stores only what was made from the version that is there. */
static enum crab_status append(struct crab_client *client, const char *key, const char *text)
{
    char joined[256];
    struct crab_value value = {0};
    struct crab_item item;
    enum crab_status status;
    do {
        struct crab_put_options put = {.condition = CRAB_IF_ABSENT, .ttl_ms = 60000};
        size_t len = 0;
        status = crab_client_get_meta(client, key, strlen(key), 0, &value, NULL, &item);
        if (crab_status_failed(status))
            break;
        if (status == CRAB_OK) {
            put = (struct crab_put_options){.condition = CRAB_IF_VERSION, .version = item.version, .ttl_ms = item.ttl_ms};
            len = value.len;
        }
        status = CRAB_E_INVALID; /* unless there is room */
        if (len + strlen(text) > sizeof joined)
            break;
        if (len != 0)
            memcpy(joined, value.data, len);
        memcpy(joined + len, text, strlen(text));
        status = crab_client_put(client, key, strlen(key), joined, len + strlen(text), &put, NULL, NULL);
    } while (status == CRAB_EXISTS || status == CRAB_MISS);
    crab_value_fini(&value);
    return status;
}
//! [compare and set]

//! [retries]
static enum crab_status patient_get(struct crab_client *client, const char *key, struct crab_value *value,
                                    struct crab_failure *failure)
{
    struct crab_call_options options = {.timeout_ms = 1000, .retries = 3, .failure = failure};
    return crab_client_get(client, key, strlen(key), value, &options);
}
//! [retries]

//! [away]
static void without_a_server(void)
{
    struct crab_client *client;
    struct crab_failure failure;
    struct crab_call_options options = {.failure = &failure};
    struct crab_value value = {0};
    if (crab_client_open("crab://127.0.0.1:1?timeout=500", NULL, &client, &failure) != CRAB_OK)
        return;
    for (int i = 0; i < 2; i++) {
        enum crab_status status = crab_client_get(client, "name", 4, &value, &options);
        tell("a get from nobody", status, &failure); /* CRAB_E_REFUSED; then CRAB_E_DOWN, without a new attempt */
    }
    crab_value_fini(&value);
    crab_client_close(client);
}
//! [away]

int main(int argc, char **argv)
{
    struct crab_client *client;
    struct crab_failure failure = {.status = CRAB_OK};
    struct crab_value value = {0};
    if (crab_client_open(argc > 1 ? argv[1] : NULL, NULL, &client, &failure) != CRAB_OK) {
        fprintf(stderr, "%s\n", failure.text);
        return 1;
    }
    wrong_type(client);
    enum crab_status status = append(client, "log", "one ");
    if (status == CRAB_OK)
        status = append(client, "log", "two ");
    if (status == CRAB_OK)
        status = patient_get(client, "log", &value, &failure);
    tell("appending", status, &failure);
    if (status == CRAB_OK)
        printf("log: %.*s\n", (int)value.len, (const char *)value.data);
    crab_value_fini(&value);
    crab_client_close(client);
    without_a_server();
    return status == CRAB_OK ? 0 : 1;
}
