// The command line of torture. Thread safety: read-only after OptionsParse.
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "test/torture/styles.h"

enum Role { kBothRoles, kConnectRole, kListenRole };

struct Options {
  uint64_t seed;
  uint64_t bytes;                 // stop when this many are verified ...
  uint64_t connections;           // ... and this many connections done ...
  uint64_t seconds;               // ... or this long has passed; 0: no limit
  uint64_t max_connection_bytes;  // of one direction of one connection
  unsigned processes;             // pairs of processes
  unsigned threads;               // lanes in each
  unsigned stall_seconds;         // nothing moves for so long: failure
  enum Role role;
  const char* share;        // file of the shared page when the roles are started apart
  const char* address;      // IPv4 or IPv6, numeric: where the acceptor listens
  const char* static_echo;  // a statically linked echo program, which no preload reaches; NULL: none
  const char* program;      // argv[0]
  struct Styles styles;
};

// Ends the program with a usage message when the line is wrong.
struct Options OptionsParse(int argc, char** argv);

// The command line that repeats a run, written to `out`.
void OptionsPrint(const struct Options* options, int argc, char** argv, char* out, unsigned long size);
