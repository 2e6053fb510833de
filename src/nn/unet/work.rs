//! How much work each block of a network is, without a device: what late conditioning saves follows from it.

use super::UNet;
use crate::nn::Layout;

/// Multiplications and additions of one evaluation of one picture, by convolutions and attention.
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

impl UNet {
    /// The work of an evaluation.
    pub fn work(&self) -> Work {
        let config = self.config();
        let condition = config.condition_block().unwrap_or(0);
        let (mut all, mut before_condition) = (0.0, 0.0);
        for spec in self.parameters().specs() {
            if !matches!(spec.layout, Layout::Conv2d | Layout::Conv1d) {
                continue;
            }
            let (block, side) = self.place(&spec.name);
            let pixels = (side * side) as f64;
            // A weight is used once for each pixel that comes out; attention multiplies pixels by pixels twice.
            let mut work = 2.0 * spec.len() as f64 * pixels;
            if spec.name.ends_with("proj_out.weight") {
                work += 4.0 * pixels * pixels * spec.shape[0] as f64;
            }
            all += work;
            if block < condition {
                before_condition += work;
            }
        }
        Work { all, before_condition }
    }

    /// The number of the block that a parameter belongs to, and the side of what that makes.
    fn place(&self, name: &str) -> (usize, usize) {
        let config = self.config();
        let ((inputs, outputs), sizes) = (config.block_counts(), config.sizes());
        let (stage, rest) = name.split_once('.').unwrap_or((name, ""));
        let number = |text: Option<&str>| text.and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
        let mut numbers = rest.split('.');
        let (block, part) = (number(numbers.next()), number(numbers.next()));
        let each = config.layers_per_block + 1;
        match stage {
            // The stem, then `each` blocks a level, the last of which halves.
            "input_blocks" => (block, sizes[(block / each).min(sizes.len() - 1)]),
            "middle_block" => (inputs, sizes[sizes.len() - 1]),
            "output_blocks" => {
                let level = sizes.len() - 1 - (block / each).min(sizes.len() - 1);
                let doubles = part > usize::from(config.attends(level));
                (inputs + 1 + block, if doubles { sizes[level.saturating_sub(1)] } else { sizes[level] })
            }
            _ => (inputs + 1 + outputs, sizes[0]),
        }
    }
}
