#include <fcntl.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>

#include "client/cli/commands.h"

int main(int argc, char** argv) {
  // A reader that goes away shows as a failed write.
  std::signal(SIGPIPE, SIG_IGN);
  // A standard stream that is closed must not become a socket's file descriptor; opened this way,
  // reads give end of file and writes fail.
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; ++fd) {
    if (fcntl(fd, F_GETFD) == -1 && open("/dev/null", O_RDONLY) != fd) return 1;
  }
  // A failed call is reported once, by us; GRPC_VERBOSITY=ERROR brings gRPC's own log lines back.
  setenv("GRPC_VERBOSITY", "NONE", /*overwrite=*/0);
  return lacuna::RunCommandLine(argc, argv);
}
