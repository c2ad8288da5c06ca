// Reads one JSON string a line and prints what the tokenizer of a directory makes of it, one JSON
// list a line: ids, the text of these, ids with control tokens recognized.
//   tokenize_lines DIRECTORY < strings > results
#include <iostream>
#include <nlohmann/json.hpp>

#include "runtime/tokenizer/load_tokenizer.h"

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  const auto tokenizer = lacuna::LoadTokenizer(argv[1]);
  if (!tokenizer.ok()) {
    std::cerr << tokenizer.status() << "\n";
    return 1;
  }
  for (std::string line; std::getline(std::cin, line);) {
    const std::string text = nlohmann::json::parse(line).get<std::string>();
    const std::vector<int32_t> ids = (*tokenizer)->Encode(text, false).value();
    const std::string decoded = (*tokenizer)->Decode(ids).value();
    const std::vector<int32_t> markup = (*tokenizer)->EncodeMarkup(text, {}).value();
    std::cout << nlohmann::json({ids, decoded, markup}).dump() << "\n";
  }
}
