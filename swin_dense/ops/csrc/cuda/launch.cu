// What swin_dense.ops.extension reads from the file before it loads the library, since loading
// registers the ops: CUDA's major version and the architectures, first of all ops but window
// attention, then of window attention, whose products of 16-bit numbers need 8.0 ("" where it is
// left out). An architecture is a number, 86 for a card of capability 8.6: "75,86,90+ptx" has code
// for cards of 7.5, 8.6 and 8.9, 9.0, and PTX of 9.0, which the driver translates for later cards.
#ifndef SWIN_DENSE_ARCHITECTURES
#error "setup.py says for which architectures it compiles: -DSWIN_DENSE_ARCHITECTURES=..."
#endif

#define SWIN_DENSE_TEXT_OF(number) #number
#define SWIN_DENSE_TEXT(macro) SWIN_DENSE_TEXT_OF(macro)

extern "C" __attribute__((visibility("default"))) const char swin_dense_cuda_build[] =
    "swin_dense: CUDA " SWIN_DENSE_TEXT(__CUDACC_VER_MAJOR__) ", architectures "
    SWIN_DENSE_ARCHITECTURES ", tensor cores " SWIN_DENSE_TENSOR_CORES ";";
