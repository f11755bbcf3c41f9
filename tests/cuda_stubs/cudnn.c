/* cuDNN without a device: descriptors exist, convolutions do nothing (see cudart.c). */
#include <stdlib.h>

enum { WORKSPACE_BYTES = 16 };

static int new_handle(void **handle)
{
    *handle = calloc(1, 256);
    return *handle ? 0 : 2;
}

size_t cudnnGetVersion(void) { return 92800; }
const char *cudnnGetErrorString(int status) { return status ? "stub error" : "success"; }

void cudnnGetLastErrorString(char *message, size_t bytes)
{
    if (bytes)
        message[0] = '\0';
}

int cudnnCreate(void **handle) { return new_handle(handle); }
int cudnnCreateActivationDescriptor(void **descriptor) { return new_handle(descriptor); }
int cudnnCreateConvolutionDescriptor(void **descriptor) { return new_handle(descriptor); }
int cudnnCreateDropoutDescriptor(void **descriptor) { return new_handle(descriptor); }
int cudnnCreateFilterDescriptor(void **descriptor) { return new_handle(descriptor); }
int cudnnCreateLRNDescriptor(void **descriptor) { return new_handle(descriptor); }
int cudnnCreatePoolingDescriptor(void **descriptor) { return new_handle(descriptor); }
int cudnnCreateRNNDataDescriptor(void **descriptor) { return new_handle(descriptor); }
int cudnnCreateRNNDescriptor(void **descriptor) { return new_handle(descriptor); }
int cudnnCreateReduceTensorDescriptor(void **descriptor) { return new_handle(descriptor); }
int cudnnCreateTensorDescriptor(void **descriptor) { return new_handle(descriptor); }

int cudnnBackendCreateDescriptor(int type, void **descriptor)
{
    (void)type;
    return new_handle(descriptor);
}

int cudnnGetStream(void *handle, void **stream)
{
    (void)handle;
    *stream = NULL;
    return 0;
}

int cudnnDropoutGetStatesSize(void *handle, size_t *bytes)
{
    (void)handle;
    *bytes = WORKSPACE_BYTES;
    return 0;
}

int cudnnGetReductionIndicesSize(void *handle, void *reduction, void *x, void *y, size_t *bytes)
{
    (void)handle, (void)reduction, (void)x, (void)y;
    *bytes = WORKSPACE_BYTES;
    return 0;
}

int cudnnGetReductionWorkspaceSize(void *handle, void *reduction, void *x, void *y, size_t *bytes)
{
    return cudnnGetReductionIndicesSize(handle, reduction, x, y, bytes);
}

int cudnnGetConvolutionForwardWorkspaceSize(void *handle, void *x, void *w, void *convolution,
                                            void *y, int algorithm, size_t *bytes)
{
    (void)handle, (void)x, (void)w, (void)convolution, (void)y, (void)algorithm;
    *bytes = WORKSPACE_BYTES;
    return 0;
}

int cudnnGetRNNTempSpaceSizes(void *handle, void *rnn, int mode, void *x, size_t *work,
                              size_t *reserve)
{
    (void)handle, (void)rnn, (void)mode, (void)x;
    *work = *reserve = WORKSPACE_BYTES;
    return 0;
}
