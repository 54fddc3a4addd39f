/* SPDX-License-Identifier: MIT */
/*
 * The life of the thread that touches memory ahead of the workers: the server starts it last and stops it when they have
 * stopped. Signals are blocked in all threads (server.c).
 */
#include "server/ahead.h"

#include "server/store/store.h"

#define STACK_BYTES ((size_t)512 << 10)

static void *ahead_main(void *context)
{
    struct ahead *ahead = context;
    store_ahead_run(ahead->store);
    return NULL;
}

int ahead_start(struct ahead *ahead, struct store *store)
{
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return error;
    ahead->store = store;
    error = pthread_attr_setstacksize(&attributes, STACK_BYTES);
    if (error == 0)
        error = pthread_create(&ahead->thread, &attributes, ahead_main, ahead);
    pthread_attr_destroy(&attributes);
    ahead->runs = error == 0;
    if (ahead->runs)
        pthread_setname_np(ahead->thread, "ahead");
    return error;
}

void ahead_stop(struct ahead *ahead)
{
    if (!ahead->runs)
        return;
    store_ahead_stop(ahead->store);
    pthread_join(ahead->thread, NULL);
    ahead->runs = false;
}
