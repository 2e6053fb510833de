//! What other programs got wrong with latents, each seen by its numbers.

use super::golden::{Tensors, folder, note, open, shaped, tensors, write};
use super::{CodecCheckpoint, CodecChoice, CodecModel};
use crate::data::{to_nearest_u8, to_u8};
use crate::nn::{Halves, Latents};
use crate::shape::Shape;
use crate::tensor::DType;
use crate::testing::{Array, gpu};

/// Pictures and latents of the case `kl`, whose factor is 4.
const PICTURE: (usize, usize) = (3, 8);
const LATENT: (usize, usize) = (4, 2);

fn shape((channels, side): (usize, usize)) -> Shape {
    Shape::square(channels, side)
}

fn values(of: (usize, usize), number: i64) -> Vec<f32> {
    let shape = shape(of);
    Array::filled(&shape.nhwc(1), number, 1.0, 0.0).data
}

/// Some autoencoders overflow f16 in the middle: black pictures. What is not finite is computed again in f32, and told.
#[test]
fn what_f16_cannot_hold_is_computed_in_f32() {
    if !crate::testing::dtypes().contains(&DType::F16) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut loud = tensors("kl");
    for name in ["decoder.conv_in.weight", "encoder.conv_in.weight"] {
        let array = loud.get_mut(name).unwrap();
        *array = array.map(|v| 60_000.0 * v.signum());
    }
    let path = folder(place.path(), "kl", &loud);
    let want = open(&path).unwrap();
    let model = || CodecModel::open(gpu(), &path, DType::F16, &CodecChoice::default()).unwrap();
    let (z, x) = (values(LATENT, 1), values(PICTURE, 2));

    let decoding = model();
    assert_eq!(decoding.dtype(), DType::F16);
    let first = decoding.decode(&z, shape(LATENT)).unwrap();
    assert!(first.note.as_ref().is_some_and(|note| note.contains("f16 cannot hold")), "{:?}", first.note);
    assert_eq!(first.values, want.decode(&z, shape(LATENT)).unwrap().values);
    // From then on without the detour.
    assert_eq!(decoding.dtype(), DType::F32);
    let second = decoding.decode(&z, shape(LATENT)).unwrap();
    assert_eq!((second.values, second.note), (first.values, None));

    let encoding = model();
    let encoded = encoding.encode(&x, shape(PICTURE), None).unwrap();
    assert!(encoded.note.is_some());
    assert_eq!(encoded.values, want.encode(&x, shape(PICTURE), None).unwrap().values);
}

/// Weights that f16 cannot hold are no reason to refuse a file.
#[test]
fn weights_that_f16_cannot_hold_are_taken_in_f32() {
    if !crate::testing::dtypes().contains(&DType::F16) {
        return;
    }
    let place = tempfile::tempdir().unwrap();
    let mut loud = tensors("kl");
    loud.get_mut("decoder.conv_out.weight").unwrap().data[5] = 1e5;
    let path = folder(place.path(), "kl", &loud);
    let model = CodecModel::open(gpu(), &path, DType::F16, &CodecChoice::default()).unwrap();
    assert_eq!(model.dtype(), DType::F32);
    let note = model.notes().last().unwrap();
    assert!(note.contains("decoder.conv_out.weight") && note.contains("it is run in f32"), "{note}");
    let z = values(LATENT, 1);
    assert_eq!(
        model.decode(&z, shape(LATENT)).unwrap().values,
        open(&path).unwrap().decode(&z, shape(LATENT)).unwrap().values
    );
}

/// Numbers that f32 cannot hold either are told, and so are those that come in.
#[test]
fn what_is_not_finite_is_told() {
    let place = tempfile::tempdir().unwrap();
    let mut broken = tensors("kl");
    broken.get_mut("decoder.conv_norm_out.weight").unwrap().data.fill(3e38);
    let model = open(&folder(place.path(), "kl", &broken)).unwrap();
    let mut z = values(LATENT, 1);
    let error = model.decode(&z, shape(LATENT)).unwrap_err().to_string();
    assert!(error.contains("not finite, in f32 too"), "{error}");
    z[3] = f32::NAN;
    let error = model.decode(&z, shape(LATENT)).unwrap_err().to_string();
    assert_eq!(error, "latents hold NaN at element 3");
    let error = model.decode(&z[1..], shape(LATENT)).unwrap_err().to_string();
    assert!(error.contains("15 numbers are no latents of 2x2 with 4 channels"), "{error}");
    broken.get_mut("decoder.conv_in.bias").unwrap().data[2] = f32::NAN;
    let error = open(&folder(place.path(), "kl", &broken)).err().unwrap().to_string();
    assert!(error.contains("decoder.conv_in.bias") && error.contains("NaN"), "{error}");
}

/// An autoencoder whose every pixel is 0.25: in [-1, 1] that is level 159, where pictures are in [0, 1] (EDM2's) 63.
#[test]
fn pictures_may_be_from_zero_to_one() {
    let place = tempfile::tempdir().unwrap();
    let mut constant = tensors("kl");
    constant.get_mut("decoder.conv_out.weight").unwrap().data.fill(0.0);
    constant.get_mut("decoder.conv_out.bias").unwrap().data.fill(0.25);
    let path = folder(place.path(), "kl", &constant);
    let level = |unit_pictures: bool| {
        let choice = CodecChoice { unit_pictures, ..CodecChoice::default() };
        let model = CodecModel::open(gpu(), &path, DType::F32, &choice).unwrap();
        let pictures = model.decode(&values(LATENT, 1), shape(LATENT)).unwrap().values;
        (to_u8(&pictures)[7], to_nearest_u8(&pictures)[7])
    };
    assert_eq!((level(false), level(true)), ((159, 159), (63, 64)));
    // And so are those that are encoded: a picture x in [0, 1] is 2x - 1 here.
    let encoded = |unit_pictures: bool, x: &[f32]| {
        let choice = CodecChoice { unit_pictures, ..CodecChoice::default() };
        let model = CodecModel::open(gpu(), &path, DType::F32, &choice).unwrap();
        Array::new(&[16], model.encode(x, shape(PICTURE), None).unwrap().values)
    };
    let unit: Vec<f32> = values(PICTURE, 2).iter().map(|v| v.abs()).collect();
    let ours: Vec<f32> = unit.iter().map(|v| 2.0 * v - 1.0).collect();
    encoded(true, &ours).check_within("unit", &encoded(false, &unit), 1e-5);
}

/// The picture beside the latent of a network that edits is the mean, with no factor: a pipeline says so.
#[test]
fn a_pipeline_may_know_the_factors_better() {
    let place = tempfile::tempdir().unwrap();
    let path = folder(place.path(), "kl", &tensors("kl"));
    let with = |latents: Option<Latents>| {
        let choice = CodecChoice { latents, ..CodecChoice::of(Halves::Encoder) };
        let model = CodecModel::open(gpu(), &path, DType::F32, &choice).unwrap();
        Array::new(&[16], model.encode(&values(PICTURE, 2), shape(PICTURE), None).unwrap().values)
    };
    let (own, raw) = (with(None), with(Some(Latents::default())));
    own.check_within("factor", &raw.map(|v| 0.18215 * v), 1e-6);
    let edm2 = Latents::standardised(&[5.81, 3.25, 0.12, -2.15], &[4.17, 4.62, 3.71, 3.28], 0.5).unwrap();
    let channel = |at: usize| edm2.of_channel(at % 4);
    let want =
        (0..16).map(|at| ((f64::from(raw.data[at]) - channel(at)[0]) * channel(at)[1]) as f32).collect();
    with(Some(edm2.clone())).check_within("edm2", &Array::new(&[16], want), 1e-5);
}

/// A small autoencoder's latents have no factor, and its pictures are in [0, 1] in its files.
#[test]
fn small_ones_have_no_factor() {
    let place = tempfile::tempdir().unwrap();
    let mut constant = tensors("tiny");
    let last = "decoder.layers.10";
    constant.get_mut(&format!("{last}.weight")).unwrap().data.fill(0.0);
    constant.get_mut(&format!("{last}.bias")).unwrap().data.fill(0.25);
    let model = open(&folder(place.path(), "tiny", &constant)).unwrap();
    let pictures = model.decode(&values(LATENT, 1), shape(LATENT)).unwrap().values;
    assert!(pictures.iter().all(|v| *v == -0.5), "0.25 of [0, 1]");
    assert_eq!(model.about().latents.of_channel(0), [0.0, 1.0]);
}

/// Files of families whose factor stands in none of their tensors: told apart by a neighbour.
#[test]
fn factors_of_single_files_are_their_familys() {
    let (place, own) = (tempfile::tempdir().unwrap(), tensors("kl"));
    let single = |name: &str, front: &str, beside: &[(&str, Vec<f32>)]| {
        let mut all: Tensors =
            own.iter().map(|(name, array)| (format!("{front}{name}"), array.clone())).collect();
        all.extend(
            beside
                .iter()
                .map(|(name, values)| ((*name).to_owned(), Array::new(&[values.len()], values.clone()))),
        );
        let path = write(place.path().join(name), &all);
        CodecCheckpoint::open(&path, &CodecChoice::default()).unwrap()
    };
    let of = |checkpoint: &CodecCheckpoint| checkpoint.codec(None).unwrap().about().latents.of_channel(1);
    let front = "first_stage_model.";
    let sd = single("sd", front, &[("model.diffusion_model.input_blocks.0.0.weight", vec![0.0])]);
    let sdxl = single(
        "xl",
        front,
        &[
            ("model.diffusion_model.input_blocks.0.0.weight", vec![0.0]),
            ("conditioner.embedders.1.x", vec![0.0]),
        ],
    );
    let sd3 = single("sd3", front, &[("model.diffusion_model.joint_blocks.0.x", vec![0.0])]);
    let flux = single("flux", front, &[("model.diffusion_model.double_blocks.0.x", vec![0.0])]);
    assert_eq!(of(&sd), [0.0, 0.18215]);
    assert_eq!(of(&sdxl), [0.0, 0.13025]);
    assert_eq!((of(&sd3), of(&flux)), ([0.0609, 1.5305], [0.1159, 0.3611]));
    assert!(
        sd3.notes[0].contains("SD3") && sd3.summary().contains("shift 0.0609"),
        "{} {:?}",
        sd3.summary(),
        sd3.notes
    );
    let playground =
        single("edm", "", &[("edm_mean", vec![1.0, 2.0, 3.0, 4.0]), ("edm_std", vec![2.0, 4.0, 2.0, 2.0])]);
    assert_eq!(of(&playground), [2.0, 0.125]);
    let alone = single("alone", "", &[]);
    assert!(of(&alone) == [0.0, 0.18215] && alone.notes[0].contains("is assumed"), "{:?}", alone.notes);
    // Sixteen channels may be anybody's.
    let bare: Tensors = tensors("kl_bare");
    let wide: Tensors = bare
        .into_iter()
        .filter(|(name, _)| !name.contains("shortcut"))
        .map(|(name, array)| {
            let shape: Vec<usize> = array
                .shape
                .iter()
                .map(|extent| if [8, 12].contains(extent) { 32 } else { *extent })
                .collect();
            (name, Array::filled(&shape, 1, 0.1, 0.0))
        })
        .collect();
    let path = write(place.path().join("wide"), &wide);
    let error = CodecCheckpoint::open(&path, &CodecChoice::default()).err().unwrap().to_string();
    assert!(error.contains("factor of its latents of 16 channels"), "{error}");
    let choice =
        CodecChoice { latents: Some(Latents::scaled(0.3611, 0.1159).unwrap()), ..CodecChoice::default() };
    assert_eq!(of(&CodecCheckpoint::open(&path, &choice).unwrap()), [0.1159, 0.3611]);
}

/// What is missing, of another shape or left over is told by its own name, before anything is read.
#[test]
fn files_that_do_not_fit_are_told() {
    let place = tempfile::tempdir().unwrap();
    let refused = |change: &dyn Fn(&mut Tensors)| {
        let mut all = tensors("kl");
        change(&mut all);
        let path = folder(place.path(), "kl", &all);
        CodecCheckpoint::open(&path, &CodecChoice::default()).err().unwrap().to_string()
    };
    let gone = refused(&|all| drop(all.remove("decoder.up_blocks.1.resnets.2.conv1.weight")));
    assert!(gone.contains("`decoder.up_blocks.1.resnets.2.conv1.weight` is missing"), "{gone}");
    let other = refused(&|all| drop(all.insert("quant_conv.bias".into(), Array::filled(&[9], 1, 1.0, 0.0))));
    assert!(other.contains("`quant_conv.bias` is [9], but the configuration makes it [8]"), "{other}");
    let more =
        refused(&|all| drop(all.insert("decoder.extra.weight".into(), Array::filled(&[9], 1, 1.0, 0.0))));
    assert!(more.contains("`decoder.extra.weight` is not a part of this autoencoder"), "{more}");
    let mut half = tensors("kl");
    half.retain(|name, _| !name.starts_with("encoder") && !name.starts_with("quant"));
    let path = folder(place.path(), "kl", &half);
    let decoder = CodecCheckpoint::open(&path, &CodecChoice::default()).unwrap();
    assert_eq!((decoder.halves, decoder.summary().contains("the decoder alone")), (Halves::Decoder, true));
    let path = write(
        place.path().join("x.safetensors"),
        &Tensors::from([("w".to_owned(), Array::filled(&[9], 1, 1.0, 0.0))]),
    );
    let error = CodecCheckpoint::open(&path, &CodecChoice::default()).err().unwrap().to_string();
    assert!(error.contains("holds 1 tensors, and no autoencoder that is read"), "{error}");
    let small = note("kl.config").replace("\"norm_num_groups\": 32", "\"norm_num_groups\": 16");
    std::fs::write(place.path().join("config.json"), small).unwrap();
    CodecCheckpoint::open(place.path(), &CodecChoice::of(Halves::Decoder)).unwrap();
    let (latent, _) = shaped(&Array::filled(&[1, 4, 3, 5], 1, 1.0, 0.0));
    assert_eq!(decoder.codec(None).unwrap().pixels_of(latent).extent.width(), 20);
}
