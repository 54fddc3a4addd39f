/* SPDX-License-Identifier: MIT */
/*
 * MD5 (RFC 1321), because libketama's continuum is made of it.  It protects nothing here.
 */
#ifndef CRABCACHE_CLIENT_MD5_H
#define CRABCACHE_CLIENT_MD5_H

#include <stddef.h>
#include <stdint.h>

/** @brief The digest of `len` bytes. */
void md5(const void *data, size_t len, uint8_t digest[16]);

#endif
