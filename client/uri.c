/* SPDX-License-Identifier: MIT */
/*
 * Reading URIs, see uri.h.  One pass from left to right over a cursor; each part is first cut out by its delimiters and then
 * decoded, so an encoded delimiter is never taken for one.
 */
#include "client/uri.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

struct reader {
    const char *text; /* the whole, for places in messages */
    const char *at;
    struct uri *uri;
    char *why;
    size_t why_size;
};

__attribute__((format(printf, 3, 4))) static bool fail(struct reader *r, const char *place, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    char what[200];
    (void)vsnprintf(what, sizeof what, format, arguments);
    va_end(arguments);
    (void)snprintf(r->why, r->why_size, "the URI is wrong at byte %zu: %s", (size_t)(place - r->text) + 1, what);
    return false;
}

/* ---- pieces */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Decode text[0..len) into the URI's own memory. NULL: it is wrong, and `why` says how. */
static const char *decode(struct reader *r, const char *text, size_t len)
{
    struct uri *uri = r->uri;
    char *start = uri->text + uri->used;
    char *end = start; /* it fits: decoding never makes longer, and each piece ends where a delimiter stood */
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (c == '%') {
            int high = i + 1 < len ? hex_digit(text[i + 1]) : -1;
            int low = i + 2 < len ? hex_digit(text[i + 2]) : -1;
            if (high < 0 || low < 0) {
                (void)fail(r, text + i, "two hexadecimal digits must follow %%");
                return NULL;
            }
            c = (char)(high << 4 | low);
            i += 2;
        }
        if ((unsigned char)c < 0x20 || c == 0x7f) {
            (void)fail(r, text + i, "a control character");
            return NULL;
        }
        *end++ = c;
    }
    *end = '\0';
    uri->used += (size_t)(end - start) + 1;
    return start;
}

static bool number(struct reader *r, const char *text, size_t len, uint64_t least, uint64_t most, uint32_t *result)
{
    uint64_t value = 0;
    if (len == 0 || len > 10)
        return fail(r, text, "a number from %llu to %llu is wanted", (unsigned long long)least, (unsigned long long)most);
    for (size_t i = 0; i < len; i++) {
        if (text[i] < '0' || text[i] > '9')
            return fail(r, text + i, "only digits make a number");
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    if (value < least || value > most)
        return fail(r, text, "a number from %llu to %llu is wanted", (unsigned long long)least, (unsigned long long)most);
    *result = (uint32_t)value;
    return true;
}

/* ---- where the servers are */

static bool user(struct reader *r)
{
    size_t len = strcspn(r->at, "@/?");
    if (r->at[len] != '@')
        return true;
    const char *colon = memchr(r->at, ':', len);
    if (colon != NULL)
        return fail(r, colon, "a secret does not belong in a URI: use secret_file, or a callback");
    r->uri->user = decode(r, r->at, len);
    if (r->uri->user == NULL)
        return false;
    if (r->uri->user[0] == '\0' || strlen(r->uri->user) > CRAB_MAX_USER)
        return fail(r, r->at, "a user's name has 1 to %u bytes", (unsigned)CRAB_MAX_USER);
    r->at += len + 1;
    return true;
}

static bool ipv6(struct reader *r, const char *text, const char *host)
{
    char address[64];
    struct in6_addr binary;
    size_t len = strcspn(host, "%");
    if (len >= sizeof address)
        return fail(r, text, "no IPv6 address");
    memcpy(address, host, len);
    address[len] = '\0';
    if (inet_pton(AF_INET6, address, &binary) != 1 || (host[len] == '%' && host[len + 1] == '\0'))
        return fail(r, text, "no IPv6 address");
    return true;
}

static bool host_name(struct reader *r, const char *text, const char *host)
{
    if (host[0] == '\0')
        return fail(r, text, "a host is missing");
    const char *bad = strpbrk(host, " /?#[]@:,\"<>\\^`{|}");
    if (bad != NULL)
        return fail(r, text, "a host's name cannot have the character '%c'", *bad);
    return true;
}

static bool server(struct reader *r)
{
    struct uri *uri = r->uri;
    if (uri->count == CRAB_MAX_SERVERS)
        return fail(r, r->at, "more than %u servers", (unsigned)CRAB_MAX_SERVERS);
    struct uri_server *s = &uri->servers[uri->count++];
    *s = (struct uri_server){.port = CRAB_DEFAULT_PORT, .weight = 1};
    bool bracket = *r->at == '[';
    const char *start = r->at + bracket;
    size_t len = strcspn(start, bracket ? "]/?#," : ":/?#,");
    if (bracket && start[len] != ']')
        return fail(r, r->at, "the bracket is not closed");
    s->host = decode(r, start, len);
    if (s->host == NULL || !(bracket ? ipv6(r, start, s->host) : host_name(r, start, s->host)))
        return false;
    if (strlen(s->host) > URI_MAX_HOST)
        return fail(r, start, "a host's name has more than %u bytes", URI_MAX_HOST);
    r->at = start + len + bracket;
    if (*r->at != ':')
        return true;
    r->at++;
    len = strcspn(r->at, "/?#,");
    uint32_t port;
    if (!number(r, r->at, len, 1, 65535, &port))
        return false;
    s->port = (uint16_t)port;
    r->at += len;
    return true;
}

static bool hosts(struct reader *r)
{
    do {
        if (!server(r))
            return false;
    } while (*r->at == ',' && *++r->at != '\0');
    if (r->at[-1] == ',')
        return fail(r, r->at, "a host is missing");
    if (*r->at == '/')
        r->at++;
    return true;
}

static bool path(struct reader *r)
{
    size_t len = strcspn(r->at, "?#");
    struct uri_server *s = &r->uri->servers[r->uri->count++];
    if (*r->at != '/')
        return fail(r, r->at, "the path of a socket begins with a slash");
    *s = (struct uri_server){.host = decode(r, r->at, len), .weight = 1};
    r->at += len;
    return s->host != NULL;
}

/* ---- parameters */

static bool weights(struct reader *r, const char *text, size_t len)
{
    const char *end = text + len;
    for (size_t i = 0; i < r->uri->count; i++) {
        const char *comma = memchr(text, ',', (size_t)(end - text));
        const char *stop = comma != NULL ? comma : end;
        if (!number(r, text, (size_t)(stop - text), 1, CRAB_MAX_WEIGHT, &r->uri->servers[i].weight))
            return false;
        if ((comma == NULL) != (i + 1 == r->uri->count))
            return fail(r, stop, "there must be one weight for each server");
        text = comma != NULL ? comma + 1 : end;
    }
    return true;
}

static bool flag(struct reader *r, const char *text, size_t len, bool *result)
{
    uint32_t value;
    if (!number(r, text, len, 0, 1, &value))
        return false;
    *result = value != 0;
    return true;
}

static bool distribution(struct reader *r, const char *text, size_t len)
{
    if (len == 6 && memcmp(text, "ketama", 6) == 0)
        r->uri->distribution = CRAB_KETAMA;
    else if (len == 10 && memcmp(text, "rendezvous", 10) == 0)
        r->uri->distribution = CRAB_RENDEZVOUS;
    else
        return fail(r, text, "ketama or rendezvous is wanted");
    return true;
}

static bool string(struct reader *r, const char *text, size_t len, size_t most, const char **result)
{
    *result = decode(r, text, len);
    if (*result == NULL)
        return false;
    if (**result == '\0' || strlen(*result) > most)
        return fail(r, text, "1 to %zu bytes are wanted", most);
    return true;
}

static bool value_of(struct reader *r, enum uri_parameter which, const char *text, size_t len)
{
    struct uri *uri = r->uri;
    switch (which) {
    case URI_TIMEOUT:
        return number(r, text, len, 1, UINT32_MAX, &uri->timeout_ms);
    case URI_CONNECT_TIMEOUT:
        return number(r, text, len, 1, UINT32_MAX, &uri->connect_timeout_ms);
    case URI_CONNECTIONS:
        return number(r, text, len, 1, CRAB_MAX_CONNECTIONS, &uri->connections);
    case URI_RETRIES:
        return number(r, text, len, 0, 1000, &uri->retries);
    case URI_MAX_IN_FLIGHT:
        return number(r, text, len, 1, CRAB_MAX_IN_FLIGHT, &uri->max_in_flight);
    case URI_WEIGHTS:
        return weights(r, text, len);
    case URI_DISTRIBUTION:
        return distribution(r, text, len);
    case URI_EJECT:
        return flag(r, text, len, &uri->eject);
    case URI_TAGS:
        return flag(r, text, len, &uri->tags);
    case URI_SECRET_FILE:
        return string(r, text, len, CRAB_MAX_URI, &uri->secret_file);
    case URI_CLIENT_NAME:
        return string(r, text, len, CRAB_MAX_CLIENT_NAME, &uri->client_name);
    case URI_PARAMETERS:
        break;
    }
    return false;
}

static bool parameter(struct reader *r)
{
    static const char *const names[URI_PARAMETERS] = {
        [URI_TIMEOUT] = "timeout",         [URI_CONNECT_TIMEOUT] = "connect_timeout",
        [URI_CONNECTIONS] = "connections", [URI_RETRIES] = "retries",
        [URI_MAX_IN_FLIGHT] = "max_in_flight", [URI_WEIGHTS] = "weights",
        [URI_DISTRIBUTION] = "distribution",   [URI_EJECT] = "eject",
        [URI_TAGS] = "tags",               [URI_SECRET_FILE] = "secret_file",
        [URI_CLIENT_NAME] = "client_name",
    };
    const char *name = r->at;
    size_t len = strcspn(name, "=&#");
    if (name[len] != '=')
        return fail(r, name, "a parameter is name=value");
    for (unsigned i = 0; i < URI_PARAMETERS; i++) {
        if (strlen(names[i]) != len || memcmp(names[i], name, len) != 0)
            continue;
        if (uri_gives(r->uri, (enum uri_parameter)i))
            return fail(r, name, "%s stands here twice", names[i]);
        r->uri->given |= 1U << i;
        const char *value = name + len + 1;
        size_t value_len = strcspn(value, "&#");
        r->at = value + value_len;
        return value_of(r, (enum uri_parameter)i, value, value_len);
    }
    return fail(r, name, "there is no parameter %.*s", (int)(len < 40 ? len : 40), name);
}

bool uri_parse(const char *text, struct uri *uri, char *why, size_t why_size)
{
    struct reader r = {.text = text, .at = text, .uri = uri, .why = why, .why_size = why_size};
    memset(uri, 0, offsetof(struct uri, text));
    if (strnlen(text, CRAB_MAX_URI + 1) > CRAB_MAX_URI)
        return fail(&r, text, "it has more than %u bytes", (unsigned)CRAB_MAX_URI);
    bool is_unix = strncasecmp(text, "crab+unix://", 12) == 0;
    if (!is_unix && strncasecmp(text, "crab://", 7) != 0)
        return fail(&r, text, "it must begin with crab:// or crab+unix://");
    r.at += is_unix ? 12 : 7;
    if (!user(&r) || !(is_unix ? path(&r) : hosts(&r)))
        return false;
    if (*r.at == '?') {
        do {
            r.at++;
            if (!parameter(&r))
                return false;
        } while (*r.at == '&');
    }
    return *r.at == '\0' || fail(&r, r.at, "this does not belong here");
}
