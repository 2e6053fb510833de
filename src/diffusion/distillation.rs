//! What a student is taught: one evaluation for two, and one step for two.
//!
//! | stage | the student's x̂ at (z, w) becomes | source |
//! |---|---|---|
//! | guidance | (1 + w) x̂_c - w x̂_∅ of its teacher | Meng et al., arXiv 2210.03142, section 3.1 |
//! | halving | the x̂ whose one deterministic step ends where two of its teacher's do | Salimans & Ho, arXiv 2202.00512, algorithm 2 |
//!
//! Both are mean squared errors of what the student predicts. For v that is Salimans & Ho's weight SNR + 1 of the error of
//! x̂, for eps the weight SNR, for x0 the weight 1.

use super::moves::{Level, ddim_between};
use super::prediction::Prediction;
use crate::random::{Stream, words};

/// The numbers of one sample for a teacher's move: o = (1 + w) `out_c` - w `out_u`, or the output; x̂ = `x_z`·z + `x_out`·o within
/// ±`bound`; y = `of_z`·z + `of_x`·x̂ + `of_start`·start.
#[derive(Debug, Clone, Copy, PartialEq, Default, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct TeacherRow {
    /// The factor of z in x̂.
    pub x_z: f32,
    /// The factor of the output in x̂.
    pub x_out: f32,
    /// The factor of z.
    pub of_z: f32,
    /// The factor of x̂.
    pub of_x: f32,
    /// The factor of the latent that the student is given.
    pub of_start: f32,
    /// The guidance weight.
    pub w: f32,
    /// What x̂ is clipped to.
    pub bound: f32,
    /// Fills the second vector.
    pub padding: f32,
}

impl TeacherRow {
    /// x̂ of a teacher at a level.
    fn x(level: &Level, teacher: Prediction, clip: bool) -> Self {
        let (x_z, x_out) = teacher.x_factors(level.alpha, level.sigma, (1.0, 0.0));
        let bound = if clip { 1.0 } else { f32::MAX };
        TeacherRow { x_z: x_z as f32, x_out: x_out as f32, bound, ..TeacherRow::default() }
    }

    /// The guided output of a teacher, as the student predicts it. Where both predict the same it is taken as it is; else by
    /// way of x̂, clipped where the teacher's samplers do.
    pub fn guided(level: &Level, teacher: Prediction, student: Prediction, clip: bool, w: f64) -> Self {
        let w = w as f32;
        if teacher == student {
            return TeacherRow { x_out: 1.0, of_x: 1.0, w, bound: f32::MAX, ..TeacherRow::default() };
        }
        let (of_z, of_x) = of_latent_and_picture(level, student);
        let row = Self::x(level, teacher, clip);
        TeacherRow { of_z: of_z as f32, of_x: of_x as f32, w, ..row }
    }

    /// A teacher's two deterministic steps from the first level by way of the second to the third: the first step, and the
    /// second with what the student has to predict at the first level to get there at once.
    pub fn halving(levels: &[Level; 3], teacher: Prediction, student: Prediction, clip: bool) -> [Self; 2] {
        let [from, middle, to] = levels;
        let first = ddim_between(*from, *middle, 0.0);
        let second = ddim_between(*middle, *to, 0.0);
        // x̃ = (z'' - r z)/(α'' - r α), r = σ''/σ.
        let ratio = to.sigma / from.sigma;
        let share = (to.alpha - ratio * from.alpha).recip();
        let (of_start, of_x) = of_latent_and_picture(from, student);
        [
            TeacherRow {
                of_z: first.mean_z as f32,
                of_x: first.mean_x as f32,
                ..Self::x(from, teacher, clip)
            },
            TeacherRow {
                of_z: (of_x * share * second.mean_z) as f32,
                of_x: (of_x * share * second.mean_x) as f32,
                of_start: (of_start - of_x * share * ratio) as f32,
                ..Self::x(middle, teacher, clip)
            },
        ]
    }
}

/// A prediction as a sum of z and x̂: the factors of both.
fn of_latent_and_picture(level: &Level, prediction: Prediction) -> (f64, f64) {
    let (alpha, sigma) = (level.alpha, level.sigma);
    // eps = (z - α x̂)/σ.
    let target = prediction.target(alpha, sigma, (1.0, 0.0));
    (target.of_z + target.of_eps / sigma, target.of_x - target.of_eps * alpha / sigma)
}

/// How far beyond its bounds weights are taught, in parts of the range. A network is smooth in w and what it says at a bound is
/// drawn towards the weights beside it: without a margin a student of [0, 4] makes samples at w = 0 as if w were larger.
const MARGIN: f64 = 0.125;

/// The guidance weight that an image of the run `seed` is trained at: uniform between two bounds and an eighth of their
/// distance beyond either.
pub fn guidance_weight(seed: u64, image_index: u64, [low, high]: [f64; 2]) -> f64 {
    let u = f64::from(words(seed, 0, image_index, Stream::Guidance)[0]) * 2f64.powi(-32);
    let margin = MARGIN * (high - low);
    low - margin + u * (high - low + 2.0 * margin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diffusion::moves::LevelSource;
    use crate::diffusion::{BetaSchedule, ContinuousSchedule, DiscreteSchedule};

    const ALL: [Prediction; 3] = [Prediction::Eps, Prediction::X0, Prediction::V];

    /// The move in f64, of a sample of one element.
    fn run(row: &TeacherRow, z: f64, [conditional, other]: [f64; 2], start: f64) -> f64 {
        let f = f64::from;
        let o = (1.0 + f(row.w)) * conditional - f(row.w) * other;
        let x = (f(row.x_z) * z + f(row.x_out) * o).clamp(-f(row.bound), f(row.bound));
        f(row.of_z) * z + f(row.of_x) * x + f(row.of_start) * start
    }

    fn x_of(prediction: Prediction, level: &Level, z: f64, out: f64) -> f64 {
        let (of_z, of_out) = prediction.x_factors(level.alpha, level.sigma, (1.0, 0.0));
        of_z * z + of_out * out
    }

    #[test]
    fn the_guided_target_is_the_guided_picture_in_any_terms() {
        let (z, out) = (0.8, [0.3, -0.25]);
        for log_snr in [-6.0, -0.4, 5.0] {
            let level = Level::continuous(log_snr);
            for (teacher, student, w) in ALL.iter().flat_map(|t| ALL.map(|s| (*t, s, 1.7))) {
                let row = TeacherRow::guided(&level, teacher, student, false, w);
                let got = x_of(student, &level, z, run(&row, z, out, f64::NAN.max(0.0)));
                let want =
                    (1.0 + w) * x_of(teacher, &level, z, out[0]) - w * x_of(teacher, &level, z, out[1]);
                assert!((got - want).abs() < 2e-5 * want.abs().max(1.0), "{teacher} {student} {got} {want}");
                let clipped = TeacherRow::guided(&level, teacher, student, true, w);
                let got = x_of(student, &level, z, run(&clipped, z, out, 0.0));
                let want = if teacher == student { want } else { want.clamp(-1.0, 1.0) };
                assert!((got - want).abs() < 2e-5 * want.abs().max(1.0), "{teacher} {student} {got} {want}");
            }
        }
    }

    /// One step with what is taught ends where two of the teacher's do.
    #[test]
    fn one_step_of_the_student_is_two_of_its_teacher() {
        let discrete = DiscreteSchedule::new(BetaSchedule::Cosine, 1000).unwrap();
        for source in
            [LevelSource::Continuous(ContinuousSchedule::default()), LevelSource::Discrete(discrete, 1.0)]
        {
            let (many, few) = (source.halving(16).unwrap(), source.halving(8).unwrap());
            for (i, from) in few.iter().enumerate() {
                assert_eq!(*from, many[2 * i], "the levels of 8 steps are every second of 16");
                let to = few.get(i + 1).copied().unwrap_or(Level::CLEAN);
                let levels = [*from, many[2 * i + 1], to];
                for (teacher, student) in
                    ALL.iter().flat_map(|t| [Prediction::X0, Prediction::V].map(|s| (*t, s)))
                {
                    for clip in [false, true] {
                        // Such that x̂ = 0.7, then 1.2.
                        let out = |level: &Level, z: f64, x: f64| {
                            let (of_z, of_out) = teacher.x_factors(level.alpha, level.sigma, (1.0, 0.0));
                            (x - of_z * z) / of_out
                        };
                        let x = |x: f64| if clip { x.clamp(-1.0, 1.0) } else { x };
                        let z = 0.9;
                        let [a, b] = TeacherRow::halving(&levels, teacher, student, clip);
                        let step = |from: Level, to: Level, z: f64, x: f64| {
                            let step = ddim_between(from, to, 0.0);
                            step.mean_z * z + step.mean_x * x
                        };
                        let middle = step(levels[0], levels[1], z, x(0.7));
                        let end = step(levels[1], levels[2], middle, x(1.2));
                        let got = run(&a, z, [out(&levels[0], z, 0.7), 0.0], z);
                        // At λ = -20 an f32 of 1/α loses what eps says of x̂.
                        let loose = if teacher == Prediction::Eps { 2e-2 } else { 1e-4 };
                        assert!((got - middle).abs() < loose, "{teacher} {got} {middle}");
                        let target = run(&b, middle, [out(&levels[1], middle, 1.2), 0.0], z);
                        let got = step(levels[0], levels[2], z, x_of(student, &levels[0], z, target));
                        assert!((got - end).abs() < loose, "{i} {teacher} {student} {clip}: {got} {end}");
                    }
                }
            }
        }
    }

    #[test]
    fn weights_fill_their_range_and_its_margin() {
        let weights: Vec<f64> = (0..10_000).map(|i| guidance_weight(3, i, [0.5, 4.5])).collect();
        assert!(weights.iter().all(|w| (0.0..5.0).contains(w)), "an eighth of four beyond");
        let mean = weights.iter().sum::<f64>() / 1e4;
        // A standard deviation of the mean of 0.0144.
        assert!((mean - 2.5).abs() < 0.07, "{mean}");
        let beyond = weights.iter().filter(|w| !(0.5..4.5).contains(*w)).count();
        assert!((1800..2200).contains(&beyond), "a fifth of them: {beyond}");
        assert_eq!(guidance_weight(3, 9, [2.0, 2.0]), 2.0);
    }
}
