"""Array kernels of the ring. The only place below `libs/secure_nn` that uses torch or numba."""
