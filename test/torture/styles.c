#include "test/torture/styles.h"

#include <string.h>

#define STYLE_TEXT(id, text) text,
static const char* const kEndNames[] = {END_STYLES(STYLE_TEXT)};
static const char* const kWaitNames[] = {WAIT_KINDS(STYLE_TEXT)};
static const char* const kEndingNames[] = {ENDINGS(STYLE_TEXT)};
static const char* const kSendNames[] = {SEND_OPS(STYLE_TEXT)};
static const char* const kRecvNames[] = {RECV_OPS(STYLE_TEXT)};
static const char* const kExtraNames[] = {EXTRAS(STYLE_TEXT)};
#undef STYLE_TEXT

static const char* const* const kNames[kGroups] = {kEndNames, kWaitNames, kEndingNames, kSendNames, kRecvNames, kExtraNames};
static const unsigned kCounts[kGroups] = {kEndStyles, kWaitKinds, kEndings, kSendOps, kRecvOps, kExtras};

const char* StyleName(enum StyleGroup group, unsigned kind) {
  return kind < kCounts[group] ? kNames[group][kind] : "?";
}

unsigned StyleCount(enum StyleGroup group) {
  return kCounts[group];
}

struct Styles StylesAll(void) {
  struct Styles styles;
  for (unsigned group = 0; group < kGroups; ++group) styles.allowed[group] = (1ULL << kCounts[group]) - 1;
  return styles;
}

static bool Find(const char* name, size_t length, unsigned* group, unsigned* kind) {
  for (*group = 0; *group < kGroups; ++*group) {
    for (*kind = 0; *kind < kCounts[*group]; ++*kind) {
      const char* text = kNames[*group][*kind];
      if (strlen(text) == length && memcmp(text, name, length) == 0) return true;
    }
  }
  return false;
}

bool StylesParse(struct Styles* styles, const char* list) {
  uint64_t named[kGroups] = {0};
  uint64_t removed[kGroups] = {0};
  for (const char* at = list; *at != '\0';) {
    const bool remove = *at == '-';
    if (remove) ++at;
    const size_t length = strcspn(at, ",");
    unsigned group;
    unsigned kind;
    if (!Find(at, length, &group, &kind)) return false;
    (remove ? removed : named)[group] |= 1ULL << kind;
    at += length;
    if (*at == ',') ++at;
  }
  for (unsigned group = 0; group < kGroups; ++group) {
    if (named[group] != 0) styles->allowed[group] = named[group];
    styles->allowed[group] &= ~removed[group];
    const bool may_be_empty = group == kGroupExtra;
    if (styles->allowed[group] == 0 && !may_be_empty) return false;
  }
  return true;
}
