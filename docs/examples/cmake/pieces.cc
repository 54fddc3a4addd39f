// SPDX-License-Identifier: MIT
//
// Writes a value of 4 MB from pieces of 64 KiB and reads it back into a sink: neither side ever holds it whole.
#include <crabcache/crabcache.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

namespace {

constexpr std::size_t whole = 4000000;

//! [closer]
struct Closer {
    void operator()(crab_conn *conn) const { crab_conn_close(conn); }
};
//! [closer]

std::uint64_t sum_of(const std::uint8_t *bytes, std::size_t len)
{
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < len; i++)
        sum += bytes[i];
    return sum;
}

//! [sink]
void pour(void *context, const crab_result *, std::size_t, crab_slice piece)
{
    *static_cast<std::uint64_t *>(context) += sum_of(piece.data, piece.len);
}
//! [sink]

int run(crab_conn *conn)
{
    std::vector<std::uint8_t> piece(65536);
    std::uint64_t written = 0, read = 0;
    //! [write]
    crab_status status = crab_conn_put_begin(conn, "large", 5, whole, nullptr);
    for (std::size_t left = whole, taken = 0; status == CRAB_OK && left != 0; left -= taken) {
        std::size_t len = left < piece.size() ? left : piece.size();
        for (std::size_t i = 0; i < len; i++)
            piece[i] = static_cast<std::uint8_t>(left + i);
        written += sum_of(piece.data(), len);
        status = crab_conn_put_piece(conn, piece.data(), len, &taken);
    }
    //! [write]
    crab_result result{};
    std::size_t len = 0;
    if (status == CRAB_OK)
        status = crab_conn_next_reply(conn, &result) == CRAB_OK ? result.status : crab_conn_state(conn);
    //! [read]
    if (status == CRAB_OK)
        status = crab_conn_get_into(conn, "large", 5, pour, &read, &len);
    //! [read]
    if (status != CRAB_OK)
        std::fprintf(stderr, "%s\n", crab_conn_error_text(conn));
    else
        std::printf("%zu bytes, %s\n", len, read == written ? "the same" : "other ones");
    return status == CRAB_OK ? 0 : 1;
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    crab_conn_options options{};
    crab_failure failure;
    crab_conn *conn = nullptr;
    options.host = argv[1];
    options.port = static_cast<std::uint16_t>(std::atoi(argv[2]));
    options.timeout_ms = 5000;
    if (crab_conn_open(&options, &conn, &failure) != CRAB_OK) {
        std::fprintf(stderr, "%s\n", failure.text);
        return 1;
    }
    std::unique_ptr<crab_conn, Closer> owner(conn);
    return run(conn);
}
