/* SPDX-License-Identifier: MIT */
/*
 * Pauses after failures, see circuit.h.  The random part keeps many clients from coming back at the same moment.
 */
#include "client/circuit.h"

#include "client/net.h"

#define NS_PER_MS 1000000U

bool circuit_init(struct circuit *circuit, uint64_t seed)
{
    *circuit = (struct circuit){.random = seed | 1U};
    return pthread_mutex_init(&circuit->lock, NULL) == 0;
}

void circuit_fini(struct circuit *circuit)
{
    (void)pthread_mutex_destroy(&circuit->lock);
}

bool circuit_admit(struct circuit *circuit, uint64_t now_ns, uint32_t probe_ms)
{
    (void)pthread_mutex_lock(&circuit->lock);
    bool admitted = circuit->failures == 0 || now_ns >= circuit->until_ns;
    if (admitted && circuit->failures != 0) {
        circuit->probing = true;
        circuit->until_ns = now_ns + (uint64_t)probe_ms * NS_PER_MS;
    }
    (void)pthread_mutex_unlock(&circuit->lock);
    return admitted;
}

bool circuit_succeed(struct circuit *circuit)
{
    (void)pthread_mutex_lock(&circuit->lock);
    bool had_failed = circuit->failures != 0;
    circuit->failures = 0;
    atomic_store_explicit(&circuit->failing, false, memory_order_relaxed);
    circuit->probing = false;
    (void)pthread_mutex_unlock(&circuit->lock);
    return had_failed;
}

/* xorshift64*: good enough to spread pauses. */
static uint32_t draw(struct circuit *circuit, uint32_t below)
{
    uint64_t x = circuit->random;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    circuit->random = x;
    return (uint32_t)((x * 0x2545F4914F6CDD1DU) >> 32) % below;
}

uint32_t circuit_fail(struct circuit *circuit, uint64_t now_ns)
{
    (void)pthread_mutex_lock(&circuit->lock);
    circuit->all_failures++;
    if (circuit->failures != 0 && !circuit->probing && now_ns < circuit->until_ns) { /* one of several at the same time */
        uint32_t rest_ms = (uint32_t)((circuit->until_ns - now_ns) / NS_PER_MS);
        (void)pthread_mutex_unlock(&circuit->lock);
        return rest_ms;
    }
    uint32_t pause_ms = CIRCUIT_MOST_MS;
    if (circuit->failures < 16 && (CIRCUIT_LEAST_MS << circuit->failures) < CIRCUIT_MOST_MS)
        pause_ms = CIRCUIT_LEAST_MS << circuit->failures;
    pause_ms -= draw(circuit, pause_ms / 2 + 1);
    if (circuit->failures < UINT32_MAX)
        circuit->failures++;
    atomic_store_explicit(&circuit->failing, true, memory_order_relaxed);
    circuit->probing = false;
    circuit->until_ns = now_ns + (uint64_t)pause_ms * NS_PER_MS;
    (void)pthread_mutex_unlock(&circuit->lock);
    return pause_ms;
}

void circuit_forget(struct circuit *circuit)
{
    (void)pthread_mutex_lock(&circuit->lock);
    if (circuit->probing)
        circuit->until_ns = 0;
    circuit->probing = false;
    (void)pthread_mutex_unlock(&circuit->lock);
}

bool circuit_is_out(struct circuit *circuit)
{
    if (!atomic_load_explicit(&circuit->failing, memory_order_relaxed))
        return false;
    struct circuit_view view = circuit_look(circuit, net_now_ns());
    return !view.closed && (view.probing || view.retry_in_ms != 0);
}

struct circuit_view circuit_look(struct circuit *circuit, uint64_t now_ns)
{
    (void)pthread_mutex_lock(&circuit->lock);
    struct circuit_view view = {
        .closed = circuit->failures == 0, .probing = circuit->probing, .failures = circuit->all_failures};
    if (!view.closed && !view.probing && circuit->until_ns > now_ns)
        view.retry_in_ms = (uint32_t)((circuit->until_ns - now_ns + NS_PER_MS - 1) / NS_PER_MS);
    (void)pthread_mutex_unlock(&circuit->lock);
    return view;
}
