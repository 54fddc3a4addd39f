/* SPDX-License-Identifier: MIT */
/*
 * The command line's text: times, numbers, escapes, and lines cut into words.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "client/cli/text.h"

static void times_have_units(void **state)
{
    static const struct {
        const char *text;
        uint64_t ms; /* 0: not a time */
    } times[] = {
        {"500ms", 500}, {"10s", 10000}, {"2m", 120000}, {"1h", 3600000}, {"1d", 86400000}, {"never", CRAB_TTL_NEVER},
        {"9007199254740991ms", CRAB_TTL_MAX_MS}, {"9007199254740992ms", 0}, {"9007199254741s", 0}, {"", 0}, {"10", 0},
        {"0s", 0}, {"-1s", 0}, {"1.5s", 0}, {"s", 0}, {"10 s", 0}, {"10S", 0}, {"99999999999999999999s", 0},
        {"1sx", 0}, {"nevers", 0}, {"213503982335d", 0}};
    (void)state;
    for (size_t i = 0; i < sizeof times / sizeof times[0]; i++) {
        uint64_t ms = 77;
        bool good = text_time(crab_slice_str(times[i].text), &ms);
        assert_int_equal(good, times[i].ms != 0);
        assert_true(ms == (good ? times[i].ms : 77));
    }
}

static void numbers_are_whole_and_bounded(void **state)
{
    uint64_t number = 0;
    int64_t with_sign = 0;
    (void)state;
    assert_true(text_number(crab_slice_str("18446744073709551615"), UINT64_MAX, &number) && number == UINT64_MAX);
    assert_true(text_number(crab_slice_str("0xffffFFFFffffffff"), UINT64_MAX, &number) && number == UINT64_MAX);
    assert_true(text_number(crab_slice_str("0x1F"), 31, &number) && number == 31);
    assert_true(text_number(crab_slice_str("0"), 0, &number) && number == 0);
    static const char *const wrong[] = {"", "18446744073709551616", "-1", "+1", " 1", "1 ", "0x", "0xg", "1x",
                                        "0x10000000000000000"};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        assert_false(text_number(crab_slice_str(wrong[i]), UINT64_MAX, &number));
    assert_false(text_number(crab_slice_str("65536"), 65535, &number));
    assert_true(text_signed(crab_slice_str("-9223372036854775808"), &with_sign) && with_sign == INT64_MIN);
    assert_true(text_signed(crab_slice_str("9223372036854775807"), &with_sign) && with_sign == INT64_MAX);
    assert_false(text_signed(crab_slice_str("9223372036854775808"), &with_sign));
    assert_false(text_signed(crab_slice_str("-9223372036854775809"), &with_sign));
    assert_false(text_signed(crab_slice_str("-"), &with_sign));
    assert_false(text_signed(crab_slice_str("--1"), &with_sign));
}

/* Split a line and write its words as <...>, those that were quoted as "...", or what is wrong. */
static const char *split(const char *line)
{
    static char shown[200];
    struct words words;
    const char *mistake;
    if (words_split(line, &words, &mistake) != 0)
        return mistake;
    size_t used = 0;
    shown[0] = '\0';
    for (size_t i = 0; i < words.count; i++)
        used += (size_t)snprintf(shown + used, sizeof shown - used, words.quoted[i] ? "\"%.*s\"" : "<%.*s>",
                                 (int)words.words[i].len, (const char *)words.words[i].data);
    words_fini(&words);
    return shown;
}

static void lines_are_cut_into_words(void **state)
{
    (void)state;
    assert_string_equal(split(""), "");
    assert_string_equal(split(" \t "), "");
    assert_string_equal(split("put key value"), "<put><key><value>");
    assert_string_equal(split("  put\tkey  "), "<put><key>");
    assert_string_equal(split("put 'a b' \"c d\""), "<put>\"a b\"\"c d\"");
    assert_string_equal(split("a'b c'd"), "\"ab cd\"");
    assert_string_equal(split("'' \"\""), "\"\"\"\"");
    assert_string_equal(split("'\\x41' \"\\x41\" \\x41"), "\"\\x41\"\"A\"<A>");
    assert_string_equal(split("\"a\\\"b\" a\\ b"), "\"a\"b\"<a b>");
    assert_string_equal(split("'it'\\''s'"), "\"it's\"");
    assert_string_equal(split("'open"), "a quote is not closed");
    assert_string_equal(split("\"open"), "a quote is not closed");
    assert_non_null(strstr(split("\\xg1"), "two hexadecimal digits"));
    assert_non_null(strstr(split("a\\"), "two hexadecimal digits"));
    assert_non_null(strstr(split("\\x4"), "two hexadecimal digits"));
}

static void every_byte_can_be_shown_and_typed_again(void **state)
{
    uint8_t all[256];
    char line[2000];
    struct words words;
    const char *mistake;
    (void)state;
    for (size_t i = 0; i < sizeof all; i++)
        all[i] = (uint8_t)i;
    FILE *stream = fmemopen(line, sizeof line, "w");
    assert_non_null(stream);
    text_print_quoted(stream, crab_slice_of(all, sizeof all));
    assert_int_equal(fclose(stream), 0);
    assert_int_equal(words_split(line, &words, &mistake), 0);
    assert_int_equal(words.count, 1);
    assert_int_equal(words.words[0].len, sizeof all);
    assert_memory_equal(words.words[0].data, all, sizeof all);
    words_fini(&words);
}

static void arguments_may_have_escapes(void **state)
{
    char put[] = "put", escaped[] = "a\\x00b\\n", wrong[] = "\\q";
    char *good[] = {put, escaped};
    char *bad[] = {put, wrong};
    struct words words;
    const char *mistake;
    (void)state;
    assert_int_equal(words_from_arguments(2, good, true, &words, &mistake), 0);
    assert_int_equal(words.words[1].len, 4);
    assert_memory_equal(words.words[1].data, "a\0b\n", 4);
    words_fini(&words);
    assert_int_equal(words_from_arguments(2, good, false, &words, &mistake), 0);
    assert_int_equal(words.words[1].len, strlen(escaped));
    words_fini(&words);
    assert_int_equal(words_from_arguments(2, bad, true, &words, &mistake), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_have_units),
        cmocka_unit_test(numbers_are_whole_and_bounded),
        cmocka_unit_test(lines_are_cut_into_words),
        cmocka_unit_test(every_byte_can_be_shown_and_typed_again),
        cmocka_unit_test(arguments_may_have_escapes),
    };
    return cmocka_run_group_tests_name("client_text", tests, NULL, NULL);
}
