/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief What the service manager is told, by libsystemd: see sd_notify(3). Without one, nothing.
 */
#ifndef CRABCACHE_SERVER_NOTIFY_H
#define CRABCACHE_SERVER_NOTIFY_H

#include <stdint.h>

/** @brief The server is ready, also again after notify_reloading(). */
void notify_ready(void);

/** @brief It reads its files again. */
void notify_reloading(void);

/** @brief It stops. */
void notify_stopping(void);

/** @brief How often it must give a sign of life, twice as often as it is watched for. @return 0: not at all. */
uint64_t notify_interval_ms(void);

/** @brief A sign of life. */
void notify_alive(void);

#endif
