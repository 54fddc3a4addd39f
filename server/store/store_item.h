/* SPDX-License-Identifier: MIT */
/**
 * @file
 * @brief The bytes of an item, as they lie in a segment or in pages of their own.
 *
 *     small   | flags u8 | key_len u8 | value_len u16            | [expiry u32]    4 bytes: most items
 *     wide    | flags u8 | 0 u8 | key_len u16 | value_len u32    | [expiry u64]    8 bytes: any item
 *             [version u64] [app_flags u32]    only if flagged, as the expiry
 *             key, value
 *
 * Expiries are in milliseconds since the store was made. A small item's has 34 bits, 198 days: two of them in the
 * flags, the others at an address that 4 divides; all ones of those stand for never. What expires later is wide, its
 * expiry lying at an address that 8 divides. So an item without an expiry may start anywhere, and one with an expiry
 * is preceded by up to 3 or 7 padding bytes, each ITEM_PADDING, which no flags byte can be; so a segment can be walked
 * from its start.
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
#define ITEM_LATER     0x30U /**< Bits 32 and 33 of a small item's expiry. */
#define ITEM_DEAD      0x40U /**< A hint for who walks the segment: it can be unnamed without. */
#define ITEM_PADDING   0x80U

#define ITEM_LATER_SHIFT 4U
#define ITEM_SMALL_NEVER UINT32_MAX

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
    bool must_be_wide; /**< Only to be written: so that any expiry can be set later. */
};

/** @brief Does a small item have bits enough for this expiry? */
static inline bool store_expiry_is_small(uint64_t expiry)
{
    return expiry >> 34 == 0 && (uint32_t)expiry != ITEM_SMALL_NEVER;
}

static inline bool store_item_is_wide(const struct store_item *item)
{
    return item->must_be_wide || item->key_len > UINT8_MAX || item->value_len > UINT16_MAX ||
           (item->has_expiry && !store_expiry_is_small(item->expiry));
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
    uint32_t unit = (flags & ITEM_WIDE) != 0 ? 8U : 4U;
    return unit + ((flags & ITEM_EXPIRY) != 0 ? unit : 0U) +
           ((flags & ITEM_VERSION) != 0 ? 8U : 0U) + ((flags & ITEM_APP_FLAGS) != 0 ? 4U : 0U);
}

static inline uint8_t store_item_flags(const struct store_item *item)
{
    bool wide = store_item_is_wide(item);
    return (uint8_t)((wide ? ITEM_WIDE : 0U) |
                     (item->has_expiry && !wide ? (uint32_t)(item->expiry >> 32) << ITEM_LATER_SHIFT : 0U) |
                     (item->has_expiry ? ITEM_EXPIRY : 0U) | (item->version != 0 ? ITEM_VERSION : 0U) |
                     (item->app_flags != 0 ? ITEM_APP_FLAGS : 0U));
}

/** What follows from an item's fields, worked out once. */
struct store_shape {
    uint64_t bytes; /**< Padding excluded. */
    uint8_t flags;
};

static inline struct store_shape store_item_shape(const struct store_item *item)
{
    uint8_t flags = store_item_flags(item);
    return (struct store_shape){.bytes = store_item_head_bytes(flags) + (uint64_t)item->key_len + item->value_len,
                                .flags = flags};
}

/** @brief Bytes of an item, padding excluded. */
static inline uint64_t store_item_bytes(const struct store_item *item)
{
    return store_item_shape(item).bytes;
}

/** @brief Padding that must precede an item of these flags that would start at this address. */
static inline uint32_t store_item_padding(uint8_t flags, uint64_t address)
{
    if ((flags & ITEM_EXPIRY) == 0)
        return 0;
    return (uint32_t)(-address & ((flags & ITEM_WIDE) != 0 ? 7 : 3));
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

/** @brief When an item expires; UINT64_MAX: never. */
static inline uint64_t store_item_expiry(const uint8_t *at)
{
    uint8_t flags = store_item_flags_at(at);
    if ((flags & ITEM_EXPIRY) == 0)
        return UINT64_MAX;
    if ((flags & ITEM_WIDE) != 0)
        return __atomic_load_n((const uint64_t *)(const void *)(at + 8), __ATOMIC_SEQ_CST);
    uint32_t low = __atomic_load_n((const uint32_t *)(const void *)(at + 4), __ATOMIC_SEQ_CST);
    return low == ITEM_SMALL_NEVER ? UINT64_MAX : (uint64_t)(flags & ITEM_LATER) << (32 - ITEM_LATER_SHIFT) | low;
}

/** @brief Change a published item's expiry. @return false: it has no room for this one. */
static inline bool store_item_set_expiry(uint8_t *at, uint64_t expiry)
{
    uint8_t flags = store_item_flags_at(at);
    if ((flags & ITEM_EXPIRY) == 0)
        return expiry == UINT64_MAX;
    /* Atomic as it is for what set_expiry() in store_ops.c says. */
    if ((flags & ITEM_WIDE) != 0) {
        __atomic_store_n((uint64_t *)(void *)(at + 8), expiry, __ATOMIC_SEQ_CST);
        return true;
    }
    bool same_later = store_expiry_is_small(expiry) && expiry >> 32 == (flags & ITEM_LATER) >> ITEM_LATER_SHIFT;
    if (!same_later && expiry != UINT64_MAX)
        return false;
    __atomic_store_n((uint32_t *)(void *)(at + 4), (uint32_t)expiry, __ATOMIC_SEQ_CST);
    return true;
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
    uint32_t unit = (flags & ITEM_WIDE) != 0 ? 8 : 4;
    const uint8_t *field = at + unit;
    store_item_lengths(at, &item->key_len, &item->value_len);
    item->has_expiry = (flags & ITEM_EXPIRY) != 0;
    item->must_be_wide = false;
    item->expiry = UINT64_MAX;
    item->version = 0;
    item->app_flags = 0;
    if (item->has_expiry) {
        item->expiry = store_item_expiry(at);
        field += unit;
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

/** @brief Write an item of this shape, of which nobody knows yet; without its value if that is NULL. */
static inline void store_item_write(uint8_t *at, const struct store_item *item, uint8_t flags)
{
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
    if ((flags & ITEM_EXPIRY) != 0 && (flags & ITEM_WIDE) != 0) {
        __atomic_store_n((uint64_t *)(void *)field, item->expiry, __ATOMIC_RELAXED);
        field += 8;
    } else if ((flags & ITEM_EXPIRY) != 0) {
        __atomic_store_n((uint32_t *)(void *)field, (uint32_t)item->expiry, __ATOMIC_RELAXED);
        field += 4;
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
    if (item->value != NULL && item->value_len != 0)
        memcpy(field + item->key_len, item->value, item->value_len);
}

#endif
