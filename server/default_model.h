#ifndef LACUNA_SERVER_DEFAULT_MODEL_H_
#define LACUNA_SERVER_DEFAULT_MODEL_H_

#include <string>

#include "absl/status/statusor.h"

namespace lacuna {

// Directory of the embedded model: the first one (by name) with a config.json in
// share/lacuna/models or models of a directory above `binary`: an installed tree or a source tree.
// NOT_FOUND names the places that were searched.
absl::StatusOr<std::string> FindDefaultModel(const std::string& binary);

}  // namespace lacuna

#endif  // LACUNA_SERVER_DEFAULT_MODEL_H_
