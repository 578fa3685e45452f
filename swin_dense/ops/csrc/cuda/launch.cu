#include <cuda_runtime.h>

// Read by swin_dense.ops.extension before the library is used; no operators. An architecture is
// a number, 86 for a card of capability 8.6: "75,86,90+ptx" has code for cards of 7.5, 8.6 and
// 8.9, 9.0, and PTX of 9.0, which the driver translates for later cards.
#ifndef SWIN_DENSE_ARCHITECTURES
#error "setup.py says for which architectures it compiles: -DSWIN_DENSE_ARCHITECTURES=..."
#endif

#define SWIN_DENSE_TELLS extern "C" __attribute__((visibility("default")))

SWIN_DENSE_TELLS int swin_dense_cuda_version() { return CUDART_VERSION; }

// Of all ops but those of the next line.
SWIN_DENSE_TELLS const char* swin_dense_cuda_architectures() { return SWIN_DENSE_ARCHITECTURES; }

// Of window attention, whose products of 16-bit numbers need 8.0; "" where it is left out.
SWIN_DENSE_TELLS const char* swin_dense_cuda_tensor_core_architectures() {
  return SWIN_DENSE_TENSOR_CORES;
}
