/* SPDX-License-Identifier: MIT */
/**
 * @file version.h
 * @brief The version of the library, and the macros that its public headers share.
 *
 * This header stands below every other public one: it includes nothing.  The numbers here are the only place
 * where the version is written; the Makefile, `crabcache.pc` and the programs' `--version` take it from here.
 */
#ifndef CRABCACHE_VERSION_H
#define CRABCACHE_VERSION_H

/** @brief Major version: changes when the programming or binary interface breaks; it is also the soname's number. */
#define CRAB_VERSION_MAJOR 0
/** @brief Minor version: changes when something is added. */
#define CRAB_VERSION_MINOR 1
/** @brief Patch version: changes with every other release. */
#define CRAB_VERSION_PATCH 0

/** @cond INTERNAL */
#define CRAB_VERSION_TEXT_(a, b, c) #a "." #b "." #c
#define CRAB_VERSION_TEXT(a, b, c)  CRAB_VERSION_TEXT_(a, b, c)
/** @endcond */

/** @brief The version as text, "0.1.0". */
#define CRAB_VERSION_STRING CRAB_VERSION_TEXT(CRAB_VERSION_MAJOR, CRAB_VERSION_MINOR, CRAB_VERSION_PATCH)

#ifdef __cplusplus
#define CRAB_BEGIN_DECLS extern "C" {
#define CRAB_END_DECLS   }
#else
/** @brief Opens a run of declarations that have C linkage when a C++ compiler reads them. */
#define CRAB_BEGIN_DECLS
/** @brief Closes what #CRAB_BEGIN_DECLS opened. */
#define CRAB_END_DECLS
#endif

#if defined(__GNUC__) || defined(__clang__)
/** @brief Marks a function that the shared library exports; everything else in it is hidden. */
#define CRAB_API      __attribute__((visibility("default")))
/** @brief The compiler warns where the result of a function so marked is thrown away. */
#define CRAB_MUST_USE __attribute__((warn_unused_result))
#else
#define CRAB_API
#define CRAB_MUST_USE
#endif

#endif
