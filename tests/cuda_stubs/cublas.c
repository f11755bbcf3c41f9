/* cuBLAS without a device: handles exist, multiplications do nothing (see cudart.c). */
#include <stdlib.h>

int cublasCreate_v2(void **handle)
{
    *handle = calloc(1, 64);
    return *handle ? 0 : 3;
}

int cublasGetMathMode(void *handle, int *mode)
{
    (void)handle;
    *mode = 0;
    return 0;
}

const char *cublasGetStatusName(int status) { return status ? "stub error" : "success"; }
const char *cublasGetStatusString(int status) { return cublasGetStatusName(status); }
