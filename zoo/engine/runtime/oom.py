"""Recognition of out-of-memory errors."""

from __future__ import annotations

import torch

# Messages of torch's allocators. Other messages that mention memory do not count.
_CPU = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "could not create a memory object",
    "std::bad_alloc",
)
# Messages of GPU libraries, which allocate memory outside torch's allocator.
_GPU = (
    "CUDA error: out of memory",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # creating a handle failed for lack of memory
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "MPS backend out of memory",
)
# Messages of cuDNN if no algorithm had enough memory; the same as if it has no algorithm at all.
_CUDNN = (
    "GET was unable to find an engine to execute this computation",
    "FIND was unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm to run convolution",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means that a batch was too large for the memory of a GPU or of this process.

    If cuDNN finds no algorithm for a convolution, lack of memory is assumed. If that is wrong, halving the batch ends at one
    sample, and the error raised then has the original as its cause.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in (*_CPU, *_GPU, *_CUDNN))
