/* kernels.h: all kernels of one instruction set, and their table. Included by kernels_SET.c only. */
#include "../cpu.h"
#include "vector.h"
#include "vector_math.h"
#include "doubles.h"
#include "fixed_point.h"
#include "product.h"
#include "stored.h"
#include "panels.h"
#include "product_widened.h"
#include "winograd_lines.h"
#include "winograd_weights.h"
#include "combine.h"
#include "softmax.h"

#define MG_ELEMENT float
#define MG_ELEMENT_NAME f32
#include "elements.h"
#undef MG_ELEMENT
#undef MG_ELEMENT_NAME
#define MG_ELEMENT mg_bf16
#define MG_ELEMENT_NAME bf16
#include "elements.h"
#undef MG_ELEMENT
#undef MG_ELEMENT_NAME

#include "gradient.h"
#include "optimizer.h"

#define MG_TABLE MG_PASTE_TABLE(MG_ISA)
#define MG_PASTE_TABLE(isa) MG_PASTE_TABLE_(isa)
#define MG_PASTE_TABLE_(isa) mg_cpu_kernels_##isa
#define MG_TEXT(isa) MG_TEXT_(isa)
#define MG_TEXT_(isa) #isa

#define MG_OF_ELEMENT(type, name) MG_PASTE(name##__##type, MG_ISA)
#define MG_ELEMENT_TABLE(type)                                                                                         \
    {                                                                                                                  \
        .activate = MG_OF_ELEMENT(type, activate), .geglu = MG_OF_ELEMENT(type, geglu),                                \
        .scale = MG_OF_ELEMENT(type, scale), .add = MG_OF_ELEMENT(type, add),                                          \
        .epilogue = MG_OF_ELEMENT(type, epilogue), .widen = MG_OF_ELEMENT(type, widen),                                \
        .narrow = MG_OF_ELEMENT(type, narrow), .channel_sums = MG_OF_ELEMENT(type, channel_sums),                      \
        .channel_affine = MG_OF_ELEMENT(type, channel_affine), .layernorm = MG_OF_ELEMENT(type, layernorm),            \
        .winograd_input = MG_OF_ELEMENT(type, winograd_input),                                                         \
        .winograd_input_fixed = MG_OF_ELEMENT(type, winograd_input_fixed),                                             \
        .winograd_gradient = MG_OF_ELEMENT(type, winograd_gradient),                                                   \
        .winograd_output = MG_OF_ELEMENT(type, winograd_output), .quantise_row = MG_OF_ELEMENT(type, quantise_row),    \
    }

const struct mg_cpu_kernels MG_TABLE = {
    .isa = MG_TEXT(MG_ISA),
    .panel = 2 * MG_LANES,
    .product_f32 = MG_KERNEL(product_f32),
    .product_bf16 = MG_KERNEL(product_bf16),
    .product_u8i8 = MG_KERNEL(product_u8i8),
    .product_fixed = MG_KERNEL(product_fixed),
    .dequantise = MG_KERNEL(dequantise),
    .dot_rows = MG_KERNEL(dot_rows),
    .sum_rows = MG_KERNEL(sum_rows),
    .widen_pairs = MG_KERNEL(widen_pairs),
    .widen_quads = MG_KERNEL(widen_quads),
    .winograd_weights = MG_KERNEL(winograd_weights),
    .winograd_weights_fixed = MG_KERNEL(winograd_weights_fixed),
    .winograd_weight_gradient = MG_KERNEL(winograd_weight_gradient),
    .combine = MG_KERNEL(combine),
    .softmax_block = MG_KERNEL(softmax_block),
    .softmax_block_coarse = MG_KERNEL(softmax_block_coarse),
    .softmax_block_half = MG_KERNEL(softmax_block_half),
    .product_pixels = MG_KERNEL(product_pixels),
    .product_pixels_half = MG_KERNEL(product_pixels_half),
    .pair_rows = MG_KERNEL(pair_rows),
    .activation_gradient = MG_KERNEL(activation_gradient),
    .geglu_gradient = MG_KERNEL(geglu_gradient),
    .column_sums = MG_KERNEL(column_sums),
    .normal_sums = MG_KERNEL(normal_sums),
    .normal_gradient = MG_KERNEL(normal_gradient),
    .layernorm_sums = MG_KERNEL(layernorm_sums),
    .layernorm_gradient = MG_KERNEL(layernorm_gradient),
    .score_gradient = MG_KERNEL(score_gradient),
    .attention_gradient = MG_KERNEL(attention_gradient),
    .attention_gradient_half = MG_KERNEL(attention_gradient_half),
    .adam = MG_KERNEL(adam),
    .sum_of_squares = MG_KERNEL(sum_of_squares),
    .of = {[MG_CPU_F32] = MG_ELEMENT_TABLE(f32), [MG_CPU_BF16] = MG_ELEMENT_TABLE(bf16)},
};
