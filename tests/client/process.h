#ifndef LACUNA_TESTS_CLIENT_PROCESS_H_
#define LACUNA_TESTS_CLIENT_PROCESS_H_

#include <sys/types.h>

#include <string>
#include <vector>

namespace lacuna {

// A child process whose output is collected through pipes. Not thread-safe.
class Process {
 public:
  struct Result {
    int exit_code = -1;  // 128 + signal if a signal ended it
    std::string out, err;
  };

  // argv[0] is the program's path; `environment` holds NAME=VALUE, and is all there is of it.
  explicit Process(const std::vector<std::string>& argv, const std::string& input = "",
                   const std::vector<std::string>& environment = {});
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process();

  void Signal(int signal_number) const;
  // Closes the pipe that the process's stdout goes to.
  void CloseOutput();
  // Reads until both outputs are closed, then waits for the end.
  Result Wait();

 private:
  pid_t pid_ = -1;
  int out_ = -1, err_ = -1;
};

}  // namespace lacuna

#endif  // LACUNA_TESTS_CLIENT_PROCESS_H_
