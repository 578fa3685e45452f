#include "vector_level.h"

// Read by swin_dense.ops.extension for its report; not an operator.
extern "C" __attribute__((visibility("default"))) const char* swin_dense_cpu_level() {
  switch (swin_dense::level()) {
    case swin_dense::Level::avx512:
      return "avx512";
    case swin_dense::Level::avx2:
      return "avx2";
    default:
      return "portable";
  }
}
