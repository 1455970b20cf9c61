// The few instructions that plain C++ does not have. No header of CUDA is needed, so that NVRTC compiles this on a machine
// with nothing but a driver and its library. The test that runs the kernels without a GPU has functions of its own for these.
#ifndef EMULATED

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

__device__ __forceinline__ float to_float(u16 half) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
    return value;
}

// Two f16, the first in the lower half.
__device__ __forceinline__ u32 round_to_halves(float low, float high) {
    u32 halves;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(halves) : "f"(high), "f"(low));
    return halves;
}

__device__ __forceinline__ u32 subtract_halves(u32 a, u32 b) {
    u32 halves;
    asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(halves) : "r"(a), "r"(b));
    return halves;
}

__device__ __forceinline__ u32 multiply_add_halves(u32 a, u32 b, u32 c) {
    u32 halves;
    asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(halves) : "r"(a), "r"(b), "r"(c));
    return halves;
}

// d += a · b for a: [16, 16] f16, b: [16, 8] f16, d: [16, 8] f32, spread over the warp as the PTX manual says.
__device__ __forceinline__ void multiply_tile(float d[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}

// Weights are read once in a step: they must not push out of the caches what is read again.
__device__ __forceinline__ uint4 load_once(const void *at) {
    uint4 value;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
                 : "l"(at));
    return value;
}

__device__ __forceinline__ float shuffle_xor(float value, int mask) { return __shfl_xor_sync(~0u, value, mask); }
__device__ __forceinline__ int shuffle_xor(int value, int mask) { return __shfl_xor_sync(~0u, value, mask); }

#endif

// The largest f16: what is larger must not become infinity, which outlives a multiplication with 0.
#define LARGEST_HALF 65504.0f

__device__ __forceinline__ float clamp_to_half(float value) {
    // In this order, so that what is no number stays so.
    return value > LARGEST_HALF ? LARGEST_HALF : value < -LARGEST_HALF ? -LARGEST_HALF : value;
}

__device__ __forceinline__ u32 to_halves(float low, float high) {
    return round_to_halves(clamp_to_half(low), clamp_to_half(high));
}

__device__ __forceinline__ u16 to_half(float value) { return (u16)to_halves(value, 0.0f); }

__device__ __forceinline__ float low_half(u32 halves) { return to_float((u16)(halves & 0xffff)); }
__device__ __forceinline__ float high_half(u32 halves) { return to_float((u16)(halves >> 16)); }
