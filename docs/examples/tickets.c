/* SPDX-License-Identifier: MIT */
/*
 * Requests on the shared handle that nobody waits for at once: by tickets, and by callbacks.
 *
 *     cc tickets.c $(pkg-config --cflags --libs crabcache) -o tickets && ./tickets crab://127.0.0.1:2722
 */
#include <crabcache/crabcache.h>
#include <stdio.h>
#include <string.h>

#define SEASONS 4

static const char *const seasons[SEASONS] = {"spring", "summer", "autumn", "winter"};
static const char *const begins[SEASONS] = {"March", "June", "September", "December"};

//! [callback]
static void stored(void *context, const struct crab_result *result)
{
    unsigned *done = context;
    if (result->status == CRAB_OK)
        ++*done;
}

static enum crab_status store(struct crab_client *client, unsigned *done)
{
    struct crab_submit_options options = {.done = stored, .context = done};
    for (size_t i = 0; i < SEASONS; i++) {
        enum crab_status status = crab_client_submit_put(client, seasons[i], strlen(seasons[i]), begins[i], strlen(begins[i]), NULL,
                                                         &options, NULL);
        if (status != CRAB_OK)
            return status;
    }
    return crab_client_run(client, 5000);
}
//! [callback]

//! [tickets]
static enum crab_status read_back(struct crab_client *client)
{
    struct crab_ticket *tickets[SEASONS] = {NULL};
    enum crab_status status = CRAB_OK;
    for (size_t i = 0; status == CRAB_OK && i < SEASONS; i++)
        status = crab_client_submit_get(client, seasons[i], strlen(seasons[i]), NULL, &tickets[i]);
    for (size_t i = 0; status == CRAB_OK && i < SEASONS; i++) {
        struct crab_result result;
        status = crab_ticket_wait(tickets[i], &result);
        if (status == CRAB_OK)
            printf("%s: %.*s\n", seasons[i], (int)result.value.len, (const char *)result.value.data);
    }
    for (size_t i = 0; i < SEASONS; i++)
        crab_ticket_release(tickets[i]); /* gives up what is not done; NULL does nothing */
    return status;
}
//! [tickets]

int main(int argc, char **argv)
{
    struct crab_client *client;
    struct crab_failure failure;
    unsigned done = 0;
    if (crab_client_open(argc > 1 ? argv[1] : NULL, NULL, &client, &failure) != CRAB_OK) {
        fprintf(stderr, "%s\n", failure.text);
        return 1;
    }
    enum crab_status status = store(client, &done);
    printf("stored: %u\n", done);
    if (status == CRAB_OK)
        status = read_back(client);
    if (status != CRAB_OK)
        fprintf(stderr, "%s\n", crab_status_text(status));
    crab_client_close(client);
    return status == CRAB_OK ? 0 : 1;
}
