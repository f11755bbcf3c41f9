/* The CUDA runtime without a device: one imaginary Hopper GPU whose memory is the host's.
 *
 * Only what must answer something is written here. build.py adds an empty function that returns
 * success for everything else that ONNX Runtime imports: kernel launches, registrations, waits. */
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

enum { MAJOR = 9, PROCESSORS = 132, THREADS = 1024, WARP = 32, SHARED_BYTES = 49152 };
static const size_t MEMORY_BYTES = (size_t)64 << 30;

/* A handle that is never looked into, but must not be null and must differ from every other. */
static cudaError_t new_handle(void **handle)
{
    *handle = calloc(1, 64);
    return *handle ? cudaSuccess : cudaErrorMemoryAllocation;
}

static cudaError_t new_memory(void **memory, size_t bytes)
{
    *memory = malloc(bytes ? bytes : 1);
    return *memory ? cudaSuccess : cudaErrorMemoryAllocation;
}

/* The device. */

cudaError_t cudaGetDeviceCount(int *count) { *count = 1; return cudaSuccess; }
cudaError_t cudaGetDevice(int *device) { *device = 0; return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
cudaError_t cudaDriverGetVersion(int *version) { *version = CUDART_VERSION; return cudaSuccess; }
const char *cudaGetErrorName(cudaError_t error) { return error ? "stub error" : "success"; }
const char *cudaGetErrorString(cudaError_t error) { return cudaGetErrorName(error); }

cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp *properties, int device)
{
    (void)device;
    memset(properties, 0, sizeof *properties);
    strcpy(properties->name, "no device (stub)");
    properties->major = MAJOR;
    properties->multiProcessorCount = PROCESSORS;
    properties->totalGlobalMem = MEMORY_BYTES;
    properties->warpSize = WARP;
    properties->maxThreadsPerBlock = THREADS;
    properties->maxThreadsPerMultiProcessor = 2 * THREADS;
    properties->sharedMemPerBlock = SHARED_BYTES;
    properties->sharedMemPerBlockOptin = 4 * SHARED_BYTES;
    properties->sharedMemPerMultiprocessor = 4 * SHARED_BYTES;
    properties->regsPerBlock = 65536;
    for (int axis = 0; axis < 3; axis++) {
        properties->maxGridSize[axis] = axis ? 65535 : 2147483647;
        properties->maxThreadsDim[axis] = axis < 2 ? THREADS : 64;
    }
    return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int *value, enum cudaDeviceAttr attribute, int device)
{
    (void)device;
    switch (attribute) {
    case cudaDevAttrComputeCapabilityMajor: *value = MAJOR; break;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; break;
    case cudaDevAttrMultiProcessorCount: *value = PROCESSORS; break;
    case cudaDevAttrMaxThreadsPerBlock: *value = THREADS; break;
    case cudaDevAttrWarpSize: *value = WARP; break;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = SHARED_BYTES; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = 4 * SHARED_BYTES; break;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 4 * SHARED_BYTES; break;
    default: *value = 1;
    }
    return cudaSuccess;
}

/* Memory. */

cudaError_t cudaMemGetInfo(size_t *free_bytes, size_t *total_bytes)
{
    *free_bytes = *total_bytes = MEMORY_BYTES;
    return cudaSuccess;
}

cudaError_t cudaMalloc(void **memory, size_t bytes) { return new_memory(memory, bytes); }
cudaError_t cudaMallocHost(void **memory, size_t bytes) { return new_memory(memory, bytes); }

cudaError_t cudaHostAlloc(void **memory, size_t bytes, unsigned int flags)
{
    (void)flags;
    return new_memory(memory, bytes);
}

cudaError_t cudaMallocFromPoolAsync(void **memory, size_t bytes, cudaMemPool_t pool,
                                    cudaStream_t stream)
{
    (void)pool, (void)stream;
    return new_memory(memory, bytes);
}

cudaError_t cudaFree(void *memory) { free(memory); return cudaSuccess; }
cudaError_t cudaFreeHost(void *memory) { free(memory); return cudaSuccess; }

cudaError_t cudaFreeAsync(void *memory, cudaStream_t stream)
{
    (void)stream;
    free(memory);
    return cudaSuccess;
}

cudaError_t cudaMemcpy(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind)
{
    (void)kind;
    memmove(to, from, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, enum cudaMemcpyKind kind,
                            cudaStream_t stream)
{
    (void)stream;
    return cudaMemcpy(to, from, bytes, kind);
}

cudaError_t cudaMemcpy2DAsync(void *to, size_t to_pitch, const void *from, size_t from_pitch,
                              size_t width, size_t height, enum cudaMemcpyKind kind,
                              cudaStream_t stream)
{
    (void)kind, (void)stream;
    for (size_t row = 0; row < height; row++)
        memmove((char *)to + row * to_pitch, (const char *)from + row * from_pitch, width);
    return cudaSuccess;
}

cudaError_t cudaMemset(void *memory, int value, size_t bytes)
{
    memset(memory, value, bytes);
    return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void *memory, int value, size_t bytes, cudaStream_t stream)
{
    (void)stream;
    return cudaMemset(memory, value, bytes);
}

cudaError_t cudaPointerGetAttributes(struct cudaPointerAttributes *attributes, const void *memory)
{
    (void)memory;
    memset(attributes, 0, sizeof *attributes);
    attributes->type = cudaMemoryTypeDevice;
    return cudaSuccess;
}

cudaError_t cudaMemPoolCreate(cudaMemPool_t *pool, const struct cudaMemPoolProps *properties)
{
    (void)properties;
    return new_handle((void **)pool);
}

cudaError_t cudaMemPoolGetAttribute(cudaMemPool_t pool, enum cudaMemPoolAttr attribute, void *value)
{
    (void)pool, (void)attribute;
    memset(value, 0, sizeof(unsigned long long));
    return cudaSuccess;
}

/* Streams, events, graphs. */

cudaError_t cudaStreamCreate(cudaStream_t *stream) { return new_handle((void **)stream); }
cudaError_t cudaEventCreate(cudaEvent_t *event) { return new_handle((void **)event); }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *stream, unsigned int flags)
{
    (void)flags;
    return new_handle((void **)stream);
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *event, unsigned int flags)
{
    (void)flags;
    return new_handle((void **)event);
}

cudaError_t cudaEventElapsedTime(float *milliseconds, cudaEvent_t start, cudaEvent_t end)
{
    (void)start, (void)end;
    *milliseconds = 1;
    return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, enum cudaStreamCaptureStatus *status)
{
    (void)stream;
    *status = cudaStreamCaptureStatusNone;
    return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *graph)
{
    (void)stream;
    return new_handle((void **)graph);
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *executable, cudaGraph_t graph,
                                 unsigned long long flags)
{
    (void)graph, (void)flags;
    return new_handle((void **)executable);
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t call, void *data)
{
    (void)stream;
    call(data);
    return cudaSuccess;
}

/* Kernels: found, never run. */

cudaError_t cudaFuncGetAttributes(struct cudaFuncAttributes *attributes, const void *function)
{
    (void)function;
    memset(attributes, 0, sizeof *attributes);
    attributes->maxThreadsPerBlock = THREADS;
    attributes->binaryVersion = attributes->ptxVersion = 10 * MAJOR;
    return cudaSuccess;
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int *blocks,
                                                                   const void *function,
                                                                   int threads, size_t shared,
                                                                   unsigned int flags)
{
    (void)function, (void)threads, (void)shared, (void)flags;
    *blocks = 1;
    return cudaSuccess;
}

cudaError_t cudaLibraryLoadData(cudaLibrary_t *library, const void *code,
                                enum cudaJitOption *options, void **values, unsigned int count,
                                enum cudaLibraryOption *library_options, void **library_values,
                                unsigned int library_count)
{
    (void)code, (void)options, (void)values, (void)count;
    (void)library_options, (void)library_values, (void)library_count;
    return new_handle((void **)library);
}

cudaError_t cudaLibraryGetKernel(cudaKernel_t *kernel, cudaLibrary_t library, const char *name)
{
    (void)library, (void)name;
    return new_handle((void **)kernel);
}

cudaError_t cudaGetDriverEntryPointByVersion(const char *symbol, void **function,
                                             unsigned int version, unsigned long long flags,
                                             enum cudaDriverEntryPointQueryResult *result)
{
    (void)symbol, (void)version, (void)flags;
    *function = NULL;
    if (result)
        *result = cudaDriverEntryPointSymbolNotFound;
    return cudaSuccess;
}

/* What nvcc's generated start-up code calls; it is declared in no header for C. */

void **__cudaRegisterFatBinary(void *binary)
{
    static void *registered;
    (void)binary;
    return &registered;
}

cudaError_t __cudaGetKernel(cudaKernel_t *kernel, const void *function)
{
    *kernel = (cudaKernel_t)function;
    return cudaSuccess;
}
