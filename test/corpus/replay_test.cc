// Runs a fuzzer's entry over its corpus in every build, so that what the fuzzer once found stays found. Compiled once a fuzzer (CMake's
// vsocket_add_corpus_test), which names the folder: VSOCKET_CORPUS.
#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

TEST(Corpus, NoInputBreaksWhatReadsIt) {
  int inputs = 0;
  for (const auto& entry : std::filesystem::directory_iterator(VSOCKET_CORPUS)) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    SCOPED_TRACE(entry.path());
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(text.data()), text.size());
    inputs++;
  }
  EXPECT_GE(inputs, 7);
}

}  // namespace
