//! More than one network, and networks that are told more or less than a class.

use freeguide::data::Image;
use freeguide::diffusion::{Clip, Method, SamplerKind};
use freeguide::ops;
use freeguide::sample::{GuideInput, Networks, Sampler, SamplerOptions, Upsampling};
use freeguide::shape::Extent;
use freeguide::tensor::Context;

use super::models;
use super::record::{Dispatches, Drawn, gpu, group};
use super::runs::{
    self, BATCH, Beside, beside, draw, from_classes, guided, once, one_without_class, options, plain,
    refused, two, w,
};
use super::samplers;

#[test]
fn second_networks() {
    group("second networks", |cases| {
        for process in [models::CONTINUOUS_EPS, models::LINEAR_EPS, models::LEARNED] {
            let model = models::small(process);
            let (other, without) = (models::other(process), models::without_classes(process));
            for kind in [SamplerKind::Ancestral, SamplerKind::Heun] {
                for (name, second) in [("with classes", &other), ("without classes", &without)] {
                    let with = Beside { unconditional: Some(second), ..Beside::default() };
                    let pair = options(&model, kind);
                    let two_pass = SamplerOptions { two_pass: true, ..pair.clone() };
                    let case = |what: &str| format!("{}, {kind}, {name}, {what}", process.name);
                    cases.check(&case("pair"), || beside(&model, &with, pair.clone(), 1.5).unwrap());
                    cases
                        .check(&case("two passes"), || beside(&model, &with, two_pass.clone(), 1.5).unwrap());
                }
            }
            let larger = models::upsampler(process);
            let with = Beside { unconditional: Some(&larger), ..Beside::default() };
            let pair = options(&model, SamplerKind::Ancestral);
            assert!(beside(&model, &with, pair, 1.5).is_err(), "an upsampler is no second network");
        }
    });
}

#[test]
fn classifier_guides() {
    group("classifier", |cases| {
        for process in
            [models::CONTINUOUS_EPS, models::CONTINUOUS_V, models::LINEAR_EPS, models::LEARNED_RANGE]
        {
            let (model, without) = (models::small(process), models::without_classes(process));
            for kind in [SamplerKind::Ancestral, SamplerKind::Ddim, SamplerKind::Dpmpp2m] {
                let case = |what: &str| format!("{}, {kind}, {what}", process.name);
                let with = Beside { classifier: Some(2.0), ..Beside::default() };
                cases.check(&case("one evaluation"), || {
                    beside(&model, &with, once(&model, kind), 0.0).unwrap()
                });
                cases.check(&case("beside w"), || beside(&model, &with, options(&model, kind), 1.5).unwrap());
                cases.check(&case("no classes"), || {
                    beside(&without, &with, once(&without, kind), -1.0).unwrap()
                });
            }
            let darker = |cx: &mut Context, input: &GuideInput<'_>| {
                let black = cx.constant_f32("black", input.z.shape(), &vec![-1.0; input.z.len()])?;
                let distance = ops::mse(cx, input.z, &black)?;
                ops::scale(cx, &distance, -20.0)
            };
            cases.check(&format!("{}, a cost of one's own", process.name), || {
                let with = Beside { guide: Some(&darker), ..Beside::default() };
                beside(&model, &with, once(&model, SamplerKind::Ancestral), 0.0).unwrap()
            });
        }
    });
}

#[test]
fn unconditional_scores_from_classes() {
    group("from classes", |cases| {
        let kind = SamplerKind::Ancestral;
        for (name, model) in [
            ("small", models::small(models::CONTINUOUS_EPS)),
            ("without a null class", models::null_class(models::CONTINUOUS_EPS, "absent")),
            ("late", models::late(models::CONTINUOUS_EPS, "middle_block")),
        ] {
            let options = options(&model, kind);
            let case = |what: &str| format!("{name}, {what}");
            cases.check(&case("w is 1.5"), || {
                from_classes(&model, None, options.clone(), &two(), 1.5).unwrap()
            });
            cases.check(&case("a prior, one without a class"), || {
                let prior = Some(&[1.0, 2.0, 5.0][..]);
                from_classes(&model, prior, options.clone(), &one_without_class(), 0.5).unwrap()
            });
            let unclipped = SamplerOptions { clip: Clip::None, ..options.clone() };
            cases.check(&case("no clip"), || {
                from_classes(&model, None, unclipped.clone(), &two(), 1.5).unwrap()
            });
            let dynamic = SamplerOptions { clip: Clip::Dynamic { quantile: 0.9 }, ..options };
            refused(&case("dynamic"), from_classes(&model, None, dynamic, &two(), 1.5), "dynamic threshold");
        }
        let model = models::small(models::CONTINUOUS_EPS);
        for kind in [SamplerKind::Ddim, SamplerKind::Heun, SamplerKind::EulerAncestral] {
            let drawn = from_classes(&model, None, options(&model, kind), &two(), 1.5);
            refused(&kind.to_string(), drawn, "has no such noise");
        }
        for process in [models::CONTINUOUS_V, models::LINEAR_EPS, models::LEARNED_RANGE] {
            let model = models::small(process);
            let drawn = from_classes(&model, None, options(&model, kind), &two(), 1.5);
            refused(process.name, drawn, "this model predicts");
        }
    });
}

#[test]
fn late_conditioning() {
    group("late", |cases| {
        for (process, block) in [
            (models::CONTINUOUS_EPS, "middle_block"),
            (models::CONTINUOUS_EPS, "input_blocks.2"),
            (models::LEARNED_RANGE, "output_blocks.1"),
        ] {
            let model = models::late(process, block);
            for kind in [SamplerKind::Ancestral, SamplerKind::Dpmpp2mSde] {
                let case = |what: &str| format!("{} from {block}, {kind}, {what}", process.name);
                let options = options(&model, kind);
                let two_pass = SamplerOptions { two_pass: true, ..options.clone() };
                cases.check(&case("one evaluation"), || plain(&model, once(&model, kind), 0.0).unwrap());
                cases.check(&case("pair"), || plain(&model, options.clone(), 1.5).unwrap());
                cases.check(&case("two passes"), || plain(&model, two_pass.clone(), 1.5).unwrap());
                for chain in ["also(0:0.5 1:1)", "interval(lo=-3,hi=4)+apg(r=3)"] {
                    cases.check(&case(chain).replace(" = ", " is "), || {
                        guided(&model, None, chain, options.clone()).unwrap()
                    });
                }
            }
        }
    });
}

#[test]
fn distilled_networks() {
    group("distilled", |cases| {
        for process in [models::CONTINUOUS_EPS, models::CONTINUOUS_V, models::COSINE_V] {
            for late in [false, true] {
                let model = models::distilled(process, late);
                let name = if late { ", late" } else { "" };
                for kind in [SamplerKind::Ancestral, SamplerKind::Halving, SamplerKind::Dpmpp2m] {
                    for weight in [0.5, 3.0] {
                        let case = format!("{}{name}, {kind}, w is {weight}", process.name);
                        cases.check(&case, || plain(&model, options(&model, kind), weight).unwrap());
                    }
                }
                let sampler = Sampler::of(gpu(), &model, options(&model, SamplerKind::Ddim)).unwrap();
                refused(process.name, sampler.start(&two(), w(4.5)).map(drop), "from 0 to 4");
                cases.check(&format!("{}{name}, one without a class", process.name), || {
                    draw(&sampler, &one_without_class(), 1.5)
                });
            }
        }
    });
}

/// Upsamplers: their bits after every move, and their bytes through what gives them small pictures.
#[test]
fn upsamplers() {
    const SIDE: usize = 4;
    group("upsampler", |cases| {
        let small: Vec<u8> = (0..BATCH * SIDE * SIDE * 3).map(|i| (i * 91 % 256) as u8).collect();
        for process in [models::CONTINUOUS_EPS, models::LEARNED_RANGE] {
            let model = models::upsampler(process);
            let weights = model.weights();
            for kind in [SamplerKind::Ancestral, SamplerKind::Heun] {
                let case = |what: &str| format!("{}, {kind}, {what}", process.name);
                cases.check(&case("bits"), || {
                    let values: Vec<f32> =
                        small.iter().map(|&x| (f32::from(x) * 2.0 - 255.0) / 255.0).collect();
                    let buffer = gpu().buffer_with("small", bytemuck::cast_slice(&values)).unwrap();
                    let low_res = Some((&buffer, Extent::square(SIDE)));
                    let networks = Networks { low_res, ..Networks::of(&model.unet, &weights) };
                    let process = model.config.process().unwrap();
                    let sampler = Sampler::with(gpu(), networks, process, once(&model, kind)).unwrap();
                    draw(&sampler, &two(), 0.0)
                });
                cases.check(&case("bytes of three"), || {
                    let upsampling =
                        Upsampling::new(gpu(), &model, Extent::square(SIDE), options(&model, kind)).unwrap();
                    let picture = |pixels: &[u8]| Image::new(SIDE, SIDE, 3, pixels.to_vec()).unwrap();
                    let mut images: Vec<Image> = small.chunks(SIDE * SIDE * 3).map(picture).collect();
                    images.push(Image::filled(SIDE, SIDE, 3, 200));
                    let requests = [two(), one_without_class()[..1].to_vec()].concat();
                    let large = upsampling.upsample(&images, &requests, || Ok(())).unwrap();
                    let step = Dispatches::of("step", upsampling.sampler().step_plan());
                    Drawn { hash: samplers::bytes(&large), plans: vec![step] }
                });
            }
            let alone = Sampler::of(gpu(), &model, once(&model, SamplerKind::Ddim));
            refused(process.name, alone, "--upsampler");
            let method = Method::default();
            let guided = runs::guided(
                &model,
                None,
                "constant",
                SamplerOptions { method, ..options(&model, SamplerKind::Ddim) },
            );
            assert!(guided.is_err(), "guiders run no upsampler");
        }
    });
}
