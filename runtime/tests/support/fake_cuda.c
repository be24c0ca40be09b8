/* A driver of GPUs without one: as much of NVIDIA's driver interface as the device `cuda` calls, over the host's memory.
 * Streams do their work at once. It knows two kernels: `scale`, y[i] = 2 x[i], and `fault`, after which every call fails, as
 * after an illegal access. Calls that tests look at are written to the file that FAKE_CUDA_LOG names; what it should be is
 * read from FAKE_CUDA_VERSION, FAKE_CUDA_FREE (bytes), FAKE_CUDA_CAPABILITY (as 90) and FAKE_CUDA_JIT (set: PTX is refused). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int result;
enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, INVALID_PTX = 218, ILLEGAL_ADDRESS = 700 };

struct node {
  char kernel[16];
  unsigned blocks, threads;
  float *arguments[2];
};

static int broken;
static int capturing;
static struct node nodes[64];
static int count;

static void say(const char *text, const char *more) {
  const char *path = getenv("FAKE_CUDA_LOG");
  FILE *log = path ? fopen(path, "a") : NULL;
  if (!log)
    return;
  fprintf(log, "%s%s\n", text, more);
  fclose(log);
}

static long setting(const char *name, long otherwise) {
  const char *value = getenv(name);
  return value ? atol(value) : otherwise;
}

static result run(const struct node *node) {
  if (strcmp(node->kernel, "fault") == 0) {
    broken = 1;
    return OK;
  }
  for (unsigned i = 0; i < node->blocks * node->threads; i++)
    node->arguments[1][i] = 2 * node->arguments[0][i];
  return OK;
}

result cuDriverGetVersion(int *version) { return *version = (int)setting("FAKE_CUDA_VERSION", 12040), OK; }
result cuInit(unsigned flags) { return (void)flags, OK; }
result cuDeviceGetCount(int *n) { return *n = 1, OK; }
result cuDeviceGet(int *device, int number) { return *device = number, OK; }
result cuDeviceGetName(char *name, int size, int device) {
  (void)device;
  snprintf(name, (size_t)size, "Imagined GPU");
  return OK;
}
result cuDeviceGetAttribute(int *value, int which, int device) {
  (void)device;
  long capability = setting("FAKE_CUDA_CAPABILITY", 90);
  *value = which == 75 ? (int)(capability / 10) : which == 76 ? (int)(capability % 10) : 132;
  return OK;
}
result cuDeviceTotalMem_v2(size_t *bytes, int device) { return (void)device, *bytes = (size_t)1 << 34, OK; }
result cuDevicePrimaryCtxRetain(void **context, int device) { return (void)device, *context = &broken, OK; }
result cuDevicePrimaryCtxRelease_v2(int device) { return (void)device, say("release", ""), OK; }
result cuCtxSetCurrent(void *context) { return (void)context, broken ? ILLEGAL_ADDRESS : OK; }
result cuMemGetInfo_v2(size_t *free, size_t *total) {
  *free = (size_t)setting("FAKE_CUDA_FREE", 1L << 33);
  *total = (size_t)1 << 34;
  return OK;
}
result cuMemAlloc_v2(void **address, size_t bytes) {
  *address = malloc(bytes);
  if (*address)
    memset(*address, 0xff, bytes);
  say("allocate", "");
  return *address ? OK : OUT_OF_MEMORY;
}
result cuMemFree_v2(void *address) { return free(address), say("free", ""), OK; }
result cuMemsetD8_v2(void *address, unsigned char byte, size_t bytes) { return memset(address, byte, bytes), OK; }
result cuMemsetD8Async(void *address, unsigned char byte, size_t bytes, void *stream) {
  (void)stream;
  return memset(address, byte, bytes), broken ? ILLEGAL_ADDRESS : OK;
}
result cuMemHostAlloc(void **address, size_t bytes, unsigned flags) {
  (void)flags;
  *address = malloc(bytes);
  return *address ? OK : OUT_OF_MEMORY;
}
result cuMemFreeHost(void *address) { return free(address), OK; }
result cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
  (void)stream;
  return memcpy(to, from, bytes), say("write", ""), broken ? ILLEGAL_ADDRESS : OK;
}
result cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, void *stream) {
  (void)stream;
  return memcpy(to, from, bytes), say("read", ""), broken ? ILLEGAL_ADDRESS : OK;
}
result cuEventCreate(void **event, unsigned flags) { return (void)flags, *event = &count, OK; }
result cuEventRecord(void *event, void *stream) { return (void)event, (void)stream, broken ? ILLEGAL_ADDRESS : OK; }
result cuEventSynchronize(void *event) { return (void)event, broken ? ILLEGAL_ADDRESS : OK; }
result cuEventElapsedTime(float *ms, void *start, void *end) { return (void)start, (void)end, *ms = 0.25f, OK; }
result cuEventDestroy_v2(void *event) { return (void)event, OK; }
result cuStreamCreate(void **stream, unsigned flags) { return (void)flags, *stream = &count, OK; }
result cuStreamSynchronize(void *stream) { return (void)stream, broken ? ILLEGAL_ADDRESS : OK; }
result cuStreamWaitEvent(void *stream, void *event, unsigned flags) {
  return (void)stream, (void)event, (void)flags, broken ? ILLEGAL_ADDRESS : OK;
}
result cuStreamDestroy_v2(void *stream) { return (void)stream, OK; }
result cuModuleLoadDataEx(void **module, const void *image, unsigned n, int *options, void **values) {
  (void)options;
  *module = NULL;
  say("module", strstr(image, ".target sm_80")    ? " sm_80"
                : strstr(image, ".target sm_90a") ? " sm_90a"
                : strstr(image, ".target sm_90")  ? " sm_90"
                                                  : " other");
  if (!getenv("FAKE_CUDA_JIT"))
    return OK;
  if (n == 2)
    snprintf(values[0], (size_t)values[1], "ptxas fatal in scale: imagined");
  return INVALID_PTX;
}
result cuModuleGetFunction(char **function, void *module, const char *name) {
  (void)module;
  static char known[2][16] = {"scale", "fault"};
  for (int i = 0; i < 2; i++)
    if (strcmp(name, known[i]) == 0)
      return *function = known[i], OK;
  return INVALID;
}
result cuFuncSetAttribute(void *function, int which, int value) {
  char text[32];
  (void)function;
  snprintf(text, sizeof text, " %d", value);
  return say("attribute", which == 8 ? text : " other"), OK;
}
result cuLaunchKernel(const char *function, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void *stream, void **arguments, void **extra) {
  (void)y, (void)z, (void)by, (void)bz, (void)shared, (void)stream, (void)extra;
  struct node node = {.blocks = x, .threads = bx};
  snprintf(node.kernel, sizeof node.kernel, "%s", function);
  for (int i = 0; i < 2; i++)
    node.arguments[i] = *(float **)arguments[i];
  if (capturing) {
    say("capture ", function);
    nodes[count++] = node;
    return OK;
  }
  say("launch ", function);
  return run(&node);
}
result cuStreamBeginCapture_v2(void *stream, int mode) { return (void)stream, (void)mode, capturing = 1, count = 0, OK; }
result cuStreamEndCapture(void *stream, void **graph) { return (void)stream, capturing = 0, *graph = nodes, OK; }
result cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) {
  return (void)flags, *made = graph, OK;
}
result cuGraphDestroy(void *graph) { return (void)graph, OK; }
result cuGraphExecDestroy(void *graph) { return (void)graph, OK; }
result cuGraphLaunch(void *graph, void *stream) {
  (void)stream, (void)graph;
  say("graph", "");
  for (int i = 0; i < count; i++)
    run(&nodes[i]);
  return OK;
}
result cuGetErrorName(result error, const char **text) {
  *text = error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : error == INVALID_PTX ? "CUDA_ERROR_INVALID_PTX" : "CUDA_ERROR";
  return OK;
}
result cuGetErrorString(result error, const char **text) {
  *text = error == ILLEGAL_ADDRESS ? "an illegal memory access was encountered" : "imagined";
  return OK;
}
