// Matrices and their products with f16 rows.
//
// A matrix [n_out, n_in] has one of four forms, row after row:
//   FLOATS  n_in f16.
//   NIBBLES units of 128 weights in 80 bytes: 4 threads' 16 bytes, of which word j holds weights 8·t..8·t+8 of the unit's
//           j-th 32, weight 2i in bits 4i and weight 2i+1 in bits 16+4i; then 4 pairs of f16 (scale, min), one for each 32.
//   BYTES   units of 128 weights in 144 bytes: 4 threads' 32 bytes, of which bytes 8j..8j+8 are weights 8·t..8·t+8 of the
//           unit's j-th 32, 128 more than they are; then the same pairs.
//   HALVED  as BYTES, but the pairs are the scales of each 16 weights.
// A thread's 8 weights of 32 are those that `multiply_tile` wants of it in two calls if the order in which products are added
// up is changed for weights and rows alike.
//
// Every sum is added up in one order, whatever the number of rows: 8 warps take units in turn, then their sums are added.

#define FLOATS 0
#define NIBBLES 1
#define BYTES 2
#define HALVED 3

#define N_WARPS 8

// What is done with a product.
#define STORE 0
#define ADD 1
// The matrix has 8 rows of the gate and 8 of the other branch by turns; silu(gate) · other is written as f16.
#define GATE 2

template <int FORM> __device__ __forceinline__ int unit_weights() { return FORM == FLOATS ? 32 : 128; }
template <int FORM> __device__ __forceinline__ int unit_bytes() {
    return FORM == FLOATS ? 64 : FORM == NIBBLES ? 80 : 144;
}
template <int FORM> __device__ __forceinline__ u64 row_bytes(int n_in) {
    return (u64)((n_in + unit_weights<FORM>() - 1) / unit_weights<FORM>()) * unit_bytes<FORM>();
}

// A thread's part of a row's unit.
template <int FORM> struct Part;

template <> struct Part<FLOATS> {
    uint4 weights;
    __device__ __forceinline__ void load(const u8 *unit, int t) { weights = load_once(unit + 16 * t); }
    // The weights of the unit's j-th 32, as 4 pairs.
    __device__ __forceinline__ uint4 pairs(int j, int t) const { return weights; }
};

__device__ __forceinline__ u32 word_of(const uint4 &words, int j) {
    return j == 0 ? words.x : j == 1 ? words.y : j == 2 ? words.z : words.w;
}

template <> struct Part<NIBBLES> {
    uint4 codes;
    uint4 scales;
    __device__ __forceinline__ void load(const u8 *unit, int t) {
        codes = load_once(unit + 16 * t);
        scales = load_once(unit + 64);
    }
    __device__ __forceinline__ uint4 pairs(int j, int t) const {
        u32 word = word_of(codes, j);
        u32 scale_min = word_of(scales, j);
        u32 scale = (scale_min & 0xffff) | scale_min << 16;
        u32 min = (scale_min & 0xffff0000) | scale_min >> 16;
        u32 out[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            // 0x6400 is 1024, in whose last bits a code stands as itself.
            u32 code = subtract_halves((word >> (4 * i) & 0x000f000f) | 0x64006400, 0x64006400);
            out[i] = multiply_add_halves(code, scale, min);
        }
        return make_uint4(out[0], out[1], out[2], out[3]);
    }
};

// 1024 + 128.
#define MIDDLE_CODE 0x64806480

__device__ __forceinline__ uint4 from_bytes(u32 low, u32 high, u32 scale, u32 min) {
    u32 out[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        u32 word = i < 2 ? low : high;
        u32 codes = __byte_perm(word, 0x64646464, i % 2 == 0 ? 0x4140 : 0x4342);
        out[i] = multiply_add_halves(subtract_halves(codes, MIDDLE_CODE), scale, min);
    }
    return make_uint4(out[0], out[1], out[2], out[3]);
}

template <> struct Part<BYTES> {
    uint4 codes[2];
    uint4 scales;
    __device__ __forceinline__ void load(const u8 *unit, int t) {
        codes[0] = load_once(unit + 32 * t);
        codes[1] = load_once(unit + 32 * t + 16);
        scales = load_once(unit + 128);
    }
    __device__ __forceinline__ uint4 pairs(int j, int t) const {
        uint4 four = codes[j / 2];
        u32 scale_min = word_of(scales, j);
        u32 scale = (scale_min & 0xffff) | scale_min << 16;
        u32 min = (scale_min & 0xffff0000) | scale_min >> 16;
        return from_bytes(j % 2 == 0 ? four.x : four.z, j % 2 == 0 ? four.y : four.w, scale, min);
    }
};

template <> struct Part<HALVED> {
    uint4 codes[2];
    uint4 scales;
    __device__ __forceinline__ void load(const u8 *unit, int t) {
        codes[0] = load_once(unit + 32 * t);
        codes[1] = load_once(unit + 32 * t + 16);
        scales = load_once(unit + 128);
    }
    __device__ __forceinline__ uint4 pairs(int j, int t) const {
        uint4 four = codes[j / 2];
        u32 both = word_of(scales, j);
        u32 scale = t < 2 ? both & 0xffff : both >> 16;
        return from_bytes(j % 2 == 0 ? four.x : four.z, j % 2 == 0 ? four.y : four.w, scale | scale << 16, 0);
    }
};

// One weight.
template <int FORM> __device__ __forceinline__ float weight_of(const u8 *row, int k) {
    if (FORM == FLOATS) return to_float(((const u16 *)row)[k]);
    const u8 *unit = row + (u64)(k / 128) * unit_bytes<FORM>();
    int j = k % 128 / 32, t = k % 32 / 8, at = k % 8;
    int n_code_bytes = FORM == NIBBLES ? 64 : 128;
    u32 pair = ((const u32 *)(unit + n_code_bytes))[j];
    if (FORM == NIBBLES) {
        u32 word = ((const u32 *)(unit + 16 * t))[j];
        int code = word >> (4 * (at / 2) + 16 * (at % 2)) & 15;
        return (float)code * low_half(pair) + high_half(pair);
    }
    float code = (float)((int)unit[32 * t + 8 * j + at] - 128);
    if (FORM == BYTES) return code * low_half(pair) + high_half(pair);
    return code * (t < 2 ? low_half(pair) : high_half(pair));
}

// Adds the products of 32 weights of 16 outputs, of which `parts` has the upper and the lower 8, with 8 · N_TILES rows.
template <int FORM, int N_TILES>
__device__ __forceinline__ void add_products(const Part<FORM> parts[2], int j, int t, const u16 *const inputs[N_TILES], int k,
                                             float tile[N_TILES][4]) {
    uint4 a = parts[0].pairs(j, t), b = parts[1].pairs(j, t);
#pragma unroll
    for (int n = 0; n < N_TILES; n++) {
        uint4 input = *(const uint4 *)(inputs[n] + k);
        multiply_tile(tile[n], a.x, b.x, a.y, b.y, input.x, input.y);
        multiply_tile(tile[n], a.z, b.z, a.w, b.w, input.z, input.w);
    }
}

// y = x · Wᵀ: x [n_rows, n_in] f16, y [n_rows, pitch] f32, or f16 for GATE. A block computes 16 outputs of 8 · N_TILES rows.
template <int FORM, int N_TILES>
__device__ __forceinline__ void multiply(const u8 *weights, const u16 *x, void *y, int n_out, int n_in, int n_rows,
                                         int pitch, int ending) {
    const int N_AHEAD = FORM == FLOATS ? 4 : 2;
    __shared__ float sums[N_WARPS][N_TILES * 8][17];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int g = lane / 4, t = lane % 4;
    int first_out = blockIdx.x * 16, first_row = blockIdx.y * N_TILES * 8;
    u64 n_row_bytes = row_bytes<FORM>(n_in);
    // Outputs and rows past the end are computed from the last and not written.
    const u8 *upper = weights + (u64)min(first_out + g, n_out - 1) * n_row_bytes;
    const u8 *lower = weights + (u64)min(first_out + g + 8, n_out - 1) * n_row_bytes;
    const u16 *inputs[N_TILES];
    float tile[N_TILES][4];
#pragma unroll
    for (int n = 0; n < N_TILES; n++) {
        inputs[n] = x + (u64)min(first_row + n * 8 + g, n_rows - 1) * n_in + 8 * t;
        tile[n][0] = tile[n][1] = tile[n][2] = tile[n][3] = 0.0f;
    }
    int n_units = (n_in + unit_weights<FORM>() - 1) / unit_weights<FORM>();
    // Units that are whole come several at a time without a condition, so that all their loads go out before the first is
    // waited for.
    int n_whole = n_in / unit_weights<FORM>(), unit = warp;
    for (; unit + (N_AHEAD - 1) * N_WARPS < n_whole; unit += N_AHEAD * N_WARPS) {
        Part<FORM> parts[N_AHEAD][2];
#pragma unroll
        for (int ahead = 0; ahead < N_AHEAD; ahead++) {
            parts[ahead][0].load(upper + (u64)(unit + ahead * N_WARPS) * unit_bytes<FORM>(), t);
            parts[ahead][1].load(lower + (u64)(unit + ahead * N_WARPS) * unit_bytes<FORM>(), t);
        }
#pragma unroll
        for (int ahead = 0; ahead < N_AHEAD; ahead++) {
            int k = (unit + ahead * N_WARPS) * unit_weights<FORM>();
#pragma unroll
            for (int j = 0; j < (FORM == FLOATS ? 1 : 4); j++)
                add_products<FORM, N_TILES>(parts[ahead], j, t, inputs, k + 32 * j, tile);
        }
    }
    for (; unit < n_units; unit += N_WARPS) {
        Part<FORM> parts[2];
        parts[0].load(upper + (u64)unit * unit_bytes<FORM>(), t);
        parts[1].load(lower + (u64)unit * unit_bytes<FORM>(), t);
        int k = unit * unit_weights<FORM>();
#pragma unroll
        for (int j = 0; j < (FORM == FLOATS ? 1 : 4); j++)
            if (k + 32 * j < n_in) add_products<FORM, N_TILES>(parts, j, t, inputs, k + 32 * j, tile);
    }
#pragma unroll
    for (int n = 0; n < N_TILES; n++) {
        sums[warp][n * 8 + 2 * t][g] = tile[n][0];
        sums[warp][n * 8 + 2 * t + 1][g] = tile[n][1];
        sums[warp][n * 8 + 2 * t][g + 8] = tile[n][2];
        sums[warp][n * 8 + 2 * t + 1][g + 8] = tile[n][3];
    }
    __syncthreads();
    int n_outs = ending == GATE ? 8 : 16;
    for (int idx = threadIdx.x; idx < N_TILES * 8 * n_outs; idx += N_WARPS * 32) {
        int row = idx / n_outs, out = idx % n_outs;
        if (first_row + row >= n_rows || first_out + out >= n_out) continue;
        float sum = 0.0f, other = 0.0f;
        for (int w = 0; w < N_WARPS; w++) sum += sums[w][row][out];
        if (ending == GATE) {
            for (int w = 0; w < N_WARPS; w++) other += sums[w][row][out + 8];
            u64 at = (u64)(first_row + row) * pitch + blockIdx.x * 8 + out;
            ((u16 *)y)[at] = to_half(sum / (1.0f + expf(-sum)) * other);
        } else {
            float *at = (float *)y + (u64)(first_row + row) * pitch + first_out + out;
            *at = ending == ADD ? *at + sum : sum;
        }
    }
}

#define MULTIPLY(NAME, FORM, N_TILES)                                                                                   \
    extern "C" __global__ void __launch_bounds__(256, N_TILES < 4 ? 3 : 2)                                              \
        NAME(const u8 *weights, const u16 *x, void *y, int n_out, int n_in, int n_rows, int pitch, int ending) {        \
        multiply<FORM, N_TILES>(weights, x, y, n_out, n_in, n_rows, pitch, ending);                                     \
    }

// Rows of a matrix as numbers: `out` is [n_rows, n_in], of the rows `ids` names as f32, or of the first n_rows as f16.
#define MATRIX(FORM_NAME, FORM)                                                                                         \
    MULTIPLY(multiply_##FORM_NAME##_1, FORM, 1)                                                                         \
    MULTIPLY(multiply_##FORM_NAME##_2, FORM, 2)                                                                         \
    MULTIPLY(multiply_##FORM_NAME##_4, FORM, 4)                                                                         \
    MULTIPLY(multiply_##FORM_NAME##_8, FORM, 8)                                                                         \
    extern "C" __global__ void embed_##FORM_NAME(const u8 *weights, const int *ids, float *out, int n_in) {             \
        const u8 *row = weights + (u64)ids[blockIdx.x] * row_bytes<FORM>(n_in);                                         \
        for (int k = threadIdx.x; k < n_in; k += blockDim.x)                                                            \
            out[(u64)blockIdx.x * n_in + k] = weight_of<FORM>(row, k);                                                  \
    }                                                                                                                   \
    extern "C" __global__ void unpack_##FORM_NAME(const u8 *weights, u16 *out, int n_in) {                              \
        const u8 *row = weights + (u64)blockIdx.x * row_bytes<FORM>(n_in);                                              \
        for (int k = threadIdx.x; k < n_in; k += blockDim.x)                                                            \
            out[(u64)blockIdx.x * n_in + k] = to_half(weight_of<FORM>(row, k));                                         \
    }

#ifdef USES_FLOATS
MATRIX(floats, FLOATS)
#endif
#ifdef USES_NIBBLES
MATRIX(nibbles, NIBBLES)
#endif
#ifdef USES_BYTES
MATRIX(bytes, BYTES)
#endif
#ifdef USES_HALVED
MATRIX(halved, HALVED)
#endif
