"""Classification of errors: out of memory, or anything else."""

from __future__ import annotations

import torch

# What torch's allocators say; a message that merely speaks of memory is not among them.
_CPU = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "could not create a memory object",
    "std::bad_alloc",
)
# What the libraries on a GPU say, which ask for memory beside torch's allocator.
_GPU = (
    "CUDA error: out of memory",
    "CUDA out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_NOT_INITIALIZED",  # what a handle that finds no memory says
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
    "MPS backend out of memory",
)
# What cuDNN says where none of its ways had room enough; also what it says where it has no way at all.
_NO_WAY = (
    "GET was unable to find an engine to execute this computation",
    "FIND was unable to find an engine to execute this computation",
    "Unable to find a valid cuDNN algorithm to run convolution",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error means that a batch was too large for the memory of a GPU or of this process.

    Where cuDNN finds no way to compute a convolution this is taken to be the cause, for mostly it is. If it is not, halving the
    batch ends at one sample, and the error that is told then has the original as its cause.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(text in str(error) for text in (*_CPU, *_GPU, *_NO_WAY))
