#ifndef LACUNA_CLIENT_CLI_TABLE_H_
#define LACUNA_CLIENT_CLI_TABLE_H_

#include <string>
#include <vector>

namespace lacuna {

// Rows of text in left-aligned columns, two spaces apart.
class Table {
 public:
  using Row = std::vector<std::string>;

  explicit Table(Row header);
  void AddRow(Row row);  // as many cells as the header
  std::string ToText() const;

 private:
  std::vector<Row> rows_;
};

}  // namespace lacuna

#endif  // LACUNA_CLIENT_CLI_TABLE_H_
