#ifndef LACUNA_KERNELS_CPU_CPU_KERNELS_H_
#define LACUNA_KERNELS_CPU_CPU_KERNELS_H_

#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "kernels/base/kernel_table.h"

namespace lacuna {

// The tables that this machine can run, slowest first; "generic" is always among them.
// The pointers live for ever. Asks Linux for the use of AMX, where the CPU has it: from then on
// sigaltstack refuses stacks too small for it.
std::vector<const KernelTable*> SupportedCpuKernels();

// The table to use: the one named `isa` ("generic", "avx2", "avx512", "avx512vnni", "amx"), or the
// fastest supported one if `isa` is empty. INVALID_ARGUMENT for an unknown name,
// FAILED_PRECONDITION if this machine lacks it. Callers pass the environment variable LACUNA_ISA.
absl::StatusOr<const KernelTable*> SelectCpuKernels(std::string_view isa);

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_CPU_KERNELS_H_
