// What stands between the matrices of a decoder layer.
//
// HEAD_DIM, N_HEADS, N_KV_HEADS, N_ROTATED (dimensions of a head), IS_NEOX and N_TOGETHER (query heads that a block of
// `attend` computes for one key-value head) are the model's, defined when this is compiled.

#define BLOCK_TOKENS 16
// Positions that a block of `attend` computes: its place in the sequence is fixed, so that sums do not depend on who else
// is in the step.
#define N_PIECE 128
#define GROUP (N_HEADS / N_KV_HEADS)
#define N_HEAD_TILES (GROUP / N_TOGETHER)
// Numbers of a head's keys, or values, in a block.
#define HEAD_BLOCK (BLOCK_TOKENS * HEAD_DIM)

// Adds up `value` over the block, in one order.
__device__ __forceinline__ float block_sum(float value) {
    __shared__ float parts[32];
    int n_warps = blockDim.x / 32;
    for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
    __syncthreads();
    float sum = 0.0f;
    for (int w = 0; w < n_warps; w++) sum += parts[w];
    return sum;
}

// Normalises rows of x: [.., n] f32 to a root mean square of 1, times `weight`; `rows` says which, or null for all.
extern "C" __global__ void rms_norm(const float *x, const float *weight, const int *rows, u16 *out, int n, float eps) {
    const float *row = x + (u64)(rows ? rows[blockIdx.x] : blockIdx.x) * n;
    float sum = 0.0f;
    for (int k = threadIdx.x; k < n; k += blockDim.x) sum += row[k] * row[k];
    float scale = 1.0f / sqrtf(block_sum(sum) / n + eps);
    for (int k = threadIdx.x; k < n; k += blockDim.x) out[(u64)blockIdx.x * n + k] = to_half(row[k] * scale * weight[k]);
}

// silu(gate) · other of a product that has 8 outputs of each by turns: [n_rows, 2 · n] f32 to [n_rows, n] f16.
extern "C" __global__ void gate(const float *both, u16 *out, int n) {
    for (int k = threadIdx.x; k < n; k += blockDim.x) {
        const float *at = both + (u64)blockIdx.x * 2 * n + k / 8 * 16 + k % 8;
        out[(u64)blockIdx.x * n + k] = to_half(at[0] / (1.0f + expf(-at[0])) * at[8]);
    }
}

// Normalises the queries' and keys' heads of `qkv` in place: grid (n_rows, N_HEADS + N_KV_HEADS), a warp each.
// weights: [2, HEAD_DIM], the queries' and then the keys'.
extern "C" __global__ void norm_heads(float *qkv, const float *weights, float eps) {
    float *head = qkv + ((u64)blockIdx.x * (N_HEADS + 2 * N_KV_HEADS) + blockIdx.y) * HEAD_DIM;
    const float *weight = weights + (blockIdx.y < N_HEADS ? 0 : HEAD_DIM);
    float sum = 0.0f;
    for (int k = threadIdx.x; k < HEAD_DIM; k += 32) sum += head[k] * head[k];
    for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
    float scale = 1.0f / sqrtf(sum / HEAD_DIM + eps);
    for (int k = threadIdx.x; k < HEAD_DIM; k += 32) head[k] *= scale * weight[k];
}

// Where a key's 8 dimensions from 8 · piece on lie: [head][piece][position][8], so that threads side by side read positions
// side by side. Values lie [head][dimension][position], as a tile wants them.
__device__ __forceinline__ u64 key_place(int block, int head, int piece, int within) {
    return ((u64)block * N_KV_HEADS + head) * HEAD_BLOCK + (piece * BLOCK_TOKENS + within) * 8;
}
__device__ __forceinline__ u64 value_place(int block, int head, int dim, int within) {
    return ((u64)block * N_KV_HEADS + head) * HEAD_BLOCK + dim * BLOCK_TOKENS + within;
}

// Rotates queries and keys, writes keys and values to their places and queries, scaled, to `q` [n_rows, N_HEADS, HEAD_DIM].
// qkv: [n_rows, (N_HEADS + 2 · N_KV_HEADS) · HEAD_DIM] f32; bias: a row's, or null; angles: [position, N_ROTATED / 2] of
// (cos, sin).
extern "C" __global__ void rotate_and_store(const float *qkv, const float *bias, const float2 *angles, const int *positions,
                                            const int *places, u16 *keys, u16 *values, float *q, float scale) {
    const int N_PAIRS = HEAD_DIM / 2;
    const float *row = qkv + (u64)blockIdx.x * (N_HEADS + 2 * N_KV_HEADS) * HEAD_DIM;
    const float2 *turn = angles + (u64)positions[blockIdx.x] * (N_ROTATED / 2);
    int block = places[blockIdx.x] / BLOCK_TOKENS, within = places[blockIdx.x] % BLOCK_TOKENS;
    for (int idx = threadIdx.x; idx < (N_HEADS + N_KV_HEADS) * N_PAIRS; idx += blockDim.x) {
        int head = idx / N_PAIRS, pair = idx % N_PAIRS;
        bool is_rotated = pair < N_ROTATED / 2;
        int a = IS_NEOX && is_rotated ? pair : 2 * pair;
        int b = IS_NEOX && is_rotated ? pair + N_ROTATED / 2 : 2 * pair + 1;
        float x = row[head * HEAD_DIM + a], y = row[head * HEAD_DIM + b];
        if (bias) {
            x += bias[head * HEAD_DIM + a];
            y += bias[head * HEAD_DIM + b];
        }
        if (is_rotated) {
            float2 by = turn[pair];
            float first = x * by.x - y * by.y;
            y = x * by.y + y * by.x;
            x = first;
        }
        if (head < N_HEADS) {
            float *to = q + ((u64)blockIdx.x * N_HEADS + head) * HEAD_DIM;
            to[a] = x * scale;
            to[b] = y * scale;
        } else {
            keys[key_place(block, head - N_HEADS, a / 8, within) + a % 8] = to_half(x);
            keys[key_place(block, head - N_HEADS, b / 8, within) + b % 8] = to_half(y);
        }
    }
    const int N_BEFORE_V = (N_HEADS + N_KV_HEADS) * HEAD_DIM;
    for (int idx = threadIdx.x; idx < N_KV_HEADS * HEAD_DIM; idx += blockDim.x) {
        float value = row[N_BEFORE_V + idx] + (bias ? bias[N_BEFORE_V + idx] : 0.0f);
        values[value_place(block, idx / HEAD_DIM, idx % HEAD_DIM, within)] = to_half(value);
    }
}

// Copies a block over another in all layers: grid (n_layers, 2), of keys and of values.
extern "C" __global__ void copy_block(u16 *keys, u16 *values, int from, int to, int n_blocks) {
    u16 *arena = (blockIdx.y == 0 ? keys : values) + (u64)blockIdx.x * n_blocks * N_KV_HEADS * HEAD_BLOCK;
    const u64 n = (u64)N_KV_HEADS * HEAD_BLOCK;
    for (u64 idx = threadIdx.x; idx < n; idx += blockDim.x) arena[to * n + idx] = arena[from * n + idx];
}

// A piece's part of attention for few rows: grid (n_rows, N_KV_HEADS · N_HEAD_TILES, n_pieces), N_PIECE threads.
// parts: [n_rows, n_pieces, N_HEADS, HEAD_DIM] weighted sums of values; norms: [.., 2] of the largest score and the sum of
// weights. tables: [n_spans, n_table] blocks.
extern "C" __global__ void __launch_bounds__(N_PIECE)
    attend(const float *q, const u16 *keys, const u16 *values, const int *positions, const int *spans, const int *tables,
           int n_table, float *parts, float *norms, int first_row) {
    __shared__ float queries[N_TOGETHER][HEAD_DIM];
    __shared__ float weights[N_TOGETHER][N_PIECE];
    int row = first_row + blockIdx.x, thread = threadIdx.x, n_pieces = gridDim.z;
    int kv_head = blockIdx.y / N_HEAD_TILES;
    int first_head = kv_head * GROUP + blockIdx.y % N_HEAD_TILES * N_TOGETHER;
    int n_positions = positions[row] + 1, first = blockIdx.z * N_PIECE;
    if (first >= n_positions) return;
    const int *table = tables + (u64)spans[row] * n_table;
    for (int idx = thread; idx < N_TOGETHER * HEAD_DIM; idx += N_PIECE)
        queries[idx / HEAD_DIM][idx % HEAD_DIM] = q[((u64)row * N_HEADS + first_head) * HEAD_DIM + idx];
    __syncthreads();

    int position = first + thread;
    float scores[N_TOGETHER];
#pragma unroll
    for (int h = 0; h < N_TOGETHER; h++) scores[h] = position < n_positions ? 0.0f : -1e30f;
    if (position < n_positions) {
        const u16 *key = keys + key_place(table[position / BLOCK_TOKENS], kv_head, 0, position % BLOCK_TOKENS);
#pragma unroll 4
        for (int piece = 0; piece < HEAD_DIM / 8; piece++) {
            uint4 eight = *(const uint4 *)(key + piece * BLOCK_TOKENS * 8);
            float k[8] = {low_half(eight.x), high_half(eight.x), low_half(eight.y), high_half(eight.y),
                          low_half(eight.z), high_half(eight.z), low_half(eight.w), high_half(eight.w)};
#pragma unroll
            for (int h = 0; h < N_TOGETHER; h++) {
                const float *query = &queries[h][piece * 8];
#pragma unroll
                for (int d = 0; d < 8; d++) scores[h] += k[d] * query[d];
            }
        }
    }
#pragma unroll
    for (int h = 0; h < N_TOGETHER; h++) weights[h][thread] = scores[h];
    __syncthreads();

    int warp = thread / 32, lane = thread % 32;
    for (int h = warp; h < N_TOGETHER; h += N_PIECE / 32) {
        float largest = -1e30f, sum = 0.0f, score[N_PIECE / 32];
#pragma unroll
        for (int i = 0; i < N_PIECE / 32; i++) {
            score[i] = weights[h][32 * i + lane];
            largest = fmaxf(largest, score[i]);
        }
        for (int mask = 16; mask > 0; mask /= 2) largest = fmaxf(largest, shuffle_xor(largest, mask));
#pragma unroll
        for (int i = 0; i < N_PIECE / 32; i++) {
            // What lies past the end weighs exp of about -1e30, which is 0.
            score[i] = expf(score[i] - largest);
            sum += score[i];
            weights[h][32 * i + lane] = score[i];
        }
        for (int mask = 16; mask > 0; mask /= 2) sum += shuffle_xor(sum, mask);
        if (lane == 0) {
            float *norm = norms + (((u64)blockIdx.x * n_pieces + blockIdx.z) * N_HEADS + first_head + h) * 2;
            norm[0] = largest;
            norm[1] = sum;
        }
    }
    __syncthreads();

    int n_here = min(N_PIECE, n_positions - first);
    for (int dim = thread; dim < HEAD_DIM; dim += N_PIECE) {
        float sums[N_TOGETHER];
#pragma unroll
        for (int h = 0; h < N_TOGETHER; h++) sums[h] = 0.0f;
        for (int at = 0; at < n_here; at += 8) {
            const u16 *value = values + value_place(table[(first + at) / BLOCK_TOKENS], kv_head, dim, at % BLOCK_TOKENS);
            uint4 eight = *(const uint4 *)value;
            float v[8] = {low_half(eight.x), high_half(eight.x), low_half(eight.y), high_half(eight.y),
                          low_half(eight.z), high_half(eight.z), low_half(eight.w), high_half(eight.w)};
#pragma unroll
            for (int i = 0; i < 8; i++) {
                // Positions that nobody has written may hold anything.
                float of_position = at + i < n_here ? v[i] : 0.0f;
#pragma unroll
                for (int h = 0; h < N_TOGETHER; h++) sums[h] += weights[h][at + i] * of_position;
            }
        }
        float *to = parts + (((u64)blockIdx.x * n_pieces + blockIdx.z) * N_HEADS + first_head) * HEAD_DIM + dim;
#pragma unroll
        for (int h = 0; h < N_TOGETHER; h++) to[h * HEAD_DIM] = sums[h];
    }
}

// Puts the pieces of `attend` together: grid (n_rows, N_HEADS); out: [n_rows, N_HEADS, HEAD_DIM] f16.
extern "C" __global__ void combine(const float *parts, const float *norms, const int *positions, int n_pieces, u16 *out,
                                   int first_row) {
    int row = first_row + blockIdx.x, head = blockIdx.y;
    int n = positions[row] / N_PIECE + 1;
    const float *norm = norms + ((u64)blockIdx.x * n_pieces * N_HEADS + head) * 2;
    float largest = -1e30f, total = 0.0f;
    for (int p = 0; p < n; p++) largest = fmaxf(largest, norm[(u64)p * N_HEADS * 2]);
    for (int p = 0; p < n; p++) total += norm[(u64)p * N_HEADS * 2 + 1] * expf(norm[(u64)p * N_HEADS * 2] - largest);
    for (int dim = threadIdx.x; dim < HEAD_DIM; dim += blockDim.x) {
        float sum = 0.0f;
        for (int p = 0; p < n; p++) {
            float weight = expf(norm[(u64)p * N_HEADS * 2] - largest);
            sum += weight * parts[(((u64)blockIdx.x * n_pieces + p) * N_HEADS + head) * HEAD_DIM + dim];
        }
        out[((u64)row * N_HEADS + head) * HEAD_DIM + dim] = to_half(sum / total);
    }
}

// Attention for many rows of one sequence, in tiles: grid (tiles of 64 rows, N_HEADS), 4 warps of 16 rows.
// The span's rows are first_row.. of the step and start at position `start`; its blocks are `table`.
extern "C" __global__ void __launch_bounds__(128)
    attend_many(const float *q, const u16 *keys, const u16 *values, const int *table, u16 *out, int first_row, int n_rows,
                int start) {
    const int N_STEPS = HEAD_DIM / 32, N_OUT = HEAD_DIM / 8;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int head = blockIdx.y, kv_head = head / GROUP;
    int tile_row = blockIdx.x * 64 + warp * 16;
    if (tile_row >= n_rows) return;
    int rows[2] = {min(tile_row + g, n_rows - 1), min(tile_row + g + 8, n_rows - 1)};
    // 8 dimensions of each 32 are this thread's, in queries and keys alike.
    u32 query[N_STEPS][2][4];
#pragma unroll
    for (int step = 0; step < N_STEPS; step++) {
#pragma unroll
        for (int half = 0; half < 2; half++) {
            const float *from = q + ((u64)(first_row + rows[half]) * N_HEADS + head) * HEAD_DIM + step * 32 + 8 * t;
#pragma unroll
            for (int i = 0; i < 4; i++) query[step][half][i] = to_halves(from[2 * i], from[2 * i + 1]);
        }
    }
    float sums[N_OUT][4], largest[2] = {-1e30f, -1e30f}, total[2] = {0.0f, 0.0f};
#pragma unroll
    for (int n = 0; n < N_OUT; n++) sums[n][0] = sums[n][1] = sums[n][2] = sums[n][3] = 0.0f;

    int last_position = start + min(tile_row + 15, n_rows - 1);
    for (int first = 0; first <= last_position; first += BLOCK_TOKENS) {
        int block = table[first / BLOCK_TOKENS];
        // Column c of the first tile is position 2 · c without its last bit, and that bit; of the second 2 more. So the
        // weights that a thread has are those of 4 positions side by side.
        float scores[2][4];
#pragma unroll
        for (int tile = 0; tile < 2; tile++) {
            scores[tile][0] = scores[tile][1] = scores[tile][2] = scores[tile][3] = 0.0f;
            int within = 2 * (g & ~1) + (g & 1) + 2 * tile;
#pragma unroll
            for (int step = 0; step < N_STEPS; step++) {
                uint4 key = *(const uint4 *)(keys + key_place(block, kv_head, step * 4 + t, within));
                multiply_tile(scores[tile], query[step][0][0], query[step][1][0], query[step][0][1], query[step][1][1],
                              key.x, key.y);
                multiply_tile(scores[tile], query[step][0][2], query[step][1][2], query[step][0][3], query[step][1][3],
                              key.z, key.w);
            }
        }
        float factor[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float most = largest[half];
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float *score = &scores[i / 2][2 * half + i % 2];
                if (first + 4 * t + i > start + rows[half]) *score = -1e30f;
                most = fmaxf(most, *score);
            }
            most = fmaxf(most, shuffle_xor(most, 1));
            most = fmaxf(most, shuffle_xor(most, 2));
            factor[half] = expf(largest[half] - most);
            largest[half] = most;
            float sum = 0.0f;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float *score = &scores[i / 2][2 * half + i % 2];
                *score = expf(*score - most);
                sum += *score;
            }
            sum += shuffle_xor(sum, 1);
            sum += shuffle_xor(sum, 2);
            total[half] = total[half] * factor[half] + sum;
        }
        u32 weights[4] = {round_to_halves(scores[0][0], scores[0][1]), round_to_halves(scores[0][2], scores[0][3]),
                          round_to_halves(scores[1][0], scores[1][1]), round_to_halves(scores[1][2], scores[1][3])};
        // Positions that nobody has written may hold anything, infinity too.
        bool is_whole = first + BLOCK_TOKENS <= last_position + 1;
#pragma unroll
        for (int n = 0; n < N_OUT; n++) {
            uint2 value = *(const uint2 *)(values + value_place(block, kv_head, n * 8 + g, 4 * t));
            if (!is_whole) {
                int n_left = last_position + 1 - first - 4 * t;
                value.x = n_left >= 2 ? value.x : n_left == 1 ? value.x & 0xffff : 0;
                value.y = n_left >= 4 ? value.y : n_left == 3 ? value.y & 0xffff : 0;
            }
            sums[n][0] *= factor[0];
            sums[n][1] *= factor[0];
            sums[n][2] *= factor[1];
            sums[n][3] *= factor[1];
            multiply_tile(sums[n], weights[0], weights[1], weights[2], weights[3], value.x, value.y);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (tile_row + g + 8 * half >= n_rows) continue;
        u16 *to = out + ((u64)(first_row + rows[half]) * N_HEADS + head) * HEAD_DIM + 2 * t;
#pragma unroll
        for (int n = 0; n < N_OUT; n++)
            *(u32 *)(to + n * 8) = to_halves(sums[n][2 * half] / total[half], sums[n][2 * half + 1] / total[half]);
    }
}

// The first of the largest logits of each row: logits [n_rows, n] f32.
extern "C" __global__ void __launch_bounds__(1024) argmax(const float *logits, int *out, int n) {
    __shared__ float values[32];
    __shared__ int places[32];
    const float *row = logits + (u64)blockIdx.x * n;
    float best = -3e38f;
    int place = 0x7fffffff;
    for (int k = threadIdx.x; k < n; k += blockDim.x) {
        if (row[k] > best) best = row[k], place = k;
    }
    for (int mask = 16; mask > 0; mask /= 2) {
        float other = shuffle_xor(best, mask);
        int other_place = shuffle_xor(place, mask);
        if (other > best || (other == best && other_place < place)) best = other, place = other_place;
    }
    if (threadIdx.x % 32 == 0) values[threadIdx.x / 32] = best, places[threadIdx.x / 32] = place;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int w = 1; w < (int)blockDim.x / 32; w++) {
            if (values[w] > best || (values[w] == best && places[w] < place)) best = values[w], place = places[w];
        }
        out[blockIdx.x] = place;
    }
}

// Numbers that look random, for a model whose words do not matter: bytes of codes, and f16 around `scale`.
__device__ __forceinline__ u32 mix(u64 idx, u32 seed) {
    u64 x = (idx + 1) * 0x9e3779b97f4a7c15ull + seed;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ x >> 27) * 0x94d049bb133111ebull;
    return (u32)(x >> 32);
}
extern "C" __global__ void fill_floats(u16 *to, u64 n, float scale, u32 seed) {
    for (u64 idx = blockIdx.x * (u64)blockDim.x + threadIdx.x; idx < n; idx += (u64)gridDim.x * blockDim.x)
        to[idx] = to_half(((float)mix(idx, seed) / 2147483648.0f - 1.0f) * scale);
}
// Units of NIBBLES.
extern "C" __global__ void fill_nibbles(u32 *to, u64 n_units, float scale, u32 seed) {
    for (u64 idx = blockIdx.x * (u64)blockDim.x + threadIdx.x; idx < n_units * 20; idx += (u64)gridDim.x * blockDim.x)
        to[idx] = idx % 20 < 16 ? mix(idx, seed) : to_halves(scale / 7.5f, -scale);
}
