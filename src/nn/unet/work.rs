//! How much work each block of a network is, without a device: what late conditioning saves follows from it.

use super::UNet;
use crate::nn::Layout;
use crate::shape::Extent;

/// Multiplications and additions of one evaluation of one picture, by convolutions and attention. What is done with tokens is
/// not counted: how many there are is theirs to say, and it is little.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Work {
    /// Of all blocks.
    pub all: f64,
    /// Of those that the condition has not entered yet.
    pub before_condition: f64,
}

impl Work {
    /// What a guided step costs, in evaluations: 2 where all blocks are told the condition.
    pub fn guided_evaluations(&self) -> f64 {
        2.0 - self.before_condition / self.all.max(1.0)
    }
}

/// Whether a linear layer is one of a transformer's over the pixels.
fn of_transformer(name: &str) -> bool {
    let parts = ["transformer_blocks", "proj_in", "proj_out"];
    name.split('.').any(|part| parts.contains(&part)) && !name.ends_with("attn2.to_kv.weight")
}

impl UNet {
    /// The work of an evaluation.
    pub fn work(&self) -> Work {
        let config = self.config();
        let (condition, extent) = (config.condition_block().unwrap_or(0), config.sample_size);
        let (mut all, mut before_condition) = (0.0, 0.0);
        for spec in self.parameters().specs() {
            let over_pixels = match spec.layout {
                Layout::Conv2d | Layout::Conv1d | Layout::ConvLine => true,
                Layout::Linear => of_transformer(&spec.name),
                Layout::Plain => false,
            };
            if !over_pixels {
                continue;
            }
            let (block, level) = self.place(&spec.name);
            let pixels = extent.halved(level).map_or(0, Extent::places) as f64;
            // A weight is used once for each pixel that comes out; attention multiplies pixels by pixels twice.
            let mut work = 2.0 * spec.len() as f64 * pixels;
            let plain = spec.layout == Layout::Conv1d && spec.name.ends_with("proj_out.weight");
            if plain || spec.name.ends_with("attn1.to_out.0.weight") {
                work += 4.0 * pixels * pixels * spec.shape[0] as f64;
            }
            all += work;
            if block < condition {
                before_condition += work;
            }
        }
        Work { all, before_condition }
    }

    /// The number of the block that a parameter belongs to, and how often what that makes was halved.
    fn place(&self, name: &str) -> (usize, u32) {
        let config = self.config();
        let ((inputs, outputs), last) = (config.block_counts(), config.channel_mult.len() - 1);
        let (stage, rest) = name.split_once('.').unwrap_or((name, ""));
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
        let mut numbers = rest.split('.');
        let (block, part) = (number(numbers.next()), number(numbers.next()));
        let each = config.layers_per_block + 1;
        match stage {
            // The stem, then `each` blocks a level, the last of which halves.
            "input_blocks" => (block, (block / each).min(last) as u32),
            "middle_block" => (inputs, last as u32),
            "output_blocks" => {
                let level = last - (block / each).min(last);
                let doubles = part > usize::from(config.attends(level));
                (inputs + 1 + block, level.saturating_sub(usize::from(doubles)) as u32)
            }
            _ => (inputs + 1 + outputs, 0),
        }
    }
}
