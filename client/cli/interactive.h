/* SPDX-License-Identifier: MIT */
/*
 * Commands that are typed, or come from a script on the standard input.
 */
#ifndef CRABCACHE_CLI_INTERACTIVE_H
#define CRABCACHE_CLI_INTERACTIVE_H

#include "client/cli/session.h"

/** @brief Read commands from a terminal, with editing, history and completion. @return the exit status */
int interactive_run(struct session *session);

/** @brief Run the commands on the standard input, one a line. @return the first exit status that is not CLI_OK */
int script_run(struct session *session);

#endif
