//! The operations: one file and one shader each, forward and backward together.
//!
//! Every operation has the same five beats: check shapes, choose the variant, make the output, dispatch, push the
//! backward. Activations are `[N, H, W, C]`; sums are f32 whatever the storage type.
//!
//! Invariants: an operation never names a layer of a network, a file or a clock.

mod adamw;
mod add;
mod add_per_sample;
mod anneal_condition;
mod attention;
mod cast;
mod class_posterior;
mod concat;
mod conv2d;
mod cross_entropy;
mod diffusion_loss;
mod dropout;
mod dynamic_threshold;
mod embedding;
mod first_token;
mod geglu;
mod gelu;
mod group_norm;
mod group_norm_parts;
mod guided_step;
mod guider;
mod layer_norm;
mod linear;
mod linear_rows;
mod mix_conditions;
mod mixture_score;
mod mse;
mod noised;
mod pack;
mod patches;
mod pixels;
mod pool_tokens;
mod posterior_sample;
mod relu;
mod repeat_batch;
mod resample;
mod resize_pictures;
mod sampler_step;
mod scale;
mod scale_per_sample;
mod section;
mod silu;
mod soft_clamp;
mod softmax;
mod stack_batch;
mod step_counter;
mod teacher_move;
mod timestep_embedding;
mod transpose;
mod upsample_bilinear;
mod velocity_eps;
mod wide_attention;
mod window_pool;

pub use adamw::{AdamW, Arena as OptimizerArena, Controls, EmaWarmup, OptimizerState, grad_squares};
pub use add::{add, add_into};
pub use add_per_sample::add_per_sample;
pub use anneal_condition::{AnnealCondition, anneal_condition, annealing_rows, annealing_table};
pub use attention::{QkvOrder, attention, attention_causal, cross_attention};
pub use cast::cast;
pub(crate) use cast::cast_constant;
pub use class_posterior::{Observed, mix_classes, observe_step, prior_rows};
pub use concat::concat;
pub use conv2d::{Padding, conv2d, conv2d_add, conv2d_padded};
pub use cross_entropy::{CrossEntropy, cross_entropy};
pub use diffusion_loss::{LossInputs, LossWeights, Losses, diffusion_loss};
pub use dropout::{DropoutSeeds, dropout};
pub use embedding::embedding;
pub use first_token::first_token;
pub use geglu::geglu;
pub use gelu::{Gelu, gelu};
pub use group_norm::{GroupNorm, group_norm};
pub use group_norm_parts::{PartsNorm, parts_norm};
pub use guided_step::{GuidedStep, guided_step, guided_step_by, step_table};
pub use guider::{
    GUIDER_ROW, Guided, check_expression, expression_of, guided_eps, guider_table, is_weight_alone,
    outputs_to_eps, put_guided, renoise, step_weight,
};
pub use layer_norm::layer_norm;
pub use linear::{linear, linear_add};
pub use linear_rows::linear_rows;
pub use mix_conditions::mix_conditions;
pub use mixture_score::{Mixture, mixture_score};
pub use mse::{mse, mse_per_sample};
pub use noised::{Images, noised, normal_noise};
pub use patches::{Window, patches};
pub use pixels::pixels;
pub use pool_tokens::pool_tokens;
pub use posterior_sample::posterior_sample;
pub use relu::relu;
pub use repeat_batch::repeat_batch;
pub use resample::{average_pool, average_pool2, upsample_nearest, upsample_nearest2};
pub use resize_pictures::{Resize, resize_pictures};
pub use sampler_step::{SamplerStep, StepNoise, guide_output, move_table, sampler_step, sampler_step_by};
pub use scale::scale;
pub use scale_per_sample::scale_per_sample;
pub use section::{put_section, section};
pub use silu::silu;
pub use soft_clamp::soft_clamp;
pub use softmax::softmax;
pub use stack_batch::stack_batch;
pub use step_counter::{advance, step_inputs, step_times};
pub use teacher_move::{TeacherMove, teacher_move};
pub use timestep_embedding::timestep_embedding;
pub use transpose::transpose;
pub use upsample_bilinear::upsample_bilinear;
pub use velocity_eps::velocity_eps;
pub use wide_attention::wide_attention;
pub use window_pool::{Pool, window_pool};
