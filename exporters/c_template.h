${banner}
#ifndef ${P}_H_INCLUDED
#define ${P}_H_INCLUDED

#include <stdint.h>
#include <string.h>

${constants}

${data}

/* State of all layers, and their spikes (0 or 1) of the last time step, layer after layer. */
typedef struct {
    int32_t u[${P}_N_NEURONS];
    int32_t v[${P}_N_NEURONS];
    uint8_t s[${P}_N_NEURONS];
} ${p}_state;

#ifdef __cplusplus
extern "C" {
#endif

/* All states to zero: the start of a control step. */
void ${p}_reset(${p}_state *state);

/* One time step through all layers; the spikes are in state->s, those of the output from ${P}_OUT_OFFSET on. */
void ${p}_step(${p}_state *state, const uint8_t in[${P}_N_IN]);

/* One control step from states of zero: spikes [T][N_IN] to output spikes [T][N_OUT]. Not reentrant. */
void ${p}_infer(const uint8_t in[${P}_T * ${P}_N_IN], uint8_t out[${P}_T * ${P}_N_OUT]);

/* As ${p}_infer, with the spikes of all layers [T][N_NEURONS], layer after layer. Not reentrant. */
void ${p}_infer_all(const uint8_t in[${P}_T * ${P}_N_IN], uint8_t rasters[${P}_T * ${P}_N_NEURONS]);

#if ${P}_HAS_ENCODER && ${P}_POISSON
/* Input spikes [T][N_IN] of an observation; uniform [T][N_IN] are draws from [0, 1). Needs ${P}_CODEC. */
void ${p}_encode(const float obs[${P}_OBS_DIM], const float uniform[${P}_T * ${P}_N_IN],
                 uint8_t in[${P}_T * ${P}_N_IN]);
#elif ${P}_HAS_ENCODER
/* Input spikes [T][N_IN] of an observation. Needs ${P}_CODEC. */
void ${p}_encode(const float obs[${P}_OBS_DIM], uint8_t in[${P}_T * ${P}_N_IN]);
#endif

#if ${P}_HAS_DECODER
/* Action, in the environment's units, of output spikes [T][N_OUT]. Needs ${P}_CODEC. */
void ${p}_decode(const uint8_t out[${P}_T * ${P}_N_OUT], float action[${P}_ACT_DIM]);
#endif

#ifdef __cplusplus
}
#endif

#endif /* ${P}_H_INCLUDED */

#if defined(${P}_IMPLEMENTATION) && !defined(${P}_IMPLEMENTED)
#define ${P}_IMPLEMENTED

#ifdef ${P}_CODEC
#include <math.h>
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The low 32 bits as a signed number, without an implementation-defined conversion. */
static int32_t ${p}_low32(int64_t x)
{
    const uint32_t low = (uint32_t)((uint64_t)x & 0xffffffffu);
    return low <= 0x7fffffffu ? (int32_t)low : -(int32_t)(0xffffffffu - low) - 1;
}

/* state * keep / 4096, truncated towards zero, as C divides. */
static int32_t ${p}_decay(int32_t state, int32_t keep)
{
    return (int32_t)((int64_t)state * keep / 4096);
}

/* Accumulated mantissas, shifted by weight_exp (downwards with floor) and aligned 6 bits up, in 32 bits. */
static int32_t ${p}_drive(int32_t sum, int32_t weight_exp)
{
    int64_t x = sum;
    if (weight_exp > 0) {
        x *= (int64_t)1 << weight_exp;
    } else if (weight_exp < 0) {
        const int64_t unit = (int64_t)1 << -weight_exp;
        x = x >= 0 ? x / unit : -((unit - 1 - x) / unit);
    }
    return ${p}_low32(x * 64);
}

/* One layer, one time step. */
static void ${p}_layer(const uint8_t *in, uint8_t *s, int32_t *u, int32_t *v, const int8_t *weight,
                       const int32_t *bias, size_t n_in, size_t n_out, int32_t weight_exp, int32_t du,
                       int32_t dv, int32_t vth)
{
    const int32_t limit = 8388608; /* 2^23 */
    size_t n, i;
    for (n = 0; n < n_out; ++n) {
        const int8_t *row = weight + n * n_in;
        int32_t sum = 0, current;
        int64_t voltage;
        for (i = 0; i < n_in; ++i) {
            if (in[i]) {
                sum += row[i];
            }
        }
        current = ${p}_drive(2 * sum + bias[n], weight_exp);
        current = ${p}_low32((int64_t)${p}_decay(u[n], 4096 - (du + 1)) + current);
        if (current > limit) { /* the current wraps in 24 bits ... */
            current -= 2 * limit;
        } else if (current <= -limit) {
            current += 2 * limit;
        }
        voltage = (int64_t)${p}_decay(v[n], 4096 - dv) + current;
        if (voltage > limit - 1) { /* ... and the voltage clips */
            voltage = limit - 1;
        } else if (voltage < 1 - limit) {
            voltage = 1 - limit;
        }
        u[n] = current;
        s[n] = (uint8_t)(voltage > (int64_t)vth * 64);
        v[n] = s[n] ? 0 : (int32_t)voltage;
    }
}

void ${p}_reset(${p}_state *state)
{
    memset(state, 0, sizeof *state);
}

void ${p}_step(${p}_state *state, const uint8_t in[${P}_N_IN])
{
${steps}
}

static ${p}_state ${p}_own_state;

void ${p}_infer(const uint8_t in[${P}_T * ${P}_N_IN], uint8_t out[${P}_T * ${P}_N_OUT])
{
    size_t t;
    ${p}_reset(&${p}_own_state);
    for (t = 0; t < ${P}_T; ++t) {
        ${p}_step(&${p}_own_state, in + t * ${P}_N_IN);
        memcpy(out + t * ${P}_N_OUT, ${p}_own_state.s + ${P}_OUT_OFFSET, ${P}_N_OUT);
    }
}

void ${p}_infer_all(const uint8_t in[${P}_T * ${P}_N_IN], uint8_t rasters[${P}_T * ${P}_N_NEURONS])
{
    size_t t;
    ${p}_reset(&${p}_own_state);
    for (t = 0; t < ${P}_T; ++t) {
        ${p}_step(&${p}_own_state, in + t * ${P}_N_IN);
        memcpy(rasters + t * ${P}_N_NEURONS, ${p}_own_state.s, ${P}_N_NEURONS);
    }
}

#if defined(${P}_CODEC) && ${P}_HAS_ENCODER
/* Activation of the receptive field i of observation dimension d. */
static float ${p}_activation(const float *obs, size_t d, size_t i)
{
    float x = obs[d];
    float distance;
#if ${P}_HAS_NORMALIZATION
    x = (x - ${p}_obs_mean[d]) / ${p}_obs_std[d];
    if (x > ${P}_OBS_CLIP) {
        x = ${P}_OBS_CLIP;
    } else if (x < -${P}_OBS_CLIP) {
        x = -${P}_OBS_CLIP;
    }
#endif
    distance = (x - ${p}_field_mean[i]) / ${p}_field_std[i];
    return expf(-0.5f * distance * distance);
}

#if ${P}_POISSON
void ${p}_encode(const float obs[${P}_OBS_DIM], const float uniform[${P}_T * ${P}_N_IN],
                 uint8_t in[${P}_T * ${P}_N_IN])
{
    size_t t, i;
    for (i = 0; i < ${P}_N_IN; ++i) {
        const float activation = ${p}_activation(obs, i / ${P}_POPULATION, i);
        for (t = 0; t < ${P}_T; ++t) {
            in[t * ${P}_N_IN + i] = (uint8_t)(uniform[t * ${P}_N_IN + i] < activation);
        }
    }
}
#else
void ${p}_encode(const float obs[${P}_OBS_DIM], uint8_t in[${P}_T * ${P}_N_IN])
{
    size_t t, i;
    for (i = 0; i < ${P}_N_IN; ++i) {
        const float activation = ${p}_activation(obs, i / ${P}_POPULATION, i);
        float level = 0.0f;
        for (t = 0; t < ${P}_T; ++t) {
            uint8_t spike;
            level += activation;
            spike = (uint8_t)(level > ${P}_ENCODER_THRESHOLD);
            if (spike) {
                level -= ${P}_ENCODER_THRESHOLD;
            }
            in[t * ${P}_N_IN + i] = spike;
        }
    }
}
#endif
#endif

#if defined(${P}_CODEC) && ${P}_HAS_DECODER
void ${p}_decode(const uint8_t out[${P}_T * ${P}_N_OUT], float action[${P}_ACT_DIM])
{
    size_t a, k, t;
    for (a = 0; a < ${P}_ACT_DIM; ++a) {
        const float middle = (${p}_action_high[a] + ${p}_action_low[a]) / 2.0f;
        const float half = (${p}_action_high[a] - ${p}_action_low[a]) / 2.0f;
        float sum = 0.0f;
        for (k = 0; k < ${P}_ACT_POPULATION; ++k) {
            const size_t n = a * ${P}_ACT_POPULATION + k;
            int32_t count = 0;
            for (t = 0; t < ${P}_T; ++t) {
                count += out[t * ${P}_N_OUT + n];
            }
            sum += (float)count / (float)${P}_T * ${p}_decoder_weight[n];
        }
        action[a] = middle + half * tanhf(sum + ${p}_decoder_bias[a]);
    }
}
#endif

#ifdef __cplusplus
}
#endif

#endif /* ${P}_IMPLEMENTATION */
