// A program that is given its input at once and must be done soon.
#pragma once

#include <chrono>
#include <string>
#include <vector>

namespace vsocket::enforce {

struct ProgramResult {
  int exit_status = -1;  // -1: `trouble` says why there is none
  std::string trouble;   // a sentence: it could not be started, was ended by a signal, or took too long and was killed
  std::string output;    // of both its streams, the first kMostOutput bytes, without the newlines at the end
};

inline constexpr std::size_t kMostOutput = 1U << 20;

// `argv[0]` is its path. It gets `input` and then the end, LC_ALL=C and nothing else of the environment, no signal blocked or ignored, and
// the network namespace of the calling thread. Blocks. Thread safety: any thread.
ProgramResult RunProgram(const std::vector<std::string>& argv, const std::string& input, std::chrono::milliseconds timeout);

}  // namespace vsocket::enforce
