#include <iostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

int main(int argc, char** argv) {
  bool found = argc > 2 && absl::StrContains(argv[1], argv[2]);
  std::cout << absl::StrCat("match: ", found) << "\n";
}
