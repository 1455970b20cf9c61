// What the kernels need to run on a CPU: threads of a block are fibers that go on in turn, and what a warp does together
// goes through memory. In front of the kernels' source this makes a shared library; `driver.cpp` calls it.
#define EMULATED
#include <immintrin.h>
#include <initializer_list>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

struct uint2 { u32 x, y; };
struct uint4 { u32 x, y, z, w; };
struct float2 { float x, y; };
struct dim3 { int x, y, z; };
static inline uint4 make_uint4(u32 x, u32 y, u32 z, u32 w) { return {x, y, z, w}; }

#define __device__
#define __global__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static

#define N_MAX_THREADS 1024
#define N_STACK (64 * 1024)

// Saves what a call must keep, and goes on where another fiber was.
extern "C" void switch_fiber(void **from, void *to);
asm(R"(
.text
.globl switch_fiber
switch_fiber:
    push %rbp
    push %rbx
    push %r12
    push %r13
    push %r14
    push %r15
    mov %rsp, (%rdi)
    mov %rsi, %rsp
    pop %r15
    pop %r14
    pop %r13
    pop %r12
    pop %rbx
    pop %rbp
    ret
)");

struct Meeting { int n_alive, n_here; u64 round; };
static dim3 blockIdx, gridDim, blockDim;
static struct { int x; } threadIdx;
static void *fibers[N_MAX_THREADS], *scheduler;
static bool is_over[N_MAX_THREADS];
static Meeting block_meeting, warp_meetings[N_MAX_THREADS / 32];
static void (*entry)(void **);
static void **arguments;
static char *stacks;

static void give_way() {
    int self = threadIdx.x;
    switch_fiber(&fibers[self], scheduler);
    threadIdx.x = self;
}
static void go_on(Meeting &meeting) { meeting.n_here = 0, meeting.round++; }
static void meet(Meeting &meeting) {
    u64 round = meeting.round;
    if (++meeting.n_here == meeting.n_alive) return go_on(meeting);
    while (meeting.round == round) give_way();
}
static void leave(Meeting &meeting) {
    if (--meeting.n_alive > 0 && meeting.n_here == meeting.n_alive) go_on(meeting);
}
static void __syncthreads() { meet(block_meeting); }

static void begin() {
    entry(arguments);
    int self = threadIdx.x;
    is_over[self] = true;
    leave(block_meeting);
    leave(warp_meetings[self / 32]);
    switch_fiber(&fibers[self], scheduler);
    abort();
}

extern "C" void run_kernel(void (*kernel)(void **), void **args, const u32 *grid, u32 n_threads) {
    if (!stacks) stacks = (char *)malloc((size_t)N_MAX_THREADS * N_STACK);
    entry = kernel, arguments = args;
    gridDim = {(int)grid[0], (int)grid[1], (int)grid[2]}, blockDim = {(int)n_threads, 1, 1};
    for (int z = 0; z < gridDim.z; z++)
        for (int y = 0; y < gridDim.y; y++)
            for (int x = 0; x < gridDim.x; x++) {
                blockIdx = {x, y, z};
                block_meeting = {(int)n_threads, 0, 0};
                for (u32 w = 0; w < (n_threads + 31) / 32; w++)
                    warp_meetings[w] = {(int)(n_threads - 32 * w < 32 ? n_threads - 32 * w : 32), 0, 0};
                for (u32 t = 0; t < n_threads; t++) {
                    void **top = (void **)(stacks + (size_t)(t + 1) * N_STACK) - 2;
                    top[0] = (void *)begin, top[1] = 0;
                    fibers[t] = top - 6, is_over[t] = false;
                }
                for (bool is_done = false; !is_done;) {
                    is_done = true;
                    for (u32 t = 0; t < n_threads; t++) {
                        if (is_over[t]) continue;
                        is_done = false;
                        threadIdx.x = t;
                        switch_fiber(&scheduler, fibers[t]);
                    }
                }
            }
}

static inline float to_float(u16 half) { return _cvtsh_ss(half); }
static inline u16 round_half(float value) { return _cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT); }
static inline u32 round_to_halves(float low, float high) { return round_half(low) | (u32)round_half(high) << 16; }
static inline u32 subtract_halves(u32 a, u32 b) {
    return round_to_halves(to_float(a) - to_float(b), to_float(a >> 16) - to_float(b >> 16));
}
static inline u32 multiply_add_halves(u32 a, u32 b, u32 c) {
    return round_to_halves((float)((double)to_float(a) * to_float(b) + to_float(c)),
                           (float)((double)to_float(a >> 16) * to_float(b >> 16) + to_float(c >> 16)));
}
static inline u32 __byte_perm(u32 low, u32 high, u32 selector) {
    u64 bytes = low | (u64)high << 32;
    u32 out = 0;
    for (int i = 0; i < 4; i++) out |= (u32)(bytes >> 8 * (selector >> 4 * i & 7) & 255) << 8 * i;
    return out;
}
static inline uint4 load_once(const void *at) {
    uint4 value;
    if ((uintptr_t)at % 16) abort();
    memcpy(&value, at, 16);
    return value;
}
static inline int min(int a, int b) { return a < b ? a : b; }

static u32 shuffled[N_MAX_THREADS];
template <class T> static T shuffle(T value, int mask) {
    int self = threadIdx.x;
    memcpy(&shuffled[self], &value, 4);
    meet(warp_meetings[self / 32]);
    memcpy(&value, &shuffled[self ^ mask], 4);
    meet(warp_meetings[self / 32]);
    return value;
}
static inline float shuffle_xor(float value, int mask) { return shuffle(value, mask); }
static inline int shuffle_xor(int value, int mask) { return shuffle(value, mask); }

static struct { float a[16][16], b[8][16]; } tiles[N_MAX_THREADS / 32];
static inline void multiply_tile(float d[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    int warp = threadIdx.x / 32, g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
    auto &tile = tiles[warp];
    u32 a[4] = {a0, a1, a2, a3}, b[2] = {b0, b1};
    for (int i = 0; i < 4; i++)
        for (int e = 0; e < 2; e++) tile.a[g + i % 2 * 8][i / 2 * 8 + 2 * t + e] = to_float(a[i] >> 16 * e);
    for (int i = 0; i < 2; i++)
        for (int e = 0; e < 2; e++) tile.b[g][i * 8 + 2 * t + e] = to_float(b[i] >> 16 * e);
    meet(warp_meetings[warp]);
    for (int i = 0; i < 4; i++) {
        float sum = 0.0f;
        for (int k = 0; k < 16; k++) sum += tile.a[g + i / 2 * 8][k] * tile.b[2 * t + i % 2][k];
        d[i] += sum;
    }
    meet(warp_meetings[warp]);
}

template <int... I> struct Places {};
template <int N, int... I> struct Counted : Counted<N - 1, N - 1, I...> {};
template <int... I> struct Counted<0, I...> { typedef Places<I...> All; };
template <class... A, int... I> static void call(void (*f)(A...), void **p, Places<I...>) { f(*(A *)p[I]...); }
template <class... A> static void call(void (*f)(A...), void **p) {
    call(f, p, typename Counted<sizeof...(A)>::All());
}
template <class... A> static void sizes(void (*)(A...), int *to) {
    for (int size : {(int)sizeof(A)...}) *to++ = size;
    *to = 0;
}
#define KERNEL(NAME)                                                                                                    \
    extern "C" void call_##NAME(void **p) { call(&NAME, p); }                                                           \
    extern "C" void sizes_##NAME(int *to) { sizes(&NAME, to); }
#define KERNELS_OF(FORM)                                                                                                \
    KERNEL(multiply_##FORM##_1) KERNEL(multiply_##FORM##_2) KERNEL(multiply_##FORM##_4) KERNEL(multiply_##FORM##_8)     \
    KERNEL(embed_##FORM) KERNEL(unpack_##FORM)
