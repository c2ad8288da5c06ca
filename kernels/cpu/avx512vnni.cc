#include "kernels/cpu/avx512vnni_inl.h"
#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/table_inl.h"

namespace lacuna {

constinit const KernelTable kAvx512VnniTable = MakeTable<Avx512Vnni>("avx512vnni");

}  // namespace lacuna
