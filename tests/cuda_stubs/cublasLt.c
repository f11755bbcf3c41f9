/* cuBLASLt without a device: descriptors exist, one algorithm is always found (see cudart.c). */
#include <stdlib.h>
#include <string.h>

/* As in cublasLt.h: an opaque algorithm, its workspace, a status, occupancy and four reserved. */
struct heuristic_result {
    unsigned long long algorithm[8];
    size_t workspace_bytes;
    int status;
    float waves;
    int reserved[4];
};

static int new_handle(void **handle)
{
    *handle = calloc(1, 256);
    return *handle ? 0 : 3;
}

int cublasLtCreate(void **handle) { return new_handle(handle); }
int cublasLtMatmulPreferenceCreate(void **preference) { return new_handle(preference); }

int cublasLtMatmulDescCreate(void **descriptor, int compute, int scale)
{
    (void)compute, (void)scale;
    return new_handle(descriptor);
}

int cublasLtMatrixTransformDescCreate(void **descriptor, int scale)
{
    (void)scale;
    return new_handle(descriptor);
}

int cublasLtMatrixLayoutCreate(void **layout, int type, unsigned long long rows,
                               unsigned long long columns, long long leading)
{
    (void)type, (void)rows, (void)columns, (void)leading;
    return new_handle(layout);
}

int cublasLtMatmulAlgoGetHeuristic(void *handle, void *operation, void *a, void *b, void *c,
                                   void *d, void *preference, int wanted,
                                   struct heuristic_result *results, int *found)
{
    (void)handle, (void)operation, (void)a, (void)b, (void)c, (void)d, (void)preference;
    *found = wanted > 0;
    if (*found)
        memset(results, 0, sizeof *results);
    return 0;
}
