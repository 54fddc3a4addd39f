/* SPDX-License-Identifier: MIT */
/*
 * Runs a fuzz target over files, without libFuzzer.
 *
 * Linked with any tests/fuzz/fuzz_NAME.c this gives build/$(MODE)/tests/fuzz/once_NAME: each argument is a file or a
 * folder of files, and each file is one input.  So seeds and past findings run as ordinary tests, under gcc's
 * sanitizers, valgrind or a debugger.  Every input lies in a heap block of exactly its size, so that a read past
 * its end is seen.  An input that breaks something ends the program, after its name was printed.
 */
#include <dirent.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/check.h"

int LLVMFuzzerInitialize(int *argc, char ***argv) __attribute__((weak));

static int run_file(const char *path, size_t len)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    uint8_t *data = malloc(len > 0 ? len : 1);
    int result = -1;
    if (data != NULL && fread(data, 1, len, file) == len) {
        fprintf(stderr, "\r%s", path);
        LLVMFuzzerTestOneInput(data, len);
        fprintf(stderr, "\r%*s\r", (int)strlen(path), "");
        result = 0;
    } else {
        fprintf(stderr, "%s: cannot read %zu bytes\n", path, len);
    }
    free(data);
    fclose(file);
    return result;
}

/* Returns how many inputs ran, or -1. Folders may lie in folders; a name that begins with a dot is left out. */
static long run_path(const char *path)
{
    struct stat info;
    if (stat(path, &info) != 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    if (!S_ISDIR(info.st_mode))
        return run_file(path, (size_t)info.st_size) == 0 ? 1 : -1;

    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort);
    if (count < 0) {
        fprintf(stderr, "%s: %s\n", path, strerror(errno));
        return -1;
    }
    long total = 0;
    for (int i = 0; i < count; i++) {
        char *inner = NULL;
        if (total >= 0 && names[i]->d_name[0] != '.') {
            long ran = asprintf(&inner, "%s/%s", path, names[i]->d_name) < 0 ? -1 : run_path(inner);
            total = ran < 0 ? -1 : total + ran;
            free(inner);
        }
        free(names[i]);
    }
    free(names);
    return total;
}

int main(int argc, char **argv)
{
    if (LLVMFuzzerInitialize != NULL)
        LLVMFuzzerInitialize(&argc, &argv);
    long total = 0;
    for (int i = 1; i < argc; i++) {
        long ran = run_path(argv[i]);
        if (ran < 0)
            return 1;
        total += ran;
    }
    printf("%ld inputs, nothing found\n", total);
    return total > 0 ? 0 : 1;
}
