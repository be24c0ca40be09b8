// Kernels that stand in for the compiler's, with the calling convention of ir::plan::Kernel: a linear classifier
// with a softmax loss, its gradient and momentum. Shapes come as an i64 buffer, because a plan passes only buffers.
#include <math.h>
#include <stdint.h>
#include <string.h>

// out[i] = a[i] + b[i]; one task an element.
void add(uint8_t **arguments, int64_t begin, int64_t end) {
    const float *a = (const float *)arguments[0], *b = (const float *)arguments[1];
    float *out = (float *)arguments[2];
    for (int64_t i = begin; i < end; i++) out[i] = a[i] + b[i];
}

// out[i] = 2 a[i]; stands for the packing of a weight.
void twice(uint8_t **arguments, int64_t begin, int64_t end) {
    const float *a = (const float *)arguments[0];
    float *out = (float *)arguments[1];
    for (int64_t i = begin; i < end; i++) out[i] = 2 * a[i];
}

// out[i] = sqrt(a[i]): not a number below zero.
void root(uint8_t **arguments, int64_t begin, int64_t end) {
    const float *a = (const float *)arguments[0];
    float *out = (float *)arguments[1];
    for (int64_t i = begin; i < end; i++) out[i] = sqrtf(a[i]);
}

// Writes only even elements: the mistake that poisoned temporaries show.
void forgetful(uint8_t **arguments, int64_t begin, int64_t end) {
    const float *a = (const float *)arguments[0];
    float *out = (float *)arguments[1];
    for (int64_t i = begin; i < end; i++)
        if (i % 2 == 0) out[i] = a[i];
}

// images[B][D], weight[K][D], bias[K], logits[B][K]; FEATURES and CLASSES are given at compile time. One task a sample.
void logits(uint8_t **arguments, int64_t begin, int64_t end) {
    const float *images = (const float *)arguments[0], *weight = (const float *)arguments[1];
    const float *bias = (const float *)arguments[2];
    float *out = (float *)arguments[3];
    for (int64_t b = begin; b < end; b++)
        for (int64_t k = 0; k < CLASSES; k++) {
            float sum = bias[k];
            for (int64_t d = 0; d < FEATURES; d++) sum += images[b * FEATURES + d] * weight[k * FEATURES + d];
            out[b * CLASSES + k] = sum;
        }
}

// logits, labels, random state -> gradient of the logits, loss. One task: everything. The random state moves
// one class a little, as dropout would, so that a run that resumes with another state is found out.
void loss(uint8_t **arguments, int64_t begin, int64_t end) {
    const float *logits = (const float *)arguments[0];
    const int64_t *labels = (const int64_t *)arguments[1], *state = (const int64_t *)arguments[2];
    float *gradient = (float *)arguments[3], *loss = (float *)arguments[4];
    (void)begin, (void)end;
    double total = 0;
    for (int64_t b = 0; b < BATCH; b++) {
        float shifted[CLASSES], most = -INFINITY;
        double sum = 0;
        for (int64_t k = 0; k < CLASSES; k++) {
            shifted[k] = logits[b * CLASSES + k];
            if (k == (state[0] + state[1]) % CLASSES) shifted[k] += 0.01f;
            if (shifted[k] > most) most = shifted[k];
        }
        for (int64_t k = 0; k < CLASSES; k++) sum += exp(shifted[k] - most);
        total += log(sum) + most - shifted[labels[b]];
        for (int64_t k = 0; k < CLASSES; k++)
            gradient[b * CLASSES + k] = (float)(exp(shifted[k] - most) / sum - (labels[b] == k)) / BATCH;
    }
    *loss = (float)(total / BATCH);
}

// images, gradient of the logits, rate, weight, momentum of the weight, bias. One task a class.
void update(uint8_t **arguments, int64_t begin, int64_t end) {
    const float *images = (const float *)arguments[0], *gradient = (const float *)arguments[1];
    const float rate = *(const float *)arguments[2];
    float *weight = (float *)arguments[3], *momentum = (float *)arguments[4], *bias = (float *)arguments[5];
    for (int64_t k = begin; k < end; k++) {
        for (int64_t d = 0; d < FEATURES; d++) {
            float sum = 0;
            for (int64_t b = 0; b < BATCH; b++) sum += gradient[b * CLASSES + k] * images[b * FEATURES + d];
            float *v = &momentum[k * FEATURES + d];
            *v = 0.9f * *v - rate * sum;
            weight[k * FEATURES + d] += *v;
        }
        for (int64_t b = 0; b < BATCH; b++) bias[k] -= rate * gradient[b * CLASSES + k];
    }
}
