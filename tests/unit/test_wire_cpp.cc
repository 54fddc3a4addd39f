// SPDX-License-Identifier: MIT
// The codec from C++: it compiles without warnings, and a message goes there and back.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>

#include "crabcache/wire.h"

int main()
{
    uint8_t buf[64];
    crab_req_get get{};
    get.flags = CRAB_FLAG_TAG | CRAB_GET_META;
    get.tag = 42;
    get.key = crab_slice_str("key");
    const size_t size = crab_req_get_encode(&get, buf, sizeof buf);

    crab_request back{};
    crab_frame frame{};
    const bool ok = crab_request_decode(buf, size, 100, &back, &frame) == CRAB_WHOLE && frame.size == size &&
                    back.head.op == CRAB_OP_GET && back.get.tag == 42 && back.get.key.len == 3 &&
                    std::memcmp(back.get.key.data, "key", 3) == 0;
    std::puts(ok ? "1 passed, 0 failed" : "0 passed, 1 failed");
    return ok ? 0 : 1;
}
