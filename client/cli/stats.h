#ifndef LACUNA_CLIENT_CLI_STATS_H_
#define LACUNA_CLIENT_CLI_STATS_H_

#include <string>
#include <vector>

#include "lacuna/v1/generation.pb.h"

namespace lacuna {

// Counts, times and FFN sparsity of a request, as the server measured them, for people: a line for
// the request and a few for each choice. Tokens per second are those after a choice's first token.
std::string StatsText(const v1::Started& started, const std::vector<v1::Finished>& finished);

}  // namespace lacuna

#endif  // LACUNA_CLIENT_CLI_STATS_H_
