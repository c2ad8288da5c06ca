#ifndef LACUNA_TESTS_CLIENT_FAKE_SERVER_H_
#define LACUNA_TESTS_CLIENT_FAKE_SERVER_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "lacuna/v1/generation.pb.h"

namespace lacuna {

// A GenerationService with scripted answers, on a free port of the loopback interface. It serves
// one model, "tiny", whose tokens are bytes: id 1 begins a text, context 64, 256 tokens in a table
// of 320 rows. Thread-safe.
class FakeServer {
 public:
  struct Reply {
    std::vector<v1::GenerateStreamResponse> events;
    absl::Status status;
    bool hang = false;  // after the events, wait until the client cancels
  };
  using Generator = std::function<Reply(const v1::GenerateRequest&)>;

  // A stream of started, one delta per element of `texts`, and finished, for choice 0.
  static Reply Says(const std::vector<std::string>& texts);

  // `port` 0: any.
  explicit FakeServer(Generator generator, int port = 0);
  ~FakeServer();

  int port() const;
  std::string address() const;
  void SetServing(bool serving);                  // of the server and its one service
  void FailNext(int calls, absl::Status status);  // ListModels only

  std::vector<v1::GenerateRequest> requests() const;  // of Generate and GenerateStream
  std::string last_authorization() const;             // of any call, "" if none
  int model_calls() const;                            // of ListModels
  void WaitForRequests(size_t count) const;           // until so many have arrived
  void WaitForCancellations(int count) const;         // until so many streams were cancelled

 private:
  class Service;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace lacuna

#endif  // LACUNA_TESTS_CLIENT_FAKE_SERVER_H_
