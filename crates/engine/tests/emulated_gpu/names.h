// Behind the kernels' source: each by its name.
KERNEL(rms_norm) KERNEL(gate) KERNEL(norm_heads) KERNEL(rotate_and_store) KERNEL(copy_block) KERNEL(attend)
KERNEL(combine) KERNEL(attend_many) KERNEL(argmax) KERNEL(fill_floats) KERNEL(fill_nibbles)
#ifdef USES_FLOATS
KERNELS_OF(floats)
#endif
#ifdef USES_NIBBLES
KERNELS_OF(nibbles)
#endif
#ifdef USES_BYTES
KERNELS_OF(bytes)
#endif
#ifdef USES_HALVED
KERNELS_OF(halved)
#endif
