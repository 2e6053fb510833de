//! What a training hands over: its weights as models, with what they are, and the plot of its loss.

use crate::error::Result;
use crate::io::{Series, loss_plot};
use crate::model::{ModelConfig, SchedulerConfig, TrainedRows, WeightsKind, write_model, write_weights};
use crate::train::objective::LossKind;

use super::{Network, Trainer};

impl Trainer {
    /// The averages, and what each still holds of the initial weights: of the steps whose numbers have arrived, which are
    /// all of them at a save and at the end.
    pub fn averages(&self) -> Vec<WeightsKind> {
        let shares = self.options.ema_rates.iter().zip(&self.state.initial_shares);
        shares.map(|(&rate, &share)| WeightsKind::Average { rate, initial_share: Some(share) }).collect()
    }

    /// The rows of the class embedding that the training reaches.
    fn trained_rows(&self) -> Option<TrainedRows> {
        let options = &self.options;
        let own = TrainedRows::of(
            self.loader.dataset().labels(),
            options.unet.num_classes?,
            options.unconditional_probability,
        );
        // Leaving the class out by itself shows the null class, too.
        let own = TrainedRows { null: own.null || options.dropout().class > 0.0, ..own };
        Some(match &self.network {
            // A student begins with its teacher's rows; a teacher that says nothing of them has them all.
            Network::Student(_, teacher) => match &teacher.model().config.trained_rows {
                Some(theirs) => own.or(theirs),
                None => TrainedRows { null: true, classes: true, without_pictures: Vec::new() },
            },
            _ => match &options.init_rows {
                Some(before) => own.or(before),
                None => own,
            },
        })
    }

    /// The configuration that goes beside weights averaged at `rate`.
    pub fn config(&self, rate: f64) -> ModelConfig {
        let options = &self.options;
        ModelConfig {
            class_name: match self.network {
                Network::UNet(_) | Network::Student(..) => "FreeguideUNet".into(),
                Network::Classifier(_) => "FreeguideClassifier".into(),
            },
            unet: options.unet.clone(),
            scheduler: match &self.network {
                // What a file says of its variances cannot all be told by options.
                Network::Student(_, teacher) => SchedulerConfig {
                    prediction_type: options.objective.prediction.config_name().into(),
                    ..teacher.model().config.scheduler.clone()
                },
                _ => options.objective.scheduler(options.log_snr_min, options.log_snr_max),
            },
            sampling: options.sampling.clone(),
            class_names: options.class_names.clone(),
            data: options.data.clone(),
            unconditional_probability: options.unconditional_probability,
            part_dropout: options.part_dropout,
            attributes: options.attributes.clone(),
            images_seen: self.state.images,
            ema_rate: Some(rate),
            ema_warmup: Some(options.ema_warmup),
            ema_initial_share: options
                .ema_rates
                .iter()
                .position(|known| *known == rate)
                .map(|copy| self.state.initial_shares[copy]),
            trained_rows: self.trained_rows(),
            init_from: options.init_from.clone(),
        }
    }

    /// Writes the weights of the last step and the averages as models, the first average as the model, and the plot of
    /// the loss.
    pub(super) fn write_models(&self) -> Result<()> {
        let parameters = self.parameters();
        let raw = self.state.optimised.parameters.read(&self.gpu, parameters, 0)?;
        write_weights(&self.dir.join("model-raw.safetensors"), Some(WeightsKind::Raw), parameters, &raw)?;
        drop(raw);
        for (copy, kind) in self.averages().into_iter().enumerate().rev() {
            let rate = &self.options.ema_rates[copy];
            let values = self.state.optimised.averages.read(&self.gpu, parameters, copy)?;
            if copy == 0 {
                let config = self.config(*rate);
                write_model(&self.dir.join("model.safetensors"), Some(&config), parameters, &values)?;
            } else {
                let path = self.dir.join(format!("model-ema-{rate}.safetensors"));
                write_weights(&path, Some(kind), parameters, &values)?;
            }
        }
        let points = self.log.records().iter().map(|record| (record.images as f64, f64::from(record.loss)));
        let series: Series = ("loss".into(), points.collect());
        // A student of w = 0 alone has nothing to learn, and a logarithm nothing to show.
        if !series.1.iter().any(|(_, loss)| *loss > 0.0) {
            return Ok(());
        }
        let objective = &self.options.objective;
        let what = match objective.loss {
            LossKind::Simple if self.options.distillation.is_some() => {
                format!("mean squared distance to the teacher's {}", objective.prediction)
            }
            LossKind::Simple => format!("mean squared error of {}", objective.prediction),
            LossKind::Hybrid | LossKind::HybridUnscaled => "hybrid loss".into(),
            LossKind::CrossEntropy => "cross-entropy in nats".into(),
            LossKind::Vlb => "bound in bits a dimension".into(),
        };
        loss_plot(self.dir.join("loss.png"), &[series], "images", &what, true)
    }
}
