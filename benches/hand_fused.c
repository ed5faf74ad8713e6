/* A stack of S4D layers as one writes it by hand: one loop over a channel's modes, the C library's functions.
 * hand_weights.h, which generators.py writes, has the sizes and the numbers. */
#include "ssm.h"
#include "hand_weights.h"

#include <math.h>
#include <string.h>

static float gelu(float v)
{
    return 0.5f * v * (1.0f + erff(v * 0.70710678f));
}

static float sigmoid(float v)
{
    return 1.0f / (1.0f + expf(-v));
}

static float row(const float *weight, const float *x, int columns, float bias)
{
    float sum = bias;
    for (int j = 0; j < columns; j++)
        sum += weight[j] * x[j];
    return sum;
}

/* x' = a x + u, y = D u + Re(C x'), with B in C and the 2 of conjugate pairs too. */
static float s4d(const float (*mode)[4], float (*state)[2], float u, float D)
{
    float y = D * u;
    for (int n = 0; n < N; n++) {
        const float re = mode[n][0] * state[n][0] - mode[n][1] * state[n][1] + u;
        const float im = mode[n][0] * state[n][1] + mode[n][1] * state[n][0];
        y += mode[n][2] * re - mode[n][3] * im;
        state[n][0] = re;
        state[n][1] = im;
    }
    return y;
}

static void layer_norm(float *x, const float *weight, const float *bias)
{
    float mean = 0.0f, power = 0.0f;
    for (int i = 0; i < H; i++)
        mean += x[i];
    mean /= H;
    for (int i = 0; i < H; i++) {
        x[i] -= mean;
        power += x[i] * x[i];
    }
    power = 1.0f / sqrtf(power / H + 1e-5f);
    for (int i = 0; i < H; i++)
        x[i] = x[i] * power * weight[i] + bias[i];
}

void ssm_init(ssm_t *model)
{
    memset(model, 0, sizeof *model);
}

void ssm_step(ssm_t *model, const float *u, float *y)
{
    float x[H], inner[H];
    for (int i = 0; i < H; i++)
        x[i] = row(encoder[i], u, SSM_INPUTS, encoder_bias[i]);
    for (int l = 0; l < LAYERS; l++) {
        for (int i = 0; i < H; i++)
            inner[i] = gelu(s4d(modes[l][i], model->state[l][i], x[i], D[l][i]));
        for (int i = 0; i < H; i++) {
            const float value = row(mix[l][i], inner, H, mix_bias[l][i]);
            x[i] += value * sigmoid(row(mix[l][H + i], inner, H, mix_bias[l][H + i]));
        }
        layer_norm(x, norm_weight[l], norm_bias[l]);
    }
#ifdef POOLED
    model->count += 1.0f;
    for (int i = 0; i < H; i++) {
        model->mean[i] += (x[i] - model->mean[i]) / model->count;
        x[i] = model->mean[i];
    }
#endif
    for (int i = 0; i < SSM_OUTPUTS; i++)
        y[i] = row(decoder[i], x, H, decoder_bias[i]);
}
