#include "test/torture/options.h"

#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char kUsage[] =
    "usage: torture [--seed N] [--bytes N[k|m|g]] [--connections N] [--seconds N] [--processes N] [--threads N]\n"
    "               [--style LIST] [--max-connection-bytes N] [--address IP] [--stall SECONDS] [--static-echo PROGRAM]\n"
    "               [--role both|connect|listen --share FILE]\n"
    "Exchanges pseudo-random data over TCP in every way the socket interface has, checking each byte.\n"
    "Runs until the bytes are verified and the connections done, or the seconds are over.\n"
    "--style narrows the groups it names (\"poll,edge,reset\"); \"-name\" takes one away. Names by group:\n";

static _Noreturn void Usage(const char* why) {
  fprintf(stderr, "torture: %s\n%s", why, kUsage);
  static const char* const kTitles[kGroups] = {"ends", "waits", "endings", "sends", "receives", "extras"};
  for (unsigned group = 0; group < kGroups; ++group) {
    fprintf(stderr, "  %s:", kTitles[group]);
    for (unsigned kind = 0; kind < StyleCount(group); ++kind) fprintf(stderr, " %s", StyleName(group, kind));
    fprintf(stderr, "\n");
  }
  exit(2);
}

static uint64_t Number(const char* text) {
  char* end;
  uint64_t value = strtoull(text, &end, 0);
  if (*end == 'k' || *end == 'K')
    value <<= 10, ++end;
  else if (*end == 'm' || *end == 'M')
    value <<= 20, ++end;
  else if (*end == 'g' || *end == 'G')
    value <<= 30, ++end;
  if (*end != '\0' || end == text) Usage("a number is wrong");
  return value;
}

struct Options OptionsParse(int argc, char** argv) {
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  struct Options options = {.seed = ((uint64_t)now.tv_nsec ^ (uint64_t)now.tv_sec << 20 ^ (uint64_t)getpid()) % 1000000007,
                            .bytes = 0,
                            .max_connection_bytes = 4 << 20,
                            .processes = 2,
                            .threads = 2,
                            .stall_seconds = 20,
                            .address = "127.0.0.1",
                            .program = argv[0],
                            .styles = StylesAll()};
  static const struct option kLong[] = {{"seed", 1, NULL, 's'},        {"bytes", 1, NULL, 'b'},     {"connections", 1, NULL, 'c'},
                                        {"seconds", 1, NULL, 'S'},     {"processes", 1, NULL, 'p'}, {"threads", 1, NULL, 't'},
                                        {"style", 1, NULL, 'y'},       {"address", 1, NULL, 'a'},   {"stall", 1, NULL, 'w'},
                                        {"role", 1, NULL, 'r'},        {"share", 1, NULL, 'f'},     {"max-connection-bytes", 1, NULL, 'm'},
                                        {"static-echo", 1, NULL, 'e'}, {NULL, 0, NULL, 0}};
  for (int choice; (choice = getopt_long(argc, argv, "", kLong, NULL)) != -1;) {
    switch (choice) {
      case 's':
        options.seed = Number(optarg);
        break;
      case 'b':
        options.bytes = Number(optarg);
        break;
      case 'c':
        options.connections = Number(optarg);
        break;
      case 'S':
        options.seconds = Number(optarg);
        break;
      case 'p':
        options.processes = (unsigned)Number(optarg);
        break;
      case 't':
        options.threads = (unsigned)Number(optarg);
        break;
      case 'w':
        options.stall_seconds = (unsigned)Number(optarg);
        break;
      case 'm':
        options.max_connection_bytes = Number(optarg);
        break;
      case 'a':
        options.address = optarg;
        break;
      case 'f':
        options.share = optarg;
        break;
      case 'e':
        options.static_echo = optarg;
        break;
      case 'y':
        if (!StylesParse(&options.styles, optarg)) Usage("--style: unknown name, or nothing left of a group");
        break;
      case 'r':
        if (strcmp(optarg, "both") == 0)
          options.role = kBothRoles;
        else if (strcmp(optarg, "connect") == 0)
          options.role = kConnectRole;
        else if (strcmp(optarg, "listen") == 0)
          options.role = kListenRole;
        else
          Usage("--role: both, connect or listen");
        break;
      default:
        Usage("unknown option");
    }
  }
  if (optind != argc) Usage("an argument is left over");
  if (options.processes < 1 || options.threads < 1 || options.processes * options.threads > 64) Usage("1 to 64 lanes");
  if (options.max_connection_bytes < 16) Usage("--max-connection-bytes: at least 16");
  if (options.role != kBothRoles && options.share == NULL) Usage("--role connect|listen needs --share");
  if (options.bytes == 0 && options.connections == 0 && options.seconds == 0) options.bytes = 64 << 20;
  return options;
}

void OptionsPrint(const struct Options* options, int argc, char** argv, char* out, unsigned long size) {
  unsigned long used = 0;
  static const char* const kEnvironment[] = {"LD_PRELOAD", "VSOCKET_AGENT", "VSOCKET_UPGRADE", "VSOCKET_UPGRADE_AFTER", "VSOCKET_FLAP_MS"};
  for (unsigned i = 0; i < sizeof kEnvironment / sizeof *kEnvironment; ++i) {
    const char* value = getenv(kEnvironment[i]);
    if (value != NULL && used < size) used += (unsigned long)snprintf(out + used, size - used, "%s=%s ", kEnvironment[i], value);
  }
  bool seeded = false;
  for (int i = 0; i < argc && used < size; ++i) {
    used += (unsigned long)snprintf(out + used, size - used, "%s%s", i > 0 ? " " : "", argv[i]);
    seeded = seeded || strncmp(argv[i], "--seed", 6) == 0;
  }
  if (!seeded && used < size) snprintf(out + used, size - used, " --seed %llu", (unsigned long long)options->seed);
}
