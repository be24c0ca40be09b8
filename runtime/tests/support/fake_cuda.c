/* A driver of GPUs without one: as much of NVIDIA's driver interface as the device `cuda` calls, over the host's memory.
 *
 * Streams are queues: what is put there is done when somebody waits for it, in the order that streams and events demand and
 * no earlier. So what nobody waited for is not there, and pinned memory that is filled again too soon sends the wrong bytes.
 * With FAKE_CUDA_HASTE=copies, copies are done as soon as they may be, and kernels still as late as possible; with
 * FAKE_CUDA_HASTE=kernels it is the other way round. Between them, two things that nothing orders happen in either order.
 *
 * It knows the kernels of kernels.c and three more: `scale`, y[i] = 2 x[i]; `total`, y[i] = s[i] += w[i] x[i], which faults
 * where x[0] is below zero; and `fault`. After a fault every call fails, as after an illegal access. Calls that tests look
 * at are written to the file that FAKE_CUDA_LOG names; what the GPU should be is read from FAKE_CUDA_VERSION,
 * FAKE_CUDA_FREE (bytes of memory), FAKE_CUDA_CAPABILITY (as 90) and FAKE_CUDA_JIT (set: PTX is refused). */
#include "kernels.c"
#include <stdio.h>
#include <stdlib.h>

typedef int result;
enum { OK = 0, INVALID = 1, OUT_OF_MEMORY = 2, INVALID_PTX = 218, NOT_READY = 600, ILLEGAL_ADDRESS = 700 };
enum { MOST_ARGUMENTS = 8, MOST_NODES = 64, MOST_STREAMS = 16 };

struct kernel {
  const char *name;
  int arguments;
  void (*run)(uint8_t **arguments, int64_t begin, int64_t end);
};

struct node {
  const struct kernel *kernel;
  int64_t tasks;
  uint8_t *arguments[MOST_ARGUMENTS];
};

struct graph {
  int count;
  struct node nodes[MOST_NODES];
};

/* Moments are numbered over all streams: an event was recorded at one, and is reached up to one. */
struct event {
  long recorded, reached;
  struct stream *stream;
};

struct work {
  enum { COPY, FILL, RUN, REACH, AWAIT } kind;
  uint8_t *to, *from, byte;
  size_t bytes;
  struct graph graph;
  struct event *event;
  struct stream *other;
  long moment;
  struct work *next;
};

struct stream {
  struct work *first, **last;
  int kernels; /* Some were put there since it was last waited for. */
};

static int broken;
static struct stream null_stream, *streams[MOST_STREAMS] = {&null_stream};
static int stream_count = 1;
static struct graph *captured;
static long moments;
static size_t used;

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

static int haste(const char *what) {
  const char *value = getenv("FAKE_CUDA_HASTE");
  return value && strcmp(value, what) == 0;
}

static result state(void) { return broken ? ILLEGAL_ADDRESS : OK; }

/* --- kernels ---------------------------------------------------------------------------------------------------------- */

static void scale(uint8_t **arguments, int64_t begin, int64_t end) {
  const float *x = (const float *)arguments[0];
  float *y = (float *)arguments[1];
  for (int64_t i = begin; i < end; i++)
    y[i] = 2 * x[i];
}

static void total(uint8_t **arguments, int64_t begin, int64_t end) {
  const float *x = (const float *)arguments[0], *w = (const float *)arguments[1];
  float *s = (float *)arguments[2], *y = (float *)arguments[3];
  if (x[0] < 0)
    broken = 1;
  for (int64_t i = begin; i < end && !broken; i++)
    y[i] = s[i] += w[i] * x[i];
}

static void fault(uint8_t **arguments, int64_t begin, int64_t end) { (void)arguments, (void)begin, (void)end, broken = 1; }

static const struct kernel kernels[] = {{"scale", 2, scale},   {"total", 4, total}, {"fault", 2, fault},
                                        {"logits", 4, logits}, {"loss", 5, loss},   {"update", 6, update}};
enum { KERNELS = sizeof kernels / sizeof *kernels };

/* --- streams ---------------------------------------------------------------------------------------------------------- */

static void reach(struct stream *stream, struct event *event, long moment);

/* Does what is first in a stream, which has something. */
static void advance(struct stream *stream) {
  struct work *work = stream->first;
  switch (work->kind) {
  case COPY:
    memmove(work->to, work->from, work->bytes);
    break;
  case FILL:
    memset(work->to, work->byte, work->bytes);
    break;
  case RUN:
    for (int i = 0; i < work->graph.count && !broken; i++)
      work->graph.nodes[i].kernel->run(work->graph.nodes[i].arguments, 0, work->graph.nodes[i].tasks);
    break;
  case REACH:
    work->event->reached = work->moment;
    break;
  case AWAIT:
    reach(work->other, work->event, work->moment);
    break;
  }
  stream->first = work->next;
  if (!stream->first)
    stream->last = &stream->first;
  free(work);
}

static void finish(struct stream *stream) {
  while (stream->first && !broken)
    advance(stream);
}

static void reach(struct stream *stream, struct event *event, long moment) {
  while (event->reached < moment && stream->first && !broken)
    advance(stream);
}

static struct stream *known(struct stream *stream) { return stream ? stream : &null_stream; }

static struct work *put(struct stream *stream, int kind) {
  struct work *work = calloc(1, sizeof *work);
  work->kind = kind;
  stream = known(stream);
  if (!stream->first)
    stream->last = &stream->first;
  *stream->last = work;
  stream->last = &work->next;
  return work;
}

static result transfer(struct stream *stream, int kind, void *to, const void *from, uint8_t byte, size_t bytes) {
  struct work *work = put(stream, kind);
  work->to = to, work->from = (uint8_t *)from, work->byte = byte, work->bytes = bytes;
  if (haste("copies"))
    finish(known(stream));
  return state();
}

static result run(struct stream *stream, const struct graph *graph) {
  put(stream, RUN)->graph = *graph;
  known(stream)->kernels = 1;
  if (haste("kernels"))
    finish(known(stream));
  return OK;
}

/* Whether something that is still to be done touches memory. */
static int in_use(const uint8_t *begin, size_t bytes) {
  for (int i = 0; i < stream_count && !broken; i++)
    for (struct work *work = streams[i]->first; work; work = work->next) {
      const uint8_t *touched[2 + MOST_NODES * MOST_ARGUMENTS] = {work->to, work->from};
      int count = 2;
      for (int node = 0; node < work->graph.count; node++)
        for (int at = 0; at < MOST_ARGUMENTS; at++)
          touched[count++] = work->graph.nodes[node].arguments[at];
      for (int at = 0; at < count; at++)
        if (touched[at] >= begin && touched[at] < begin + bytes)
          return 1;
    }
  return 0;
}

/* --- the driver's interface ------------------------------------------------------------------------------------------- */

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
result cuCtxSetCurrent(void *context) { return (void)context, state(); }

static size_t left(void) { return (size_t)setting("FAKE_CUDA_FREE", 1L << 33) - used; }

result cuMemGetInfo_v2(size_t *free, size_t *total) { return *free = left(), *total = (size_t)1 << 34, OK; }

/* Sizes stand before allocations. */
enum { HEAD = 64 };

static uint8_t *allocate(size_t bytes) {
  uint8_t *start = malloc(HEAD + bytes);
  *(size_t *)start = bytes;
  memset(start + HEAD, 0xff, bytes);
  return start + HEAD;
}

static void release(uint8_t *address) {
  if (in_use(address, *(size_t *)(address - HEAD)))
    say("freed in use", "");
  free(address - HEAD);
}

result cuMemAlloc_v2(uint8_t **address, size_t bytes) {
  if (broken || bytes > left())
    return broken ? ILLEGAL_ADDRESS : (say("no memory", ""), OUT_OF_MEMORY);
  used += bytes;
  *address = allocate(bytes);
  return say("allocate", ""), OK;
}
result cuMemFree_v2(uint8_t *address) {
  used -= *(size_t *)(address - HEAD);
  return say("free", ""), release(address), state();
}
result cuMemsetD8_v2(void *address, unsigned char byte, size_t bytes) {
  return transfer(NULL, FILL, address, NULL, byte, bytes);
}
result cuMemsetD8Async(void *address, unsigned char byte, size_t bytes, struct stream *stream) {
  return transfer(stream, FILL, address, NULL, byte, bytes);
}
result cuMemHostAlloc(uint8_t **address, size_t bytes, unsigned flags) {
  return (void)flags, *address = allocate(bytes), OK;
}
result cuMemFreeHost(uint8_t *address) { return release(address), OK; }
result cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t bytes, struct stream *stream) {
  return say("write", ""), transfer(stream, COPY, to, from, 0, bytes);
}
result cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t bytes, struct stream *stream) {
  return say("read", ""), transfer(stream, COPY, to, from, 0, bytes);
}
result cuMemcpyDtoDAsync_v2(void *to, const void *from, size_t bytes, struct stream *stream) {
  return say("move", ""), transfer(stream, COPY, to, from, 0, bytes);
}

result cuEventCreate(struct event **event, unsigned flags) { return (void)flags, *event = calloc(1, sizeof **event), OK; }
result cuEventRecord(struct event *event, struct stream *stream) {
  struct work *work = put(stream, REACH);
  work->event = event;
  work->moment = event->recorded = ++moments;
  event->stream = known(stream);
  return state();
}
result cuEventSynchronize(struct event *event) {
  if (event->stream)
    reach(event->stream, event, event->recorded);
  return state();
}
result cuEventElapsedTime(float *ms, struct event *start, struct event *end) {
  *ms = 0.25f;
  return start->reached < start->recorded || end->reached < end->recorded ? NOT_READY : state();
}
/* Work may still name it; the real one is kept until then too. */
result cuEventDestroy_v2(struct event *event) { return (void)event, OK; }

result cuStreamCreate(struct stream **stream, unsigned flags) {
  (void)flags;
  if (stream_count == MOST_STREAMS)
    return INVALID;
  *stream = streams[stream_count++] = calloc(1, sizeof **stream);
  return OK;
}
result cuStreamSynchronize(struct stream *stream) {
  if (known(stream)->kernels)
    say("wait", "");
  known(stream)->kernels = 0;
  finish(known(stream));
  return state();
}
result cuStreamWaitEvent(struct stream *stream, struct event *event, unsigned flags) {
  (void)flags;
  if (event->stream) {
    struct work *work = put(stream, AWAIT);
    work->event = event, work->other = event->stream, work->moment = event->recorded;
  }
  return state();
}
/* Streams stay until all is done; so they do here, as long as the process lives. */
result cuStreamDestroy_v2(struct stream *stream) {
  for (int i = 1; i < stream_count; i++)
    if (streams[i] == stream && !stream->first)
      streams[i] = streams[--stream_count];
  return OK;
}

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
result cuModuleGetFunction(const struct kernel **function, void *module, const char *name) {
  (void)module;
  for (int i = 0; i < KERNELS; i++)
    if (strcmp(name, kernels[i].name) == 0)
      return *function = &kernels[i], OK;
  return INVALID;
}
result cuFuncSetAttribute(void *function, int which, int value) {
  char text[32];
  (void)function;
  snprintf(text, sizeof text, " %d", value);
  return say("attribute", which == 8 ? text : " other"), OK;
}
result cuLaunchKernel(const struct kernel *kernel, unsigned x, unsigned y, unsigned z, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, struct stream *stream, void **arguments, void **extra) {
  (void)y, (void)z, (void)by, (void)bz, (void)shared, (void)extra;
  struct graph one = {.count = 1, .nodes = {{.kernel = kernel, .tasks = (int64_t)x * bx}}};
  for (int i = 0; i < kernel->arguments; i++)
    one.nodes[0].arguments[i] = *(uint8_t **)arguments[i];
  if (captured) {
    say("capture ", kernel->name);
    captured->nodes[captured->count++] = one.nodes[0];
    return OK;
  }
  say("launch ", kernel->name);
  return broken ? ILLEGAL_ADDRESS : run(stream, &one);
}
result cuStreamBeginCapture_v2(void *stream, int mode) {
  return (void)stream, (void)mode, captured = calloc(1, sizeof *captured), OK;
}
result cuStreamEndCapture(void *stream, struct graph **graph) {
  return (void)stream, *graph = captured, captured = NULL, OK;
}
result cuGraphInstantiateWithFlags(struct graph **made, const struct graph *graph, unsigned long long flags) {
  (void)flags;
  *made = malloc(sizeof **made);
  return **made = *graph, OK;
}
result cuGraphDestroy(struct graph *graph) { return free(graph), OK; }
result cuGraphExecDestroy(struct graph *graph) { return free(graph), OK; }
result cuGraphLaunch(const struct graph *graph, struct stream *stream) {
  return say("graph", ""), broken ? ILLEGAL_ADDRESS : run(stream, graph);
}
result cuGetErrorName(result error, const char **text) {
  *text = error == ILLEGAL_ADDRESS ? "CUDA_ERROR_ILLEGAL_ADDRESS" : error == INVALID_PTX ? "CUDA_ERROR_INVALID_PTX" : "CUDA_ERROR";
  return OK;
}
result cuGetErrorString(result error, const char **text) {
  *text = error == ILLEGAL_ADDRESS ? "an illegal memory access was encountered" : "imagined";
  return OK;
}
