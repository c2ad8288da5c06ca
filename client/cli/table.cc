#include "client/cli/table.h"

#include <algorithm>
#include <utility>

namespace lacuna {

Table::Table(Row header) { rows_.push_back(std::move(header)); }

void Table::AddRow(Row row) { rows_.push_back(std::move(row)); }

std::string Table::ToText() const {
  std::vector<size_t> widths(rows_.front().size());
  for (const Row& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const Row& row : rows_) {
    for (size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      if (i + 1 < row.size()) text.append(widths[i] + 2 - row[i].size(), ' ');
    }
    text += '\n';
  }
  return text;
}

}  // namespace lacuna
