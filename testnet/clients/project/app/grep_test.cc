#include <cstdlib>
#include <fstream>
#include <string>

#include "absl/strings/match.h"
#include "gtest/gtest.h"

TEST(Grep, LeavesAnOutputOfItsOwn) {
  EXPECT_TRUE(absl::StrContains("mesh", "es"));
  const char* outputs = std::getenv("TEST_UNDECLARED_OUTPUTS_DIR");
  ASSERT_NE(outputs, nullptr);
  std::ofstream(std::string(outputs) + "/said.txt") << "said by the test\n";
}
