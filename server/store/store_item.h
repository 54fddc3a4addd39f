/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief The bytes of an item, as they lie in a segment or in pages of their own.
 *
 *     small   | flags u8 | key_len u8 | value_len u16            |          4 bytes: most items
 *     wide    | flags u8 | 0 u8 | key_len u16 | value_len u32    |          8 bytes: any item
 *             [expiry u64, at an address that 8 divides] [version u64] [app_flags u32]  only if flagged
 *             key, value
 *
 * An item without an expiry may start anywhere. One with an expiry is preceded by up to 7 padding bytes, each
 * ITEM_PADDING, which no flags byte can be; so a segment can be walked from its start.
 *
 * Invariants: after an item was published, only its expiry changes, by one atomic store, and ITEM_DEAD is set when no
 * slot names it any more; so the flags byte is always read atomically. Version 0 means that the item's place gives its
 * version.
 */
#ifndef CRABCACHE_STORE_ITEM_H
#define CRABCACHE_STORE_ITEM_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define ITEM_WIDE      0x01U
#define ITEM_EXPIRY    0x02U
#define ITEM_VERSION   0x04U
#define ITEM_APP_FLAGS 0x08U
#define ITEM_DEAD      0x40U /**< A hint for who walks the segment: it can be unnamed without. */
#define ITEM_PADDING   0x80U

/** Bytes of the shortest header. */
#define ITEM_LEAST_HEAD 4U

/** Most bytes that an item takes besides its key and its value, padding included. */
#define ITEM_MOST_EXTRA (8U + 8U + 8U + 4U + 7U)

/** An item taken apart, or one that is to be written. */
struct store_item {
    const uint8_t *key;
    const uint8_t *value;
    uint32_t key_len;
    uint32_t value_len;
    uint64_t expiry;    /**< STORE_NEVER and has_expiry false: no field. */
    uint64_t version;   /**< 0: no field. */
    uint32_t app_flags; /**< 0: no field. */
    bool has_expiry;
};

static inline bool store_item_is_wide(uint32_t key_len, uint64_t value_len)
{
    return key_len > UINT8_MAX || value_len > UINT16_MAX;
}

/** @brief The flags of a published item. */
static inline uint8_t store_item_flags_at(const uint8_t *at)
{
    return __atomic_load_n(at, __ATOMIC_RELAXED);
}

/** @brief No slot names it any more. Called once, by who emptied the slot. */
static inline void store_item_kill(uint8_t *at)
{
    __atomic_store_n(at, (uint8_t)(store_item_flags_at(at) | ITEM_DEAD), __ATOMIC_RELAXED);
}

/** @brief Bytes of the header and of the fields that the flags announce. */
static inline uint32_t store_item_head_bytes(uint8_t flags)
{
    return ((flags & ITEM_WIDE) != 0 ? 8U : 4U) + ((flags & ITEM_EXPIRY) != 0 ? 8U : 0U) +
           ((flags & ITEM_VERSION) != 0 ? 8U : 0U) + ((flags & ITEM_APP_FLAGS) != 0 ? 4U : 0U);
}

static inline uint8_t store_item_flags(const struct store_item *item)
{
    return (uint8_t)((store_item_is_wide(item->key_len, item->value_len) ? ITEM_WIDE : 0U) |
                     (item->has_expiry ? ITEM_EXPIRY : 0U) | (item->version != 0 ? ITEM_VERSION : 0U) |
                     (item->app_flags != 0 ? ITEM_APP_FLAGS : 0U));
}

/** @brief Bytes of an item, padding excluded. */
static inline uint64_t store_item_bytes(const struct store_item *item)
{
    return store_item_head_bytes(store_item_flags(item)) + (uint64_t)item->key_len + item->value_len;
}

/** @brief Padding that must precede an item that would start at this address. */
static inline uint32_t store_item_padding(const struct store_item *item, uint64_t address)
{
    if (!item->has_expiry)
        return 0;
    uint64_t head = (store_item_flags(item) & ITEM_WIDE) != 0 ? 8 : 4;
    return (uint32_t)(-(address + head) & 7);
}

/** @brief The lengths of an item, without looking at the rest. */
static inline void store_item_lengths(const uint8_t *at, uint32_t *key_len, uint32_t *value_len)
{
    uint16_t half;
    memcpy(&half, at + 2, sizeof(half));
    if ((store_item_flags_at(at) & ITEM_WIDE) == 0) {
        *key_len = at[1];
        *value_len = half;
    } else {
        *key_len = half;
        memcpy(value_len, at + 4, sizeof(*value_len));
    }
}

/** @brief Where an item's expiry lies, or NULL. */
static inline uint64_t *store_item_expiry(uint8_t *at)
{
    uint8_t flags = store_item_flags_at(at);
    if ((flags & ITEM_EXPIRY) == 0)
        return NULL;
    return (uint64_t *)(void *)(at + ((flags & ITEM_WIDE) != 0 ? 8 : 4));
}

/** @brief Are these bytes the same? Most keys are short: for those no call is worth it. */
static inline bool store_same_bytes(const uint8_t *a, const uint8_t *b, uint32_t len)
{
    uint64_t a0, a1, b0, b1;
    if (len < 8 || len > 16)
        return memcmp(a, b, len) == 0;
    memcpy(&a0, a, 8);
    memcpy(&b0, b, 8);
    memcpy(&a1, a + len - 8, 8);
    memcpy(&b1, b + len - 8, 8);
    return ((a0 ^ b0) | (a1 ^ b1)) == 0;
}

/** @brief Is this the item of a key? */
static inline bool store_item_has_key(const uint8_t *at, const uint8_t *key, uint32_t len)
{
    uint32_t key_len, value_len;
    store_item_lengths(at, &key_len, &value_len);
    return key_len == len && store_same_bytes(at + store_item_head_bytes(store_item_flags_at(at)), key, len);
}

/** @brief Take an item apart. @return its bytes. */
static inline uint64_t store_item_read(uint8_t *at, struct store_item *item)
{
    uint8_t flags = store_item_flags_at(at);
    const uint64_t *expiry = store_item_expiry(at);
    const uint8_t *field = at + ((flags & ITEM_WIDE) != 0 ? 8 : 4);
    store_item_lengths(at, &item->key_len, &item->value_len);
    item->has_expiry = expiry != NULL;
    item->expiry = UINT64_MAX;
    item->version = 0;
    item->app_flags = 0;
    if (expiry != NULL) {
        item->expiry = __atomic_load_n(expiry, __ATOMIC_SEQ_CST); /* See set_expiry() in store_ops.c. */
        field += 8;
    }
    if ((flags & ITEM_VERSION) != 0) {
        memcpy(&item->version, field, 8);
        field += 8;
    }
    if ((flags & ITEM_APP_FLAGS) != 0) {
        memcpy(&item->app_flags, field, 4);
        field += 4;
    }
    item->key = field;
    item->value = field + item->key_len;
    return (uint64_t)(item->value - at) + item->value_len;
}

/** @brief Write an item, of which nobody knows yet. */
static inline void store_item_write(uint8_t *at, const struct store_item *item)
{
    uint8_t flags = store_item_flags(item);
    uint8_t *field = at;
    assert(at != NULL);
    if ((flags & ITEM_WIDE) == 0) {
        uint32_t word = flags | item->key_len << 8 | item->value_len << 16;
        memcpy(field, &word, 4);
        field += 4;
    } else {
        uint32_t word = flags | item->key_len << 16;
        memcpy(field, &word, 4);
        memcpy(field + 4, &item->value_len, 4);
        field += 8;
    }
    if ((flags & ITEM_EXPIRY) != 0) {
        __atomic_store_n((uint64_t *)(void *)field, item->expiry, __ATOMIC_RELAXED);
        field += 8;
    }
    if ((flags & ITEM_VERSION) != 0) {
        memcpy(field, &item->version, 8);
        field += 8;
    }
    if ((flags & ITEM_APP_FLAGS) != 0) {
        memcpy(field, &item->app_flags, 4);
        field += 4;
    }
    if (item->value == item->key + item->key_len) { /* As in a frame, and in an item that is copied. */
        memcpy(field, item->key, (size_t)item->key_len + item->value_len);
        return;
    }
    memcpy(field, item->key, item->key_len);
    if (item->value_len != 0)
        memcpy(field + item->key_len, item->value, item->value_len);
}

#endif
