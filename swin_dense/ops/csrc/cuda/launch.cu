#include <cuda_runtime.h>

// Read by swin_dense.ops.extension before the library is used; not an operator.
extern "C" __attribute__((visibility("default"))) int swin_dense_cuda_version() {
  return CUDART_VERSION;
}
