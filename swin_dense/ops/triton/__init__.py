"""Kernels for CUDA where no compiled library fits: Triton compiles them where they run."""
