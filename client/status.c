/* SPDX-License-Identifier: MIT */
/*
 * Names and sentences of the library's statuses, and its version.  The switches have no default, so that a new status
 * without a text does not compile.
 */
#include "crabcache/crabcache.h"

const char *crab_status_text(enum crab_status status)
{
    switch (status) {
    case CRAB_OK:
        return "done";
    case CRAB_MISS:
        return "the key is absent";
    case CRAB_EXISTS:
        return "the condition did not hold: another item stands under the key";
    case CRAB_WAIT:
        return "not yet: the call would have to wait";
    case CRAB_EMPTY:
        return "there is nothing to take";
    case CRAB_E_INVALID:
        return "an argument is not allowed";
    case CRAB_E_NO_MEMORY:
        return "out of memory";
    case CRAB_E_FULL:
        return "the pipeline is full: take replies first";
    case CRAB_E_PENDING:
        return "queued requests are unanswered: take their replies first";
    case CRAB_E_SERVER:
        return "the server answered with an error";
    case CRAB_E_UNKNOWN_REPLY:
        return "the server answered with a reply of a newer protocol";
    case CRAB_E_RESOLVE:
        return "the host's name has no address";
    case CRAB_E_REFUSED:
        return "no connection could be made";
    case CRAB_E_TIMEOUT:
        return "the deadline passed";
    case CRAB_E_CLOSED:
        return "the server closed the connection";
    case CRAB_E_PROTOCOL:
        return "the server broke the protocol";
    case CRAB_E_SYSTEM:
        return "a system call failed";
    case CRAB_E_BROKEN:
        return "the connection was broken by an earlier failure";
    case CRAB_E_OUTCOME_UNKNOWN:
        return "a write was sent and not answered: it may have been executed";
    case CRAB_E_CANCELLED:
        return "the request was cancelled";
    case CRAB_E_FORKED:
        return "the client was opened before this process was forked: open another one";
    case CRAB_E_DOWN:
        return "the server could not be reached a moment ago";
    case CRAB_E_LOADER:
        return "the loader failed";
    }
    return "unknown status";
}

const char *crab_status_name(enum crab_status status)
{
#define NAME(name)   \
    case CRAB_##name: \
        return "CRAB_" #name
    switch (status) {
        NAME(OK);
        NAME(MISS);
        NAME(EXISTS);
        NAME(EMPTY);
        NAME(WAIT);
        NAME(E_INVALID);
        NAME(E_NO_MEMORY);
        NAME(E_FULL);
        NAME(E_PENDING);
        NAME(E_SERVER);
        NAME(E_UNKNOWN_REPLY);
        NAME(E_RESOLVE);
        NAME(E_REFUSED);
        NAME(E_TIMEOUT);
        NAME(E_CLOSED);
        NAME(E_PROTOCOL);
        NAME(E_SYSTEM);
        NAME(E_BROKEN);
        NAME(E_OUTCOME_UNKNOWN);
        NAME(E_CANCELLED);
        NAME(E_FORKED);
        NAME(E_DOWN);
        NAME(E_LOADER);
    }
#undef NAME
    return "CRAB_E_?";
}

const char *crab_version(void)
{
    return CRAB_VERSION_STRING;
}
