#ifndef LACUNA_KERNELS_CPU_ISA_TABLES_H_
#define LACUNA_KERNELS_CPU_ISA_TABLES_H_

#include "kernels/base/kernel_table.h"

namespace lacuna {

// One table per ISA source; callers use SelectCpuKernels, which asks the CPU first.
extern const KernelTable kGenericTable;
extern const KernelTable kAvx2Table;
extern const KernelTable kAvx512Table;
extern const KernelTable kAvx512VnniTable;
extern const KernelTable kAmxTable;

}  // namespace lacuna

#endif  // LACUNA_KERNELS_CPU_ISA_TABLES_H_
