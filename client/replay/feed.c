/* SPDX-License-Identifier: MIT */
/*
 * A ring of batches between two threads; see feed.h.  Batches are filled and read in place: only the counters are
 * under the lock, because a batch belongs to one side at a time.
 */
#include "client/replay/feed.h"

#include <stdlib.h>

int feed_init(struct feed *feed)
{
    *feed = (struct feed){0};
    feed->batches = malloc(FEED_BATCHES * sizeof *feed->batches);
    if (feed->batches == NULL)
        return -1;
    for (uint32_t i = 0; i < FEED_BATCHES; i++)
        feed->batches[i].count = feed->batches[i].key_used = 0;
    (void)pthread_mutex_init(&feed->lock, NULL); /* without attributes neither can fail on Linux */
    (void)pthread_cond_init(&feed->changed, NULL);
    return 0;
}

void feed_fini(struct feed *feed)
{
    if (feed->batches == NULL)
        return;
    (void)pthread_cond_destroy(&feed->changed);
    (void)pthread_mutex_destroy(&feed->lock);
    free(feed->batches);
    feed->batches = NULL;
}

struct batch *feed_to_fill(struct feed *feed)
{
    (void)pthread_mutex_lock(&feed->lock);
    while (feed->full == FEED_BATCHES && !feed->abandoned)
        (void)pthread_cond_wait(&feed->changed, &feed->lock);
    struct batch *batch = feed->abandoned ? NULL : &feed->batches[(feed->first + feed->full) % FEED_BATCHES];
    (void)pthread_mutex_unlock(&feed->lock);
    return batch;
}

void feed_commit(struct feed *feed)
{
    (void)pthread_mutex_lock(&feed->lock);
    feed->full++;
    (void)pthread_cond_broadcast(&feed->changed);
    (void)pthread_mutex_unlock(&feed->lock);
}

void feed_end(struct feed *feed)
{
    (void)pthread_mutex_lock(&feed->lock);
    feed->ended = true;
    (void)pthread_cond_broadcast(&feed->changed);
    (void)pthread_mutex_unlock(&feed->lock);
}

const struct batch *feed_take(struct feed *feed, bool wait, bool *ended)
{
    (void)pthread_mutex_lock(&feed->lock);
    while (wait && feed->full == 0 && !feed->ended)
        (void)pthread_cond_wait(&feed->changed, &feed->lock);
    *ended = feed->full == 0 && feed->ended;
    const struct batch *batch = feed->full != 0 ? &feed->batches[feed->first] : NULL;
    (void)pthread_mutex_unlock(&feed->lock);
    return batch;
}

void feed_release(struct feed *feed)
{
    (void)pthread_mutex_lock(&feed->lock);
    feed->batches[feed->first].count = feed->batches[feed->first].key_used = 0;
    feed->first = (feed->first + 1) % FEED_BATCHES;
    feed->full--;
    (void)pthread_cond_broadcast(&feed->changed);
    (void)pthread_mutex_unlock(&feed->lock);
}

void feed_abandon(struct feed *feed)
{
    (void)pthread_mutex_lock(&feed->lock);
    feed->abandoned = true;
    (void)pthread_cond_broadcast(&feed->changed);
    (void)pthread_mutex_unlock(&feed->lock);
}
