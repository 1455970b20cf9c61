// The calls of libcuda, libnvrtc and libcublas that the engine makes, on a CPU: its memory is the device's, the compiler is
// the system's, and a kernel runs to its end when it is launched. So the engine's own code runs whole, without a GPU.
#include <atomic>
#include <dlfcn.h>
#include <immintrin.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <string>
#include <unistd.h>
#include <vector>

typedef int Result;
#define CALL extern "C" Result

struct Module { void *library; };
struct Function { void (*call)(void **); void (*run)(void (*)(void **), void **, const uint32_t *, uint32_t); int sizes[32]; };
struct Launch { Function *function; uint32_t grid[3], n_threads; std::vector<std::vector<char>> args; };
typedef std::vector<Launch> Graph;
static Graph *recorded;
static int stream;

static void run(Launch &launch) {
    std::vector<void *> args;
    for (auto &arg : launch.args) args.push_back(arg.data());
    launch.function->run(launch.function->call, args.data(), launch.grid, launch.n_threads);
}

CALL cuInit(unsigned) { return 0; }
CALL cuDeviceGet(int *device, int) { *device = 0; return 0; }
CALL cuDeviceGetCount(int *n) { *n = 1; return 0; }
CALL cuDeviceGetName(char *name, int n, int) { snprintf(name, n, "emulated"); return 0; }
// Compute capability 9.0, and no memory pools.
CALL cuDeviceGetAttribute(int *value, int attribute, int) { *value = attribute == 75 ? 9 : 0; return 0; }
CALL cuDevicePrimaryCtxRetain(void **context, int) { *context = &stream; return 0; }
CALL cuDevicePrimaryCtxRelease_v2(int) { return 0; }
CALL cuCtxSetCurrent(void *) { return 0; }
CALL cuCtxGetCurrent(void **context) { *context = &stream; return 0; }
CALL cuCtxSynchronize() { return 0; }
CALL cuStreamCreate(void **out, unsigned) { *out = &stream; return 0; }
CALL cuStreamDestroy_v2(void *) { return 0; }
CALL cuStreamSynchronize(void *) { return 0; }
CALL cuMemGetInfo_v2(size_t *free, size_t *total) { *free = *total = 1ull << 33; return 0; }
CALL cuMemAlloc_v2(uint64_t *at, size_t n) {
    // What is new is no number, so that what nobody has written is found.
    *at = (uint64_t)aligned_alloc(256, (n + 255) / 256 * 256);
    memset((void *)*at, 0xff, n);
    return 0;
}
CALL cuMemFree_v2(uint64_t at) { free((void *)at); return 0; }
CALL cuMemsetD8Async(uint64_t at, unsigned char value, size_t n, void *) { memset((void *)at, value, n); return 0; }
CALL cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t n, void *) {
    if (recorded) abort();
    memcpy((void *)to, from, n);
    return 0;
}
CALL cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t n, void *) { memcpy(to, (void *)from, n); return 0; }
CALL cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t n, void *) {
    memcpy((void *)to, (void *)from, n);
    return 0;
}
CALL cuMemHostAlloc(void **at, size_t n, unsigned) { *at = malloc(n); return 0; }
CALL cuMemFreeHost(void *at) { free(at); return 0; }
CALL cuEventCreate(void **event, unsigned) { *event = &stream; return 0; }
CALL cuEventDestroy_v2(void *) { return 0; }
CALL cuEventRecord(void *, void *) { return 0; }
CALL cuEventSynchronize(void *) { return 0; }
CALL cuEventElapsedTime(float *ms, void *, void *) { *ms = 1; return 0; }
CALL cuEventElapsedTime_v2(float *ms, void *, void *) { *ms = 1; return 0; }
CALL cuGetErrorName(Result, const char **name) { *name = "EMULATED"; return 0; }
CALL cuGetErrorString(Result, const char **text) { *text = "the emulated GPU failed"; return 0; }

CALL cuModuleLoadData(Module **module, const void *image) {
    void *library = dlopen((const char *)image, RTLD_NOW | RTLD_LOCAL);
    if (!library) fprintf(stderr, "%s\n", dlerror());
    *module = new Module{library};
    return library ? 0 : 200;
}
CALL cuModuleUnload(Module *) { return 0; }
CALL cuModuleGetFunction(Function **function, Module *module, const char *name) {
    auto find = [&](std::string symbol) { return dlsym(module->library, symbol.c_str()); };
    auto call = (void (*)(void **))find(std::string("call_") + name);
    if (!call) return 500;
    *function = new Function{call, (decltype(Function::run))find("run_kernel"), {}};
    ((void (*)(int *))find(std::string("sizes_") + name))((*function)->sizes);
    return 0;
}
CALL cuLaunchKernel(Function *function, unsigned x, unsigned y, unsigned z, unsigned n_threads, unsigned, unsigned, unsigned,
                    void *, void **args, void **) {
    Launch launch{function, {x, y, z}, n_threads, {}};
    for (int i = 0; function->sizes[i]; i++)
        launch.args.emplace_back((char *)args[i], (char *)args[i] + function->sizes[i]);
    if (recorded) recorded->push_back(launch);
    else run(launch);
    return 0;
}
CALL cuStreamBeginCapture_v2(void *, int) { recorded = new Graph; return 0; }
CALL cuStreamEndCapture(void *, Graph **graph) { *graph = recorded; recorded = nullptr; return 0; }
CALL cuGraphInstantiateWithFlags(Graph **exec, Graph *graph, unsigned long long) { *exec = new Graph(*graph); return 0; }
CALL cuGraphLaunch(Graph *graph, void *) {
    for (auto &launch : *graph) run(launch);
    return 0;
}
CALL cuGraphDestroy(Graph *graph) { delete graph; return 0; }
CALL cuGraphExecDestroy(Graph *graph) { delete graph; return 0; }

struct Program { std::string source, log, path; };
CALL nvrtcCreateProgram(Program **program, const char *source, const char *, int, const char *const *, const char *const *) {
    *program = new Program{source, "", ""};
    return 0;
}
CALL nvrtcDestroyProgram(Program **program) { delete *program; return 0; }
CALL nvrtcCompileProgram(Program *program, int n_options, const char *const *options) {
    std::string dir = getenv("EMULATED_GPU");
    static std::atomic<int> n_programs;
    program->path = dir + "/kernels-" + std::to_string(getpid()) + "-" + std::to_string(n_programs++);
    FILE *file = fopen((program->path + ".cpp").c_str(), "w");
    fprintf(file, "#include \"kernels.h\"\n%s\n#include \"names.h\"\n", program->source.c_str());
    fclose(file);
    std::string command = "c++ -O2 -mavx2 -mfma -mf16c -ffp-contract=off -w -shared -fPIC -I '" + dir + "' -o '" + program->path + ".so'";
    for (int i = 0; i < n_options; i++)
        if (!strncmp(options[i], "-D", 2)) command += std::string(" '") + options[i] + "'";
    return system((command + " '" + program->path + ".cpp'").c_str()) ? 6 : 0;
}
CALL nvrtcGetProgramLogSize(Program *, size_t *n) { *n = 1; return 0; }
CALL nvrtcGetProgramLog(Program *, char *log) { *log = 0; return 0; }
CALL nvrtcGetPTXSize(Program *program, size_t *n) { *n = program->path.size() + 4; return 0; }
CALL nvrtcGetPTX(Program *program, char *to) { strcpy(to, (program->path + ".so").c_str()); return 0; }
extern "C" const char *nvrtcGetErrorString(Result) { return "the system's compiler failed"; }

CALL cublasCreate_v2(void **handle) { *handle = &stream; return 0; }
CALL cublasDestroy_v2(void *) { return 0; }
CALL cublasSetStream_v2(void *, void *) { return 0; }
// c = alpha · aᵀ · b + beta · c in columns: a [k, m] f16, b [k, n] f16, c [m, n] f32.
CALL cublasGemmEx(void *, int, int, int m, int n, int k, const float *alpha, const uint16_t *a, int, int lda, const uint16_t *b,
                  int, int ldb, const float *beta, float *c, int, int ldc, int, int) {
    std::vector<float> column(k), row(k);
    for (int i = 0; i < m; i++) {
        for (int x = 0; x < k; x++) row[x] = _cvtsh_ss(a[(size_t)i * lda + x]);
        for (int j = 0; j < n; j++) {
            float sum = 0;
            for (int x = 0; x < k; x++) sum += row[x] * _cvtsh_ss(b[(size_t)j * ldb + x]);
            float *to = c + (size_t)j * ldc + i;
            *to = *alpha * sum + (*beta ? *beta * *to : 0);
        }
    }
    return 0;
}
extern "C" const char *cublasGetStatusString(Result) { return "the emulated cuBLAS failed"; }
