/* SPDX-License-Identifier: MIT */
/*
 * A plugin that brings the library along: a program that knows nothing of CrabCache loads it by dlopen(), uses it, and lets
 * go of it.  The library has no global state, so it may come and go.
 *
 *     cc -shared -fPIC plugin.c -o plugin.so $(pkg-config --cflags --libs crabcache)
 *     cc -DHOST plugin.c -o host && ./host ./plugin.so 127.0.0.1 2722
 */
#include <stdio.h>
#include <stdlib.h>

#ifdef HOST

#include <dlfcn.h>

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    for (int round = 0; round < 3; round++) {
        void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
        int (*use)(const char *, int);
        if (plugin == NULL || (*(void **)&use = dlsym(plugin, "use_cache")) == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        if (use(argv[2], atoi(argv[3])) != 0)
            return 1;
        dlclose(plugin);
    }
    return 0;
}

#else

#include <crabcache/crabcache.h>

int use_cache(const char *host, int port);

int use_cache(const char *host, int port)
{
    struct crab_conn_options options = {.host = host, .port = (uint16_t)port, .timeout_ms = 2000};
    struct crab_incr_options create = {.create = true, .initial = 1};
    struct crab_failure failure;
    struct crab_conn *conn;
    int64_t loads = 0;
    if (crab_conn_open(&options, &conn, &failure) != CRAB_OK) {
        fprintf(stderr, "%s\n", failure.text);
        return 1;
    }
    enum crab_status status = crab_conn_incr(conn, "loads", 5, 1, &create, &loads);
    if (status == CRAB_OK)
        printf("load %lld\n", (long long)loads);
    crab_conn_close(conn);
    return status == CRAB_OK ? 0 : 1;
}

#endif
