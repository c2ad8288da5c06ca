#ifndef LACUNA_TESTS_INTEGRATION_SERVER_PROCESS_H_
#define LACUNA_TESTS_INTEGRATION_SERVER_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

namespace lacuna {

// A real lacuna-server on ports chosen by the system. Killed, if it still runs, by the destructor.
class ServerProcess {
 public:
  // `args` come after --listen and --metrics_listen with port 0.
  explicit ServerProcess(const std::vector<std::string>& args);
  ~ServerProcess();
  ServerProcess(const ServerProcess&) = delete;
  ServerProcess& operator=(const ServerProcess&) = delete;

  // Waits for the "listening" line; false if the process ended without it.
  bool WaitListening();
  const std::string& grpc_address() const { return grpc_; }
  const std::string& metrics_address() const { return metrics_; }

  void Signal(int signal_number) const;
  // Waits for the end: the exit code, or 128 + the signal.
  int Wait();
  // What it wrote to stderr so far.
  std::string Errors() const;

 private:
  pid_t pid_ = -1;
  int out_ = -1;
  std::string errors_path_;
  std::string grpc_, metrics_;
};

// Body of an HTTP GET of http://`address``path`; empty on any error.
std::string HttpGet(const std::string& address, const std::string& path);

}  // namespace lacuna

#endif  // LACUNA_TESTS_INTEGRATION_SERVER_PROCESS_H_
