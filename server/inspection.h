#ifndef LACUNA_SERVER_INSPECTION_H_
#define LACUNA_SERVER_INSPECTION_H_

#include <ostream>

#include "server/options.h"

namespace lacuna {

// `--inspect`: writes to `out` what each of options.models is. False if one would be refused; the
// reason goes to `err` (text) or to its line of `out` (json).
bool PrintInspections(const ServerOptions& options, std::ostream& out, std::ostream& err);

}  // namespace lacuna

#endif  // LACUNA_SERVER_INSPECTION_H_
